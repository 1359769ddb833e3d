"""The feature catalog: what features there are, what they mean and meant, where they come from, and who uses them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from millpond.access.ports import AppliedDefinition
from millpond.core.errors import NotFound, SchemaMismatch
from millpond.core.fingerprints import fingerprint
from millpond.core.names import did_you_mean
from millpond.definitions.changes import diff, in_words
from millpond.definitions.features import Features
from millpond.definitions.meanings import Key, Meaning, meaning
from millpond.definitions.tables import Table
from millpond.features.layout import feature_kind
from millpond.features.online.ports import ViewState
from millpond.features.plan import plan_view
from millpond.features.point_in_time import dialect_of
from millpond.features.ports import PinnedView
from millpond.lake.ingest import FILES
from millpond.platform.applied import Record
from millpond.platform.consequences import Trained, holds
from millpond.platform.feature_models import (
    CatalogLine,
    FeatureLine,
    Freshness,
    LineageStep,
    MeaningDiff,
    ViewUse,
    ViewVersion,
)
from millpond.platform.feature_statistics import statistics
from millpond.platform.lake_pages import view_summary
from millpond.platform.plan import trained_with
from millpond.platform.platform import Platform
from millpond.platform.read_models import FeatureViewPage
from millpond.platform.versions import CHAMPION
from millpond.registry.ports import Version

_KIND_WORDS = {"integer": "int", "boolean": "bool"}
_SHOWN_FILES = 5
_SHOWN_USES = 20


def features(platform: Platform, search: str = "") -> list[CatalogLine]:
    """The declared features, by view in order of declaration, whose line has every word of `search`.

    A word counts wherever it occurs in the names of feature, view, entity, table and models, in owner, tags and
    description, in any case; "tag:WORD" and "owner:WORD" look at the tags and the owner alone.
    """
    record = Record.of(platform)
    wanted = search.casefold().split()
    found = []
    for view in platform.definitions.views.values():
        lines = [each for each in _lines(platform, view, record) if all(_has(each, word) for word in wanted)]
        fresh = _newest_event(platform, view) if lines else None
        found += [replace(each, fresh_at=fresh) for each in lines]
    return found


def feature_view(platform: Platform, name: str, states: Sequence[ViewState] | None = None) -> FeatureViewPage:
    """All about a feature view.

    Args:
        platform: The project.
        name: The view's name.
        states: What the online store holds; None asks it.

    Raises:
        NotFound: No such view is declared.
    """
    view = platform.definitions.view(name)
    record = Record.of(platform)
    types = _types(platform, view)
    basis, measured = statistics(platform, view, record)
    key = Key("view", name)
    in_force = record.in_force.get(key)
    pending = diff(in_force.meaning, meaning(view)) if in_force else ()
    return FeatureViewPage(
        summary=view_summary(platform, view),
        features=tuple(
            FeatureLine(feature, str(each), types.get(feature), each.column, each.description, measured.get(feature))
            for feature, each in view.features.items()
        ),
        time=view.event_time,
        known=view.known_time,
        owner=view.owner,
        tags=tuple(view.tags),
        freshness=_freshness(platform, view, platform.online_states if states is None else states),
        basis=basis,
        lineage=tuple(_lineage(platform, view.source, record)),
        versions=tuple(reversed(versions(record, name, meaning(view)))),
        uses=tuple(_uses(platform, view, record)),
        pending=tuple(line for change in pending for line in in_words(change)),
    )


def find(platform: Platform, text: str) -> tuple[str, str | None]:
    """View and feature that a text names: "view", "view.feature" or "view__feature"; no feature where it is a view.

    Raises:
        NotFound: There is no such view, or it has no such feature.
    """
    name, _, feature = text.replace("__", ".", 1).partition(".")
    view = platform.definitions.view(name)
    if feature and feature not in view.features:
        hint = did_you_mean(feature, view.features, noun="features")
        raise NotFound(f"There is no feature {feature!r} in view {name!r}", hint=hint)
    return name, feature or None


def difference(platform: Platform, name: str, old: int | None = None, new: int | None = None) -> MeaningDiff:
    """How two meanings of a view differ.

    Args:
        platform: The project.
        name: A view that is declared, or was applied at some time.
        old: A version; None takes the one in force.
        new: A version; None takes what is declared now.

    Raises:
        NotFound: There is no such view, or it has no such version.
    """
    record = Record.of(platform)
    declared = platform.definitions.views.get(name)
    known = record.history(Key("view", name))
    if declared is None and not known:
        names = {*platform.definitions.views, *(key.name for key, _ in record.numbers if key.kind == "view")}
        raise NotFound(f"There is no feature view {name!r}", hint=did_you_mean(name, names, noun="feature views"))
    in_force = record.in_force.get(Key("view", name))
    before = _version(name, known, old) if old is not None else in_force.meaning if in_force else None
    after = _version(name, known, new) if new is not None else meaning(declared) if declared else None
    first = old if old is not None else in_force.number if in_force else None
    return MeaningDiff(
        view=name,
        old=f"version {first}" if first is not None else "not in force" if known else "never applied",
        new=f"version {new}" if new is not None else "declared now" if declared else "no longer declared",
        changes=diff(before, after),
    )


def versions(record: Record, name: str, declared: Meaning | None) -> list[ViewVersion]:
    """The meanings that a view has had, oldest first; `declared` is the one it has in the definitions."""
    first: dict[int, AppliedDefinition] = {}
    for each in record.history(Key("view", name)):
        if each.number is not None:
            first.setdefault(each.number, each)
    in_force = record.in_force.get(Key("view", name))
    now = fingerprint(declared) if declared is not None else None
    return [
        ViewVersion(
            number=number,
            fingerprint=each.fingerprint or "",
            applied_at=each.at,
            applied_by=each.who,
            code_commit=each.code_commit,
            code_dirty=each.code_dirty,
            in_force=in_force is not None and in_force.number == number,
            declared=each.fingerprint == now,
            meaning=each.meaning or {},
            changes=_since(first.get(number - 1), each),
        )
        for number, each in sorted(first.items())
    ]


def _since(before: AppliedDefinition | None, each: AppliedDefinition) -> tuple[str, ...]:
    if before is None:
        return ()
    return tuple(line for change in diff(before.meaning, each.meaning) for line in in_words(change))


def _version(name: str, known: Iterable[AppliedDefinition], number: int) -> Meaning | None:
    numbers = {each.number: each.meaning for each in known if each.number is not None}
    if number not in numbers:
        listed = ", ".join(map(str, sorted(numbers)))
        hint = f"versions: {listed}" if listed else "it was never applied; `millpond train` does so"
        raise NotFound(f"Feature view {name!r} has no version {number}", hint=hint)
    return numbers[number]


def _lines(platform: Platform, view: Features, record: Record) -> list[CatalogLine]:
    types = _types(platform, view)
    summary = view_summary(platform, view)
    in_force = record.in_force.get(Key("view", view.name))
    return [
        CatalogLine(
            view=view.name,
            feature=name,
            name=f"{view.name}__{name}",
            declared=str(each),
            type=types.get(name),
            description=each.description,
            view_description=view.description,
            entity=view.entity.name,
            source=view.source.name,
            every=view.every,
            owner=view.owner,
            tags=tuple(view.tags),
            fresh_at=None,
            models=summary.models,
            version=in_force.number if in_force else None,
        )
        for name, each in view.features.items()
    ]


def _has(line: CatalogLine, word: str) -> bool:
    where, _, rest = word.partition(":")
    if where == "tag":
        return any(rest == tag.casefold() for tag in line.tags)
    if where == "owner":
        return rest in line.owner.casefold()
    told = (line.description, line.view_description)
    texts = (line.name, line.entity, line.source, line.owner, *told, *line.tags, *line.models)
    return any(word in text.casefold() for text in texts)


def _types(platform: Platform, view: Features) -> Mapping[str, str]:
    """Types of a view's features, as users name types; nothing where its table is not there or does not fit."""
    if not platform.lake.exists(view.source.name):
        return {}
    try:
        plan = plan_view(PinnedView(view, platform.lake.snapshot(view.source.name)))
    except SchemaMismatch:
        return {}
    kinds = zip(view.features, map(feature_kind, plan.features), strict=True)
    return {name: _KIND_WORDS.get(kind, kind) for name, kind in kinds}


def _freshness(platform: Platform, view: Features, states: Sequence[ViewState]) -> Freshness:
    there = platform.lake.exists(view.source.name)
    refreshed = [state.refreshed_at for state in states if holds(state.view, meaning(view))]
    return Freshness(
        newest_event=_newest_event(platform, view),
        committed_at=platform.lake.snapshot(view.source.name).committed_at if there else None,
        refreshed_at=max(refreshed, default=None),
    )


def _newest_event(platform: Platform, view: Features) -> datetime | None:
    if view.event_time is None or not platform.lake.exists(view.source.name):
        return None
    snapshot = platform.lake.snapshot(view.source.name)
    if view.event_time not in snapshot.column_names:
        return None
    with platform.engine() as engine:
        column = dialect_of(engine).quote(view.event_time)
        newest: datetime | None = engine.rows(f"SELECT max({column}) FROM {engine.scan(snapshot)}")[0][0]
    return newest


def _lineage(platform: Platform, source: Table, record: Record) -> Iterable[LineageStep]:
    """The source and all tables that it is derived from, inputs first, each once."""
    seen: set[str] = set()

    def visit(table: Table) -> Iterable[LineageStep]:
        if table.name in seen:
            return
        seen.add(table.name)
        inputs = table.derivation.inputs if table.derivation else ()
        for each in inputs:
            yield from visit(each)
        snapshot = platform.lake.snapshot(table.name) if platform.lake.exists(table.name) else None
        in_force = record.in_force.get(Key("table", table.name))
        yield LineageStep(
            table=table.name,
            inputs=tuple(each.name for each in inputs),
            files=() if inputs else _files(platform, table),
            snapshot_id=snapshot.id if snapshot else None,
            committed_at=snapshot.committed_at if snapshot else None,
            rows=snapshot.rows if snapshot else None,
            version=in_force.number if in_force else None,
        )

    return visit(source)


def _files(platform: Platform, table: Table) -> tuple[str, ...]:
    history = platform.lake.history(table.name) if platform.lake.exists(table.name) else []
    ingested = [each.properties[FILES] for each in reversed(history) if FILES in each.properties]
    return tuple(dict.fromkeys(ingested or table.sources))[:_SHOWN_FILES]


def _uses(platform: Platform, view: Features, record: Record) -> Iterable[ViewUse]:
    key, now = Key("view", view.name), fingerprint(meaning(view))
    for model in platform.store.models():
        for version in _shown(platform.store.versions(model)):
            for trained in trained_with(platform, version):
                used = trained.parts.get(key)
                if used is not None:
                    yield _use(version, trained, record.number(key, used), current=fingerprint(used) == now)


def _use(version: Version, trained: Trained, number: int | None, *, current: bool) -> ViewUse:
    return ViewUse(trained.model, trained.number, version.aliases, number, current)


def _shown(found: Sequence[Version]) -> list[Version]:
    """The newest versions, and the champion, newest first."""
    newest = found[-_SHOWN_USES:]
    return [each for each in reversed(found) if each in newest or CHAMPION in each.aliases]
