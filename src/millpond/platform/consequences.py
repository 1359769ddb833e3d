"""What changed definitions lead to, as data. Pure: it looks at nothing but what it is given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from millpond.definitions.changes import DefinitionChange, compare
from millpond.definitions.meanings import FIT_FIELDS, Key, Kind, Meaning, Meanings, model_meanings
from millpond.definitions.models import Model
from millpond.definitions.project import Definitions
from millpond.features.online.ports import OnlineView, ViewState
from millpond.platform.applied import Record

#: A derived table in the lake: not there, made by another definition, or made by the present one.
Derived = Literal["absent", "other", "same"]


@dataclass(frozen=True)
class Trained:
    """A registered version, with the meanings that it was trained with; `champion`: whether it answers."""

    model: str
    number: int
    champion: bool
    parts: Meanings


@dataclass(frozen=True)
class TableEffect:
    """A table whose definition changed, or that is derived again.

    Attributes:
        name: The table's name.
        version: The version of its definition that is in force; None is none yet.
        becomes: The version that it will have; None where it is no longer declared (its rows stay).
        derive: Whether its rows are computed again.
        because: Why.
    """

    name: str
    version: int | None
    becomes: int | None
    derive: bool
    because: tuple[str, ...]


@dataclass(frozen=True)
class ViewEffect:
    """A feature view, or request features, whose values change; a new version where `becomes` is not `version`.

    Attributes:
        kind: "view" or "request_features".
        name: Its name.
        version: The version in force; None is none yet.
        becomes: The version that it will have; None where it is no longer declared.
        because: Why.
        models: The declared models that use it.
    """

    kind: Kind
    name: str
    version: int | None
    becomes: int | None
    because: tuple[str, ...]
    models: tuple[str, ...]


@dataclass(frozen=True)
class ModelEffect:
    """A model that is no longer up to date.

    Attributes:
        name: The model's name.
        newest: Its newest version; None where it was never trained.
        training_set: Whether its training set is built again; else only the fit is done again.
        because: Why.
    """

    name: str
    newest: int | None
    training_set: bool
    because: tuple[str, ...]


@dataclass(frozen=True)
class KeptView:
    """A view that a deployed version goes on with; versions are None where none is on record, or none is declared."""

    kind: Kind
    name: str
    version: int | None
    becomes: int | None


@dataclass(frozen=True)
class DeployedEffect:
    """A version that answers now, and goes on with what it was trained with.

    Attributes:
        model: The model's name.
        version: The version that answers.
        keeps: Views and request features whose meaning in it is another than the declared one.
        tables: Derived tables that its features are read from and that no longer mean what they meant when it was
            trained: a version brings its own views, and looks them up in the tables as they are.
    """

    model: str
    version: int
    keeps: tuple[KeptView, ...]
    tables: tuple[str, ...]


@dataclass(frozen=True)
class OnlineEffect:
    """What becomes of values in the online store.

    Attributes:
        view: The view's name.
        action: "refresh": values are to be computed; "keep": a version that answers needs the old meaning;
            "drop": nothing uses the meaning that is held.
        because: Why.
        entities: Number of entities held; None where nothing is.
        refreshed_at: When they were computed; UTC; None where nothing is held.
    """

    view: str
    action: Literal["refresh", "keep", "drop"]
    because: str
    entities: int | None
    refreshed_at: datetime | None


@dataclass(frozen=True)
class ReleaseEffect:
    """A model whose next versions take over otherwise than before; nothing is trained for it.

    Attributes:
        model: The model's name.
        declared: Whether a release is declared; else a version that passes its gates is promoted at once.
    """

    model: str
    declared: bool


@dataclass(frozen=True)
class Plan:
    """What the definitions change, before anything is applied.

    Attributes:
        changes: What is declared otherwise than it was applied last.
        tables: Tables that change, in order of derivation.
        views: Views and request features that change.
        models: Models to train again.
        online: Values in the online store that change.
        deployed: Versions that go on answering with another meaning than the declared one.
        releases: Models whose next versions take over otherwise.
    """

    changes: tuple[DefinitionChange, ...]
    tables: tuple[TableEffect, ...]
    views: tuple[ViewEffect, ...]
    models: tuple[ModelEffect, ...]
    online: tuple[OnlineEffect, ...]
    deployed: tuple[DeployedEffect, ...]
    releases: tuple[ReleaseEffect, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to apply; versions may still answer with an older meaning."""
        return not (self.changes or self.tables or self.views or self.models or self.online)


def make_plan(
    definitions: Definitions,
    declared: Meanings,
    record: Record,
    derived: Mapping[str, Derived],
    trained: Sequence[Trained],
    states: Sequence[ViewState] = (),
) -> Plan:
    """What `definitions` change.

    Args:
        definitions: What the project declares.
        declared: Their meanings.
        record: What was applied.
        derived: How each derived table is in the lake.
        trained: The newest version and the champion of each model, in any order.
        states: What the online store holds.
    """
    applied = {key: each.meaning for key, each in record.in_force.items() if each.meaning is not None}
    changes = compare(applied, declared)
    changed = {change.key: change for change in changes}
    again = _derived_again(definitions, derived)
    champions = [each for each in trained if each.champion]
    views = tuple(_views(definitions, declared, record, changed, again))
    return Plan(
        changes=changes,
        tables=tuple(_tables(definitions, declared, record, changed, again)),
        views=views,
        models=tuple(_models(definitions, trained, changed, again)),
        online=tuple(_online(declared, views, champions, states, again)) if states else (),
        deployed=tuple(each for champion in champions for each in _deployed(declared, record, champion)),
        releases=tuple(ReleaseEffect(key.name, key in declared) for key in changed if key.kind == "release"),
    )


def _derived_again(definitions: Definitions, derived: Mapping[str, Derived]) -> dict[str, tuple[str, ...]]:
    """Derived tables whose rows are computed again, and why."""
    found: dict[str, tuple[str, ...]] = {}
    for table in definitions.derivation_order:
        own = {"absent": ("not derived yet",), "other": ("its definition changed",), "same": ()}[derived[table.name]]
        inputs = table.derivation.inputs if table.derivation else ()
        reasons = (*own, *(f"table {each.name} is derived again" for each in inputs if each.name in found))
        if reasons:
            found[table.name] = reasons
    return found


def _tables(
    definitions: Definitions,
    declared: Meanings,
    record: Record,
    changed: Mapping[Key, DefinitionChange],
    again: Mapping[str, tuple[str, ...]],
) -> Iterable[TableEffect]:
    order = [table.name for table in definitions.tables.values() if table.derivation is None]
    order += [table.name for table in definitions.derivation_order]
    for name in [*order, *(key.name for key in changed if key.kind == "table" and key not in declared)]:
        key = Key("table", name)
        reasons = (*_own_reason(changed.get(key)), *again.get(name, ()))
        if reasons:
            yield TableEffect(name, *_versions(key, declared, record), name in again, tuple(dict.fromkeys(reasons)))


def _views(
    definitions: Definitions,
    declared: Meanings,
    record: Record,
    changed: Mapping[Key, DefinitionChange],
    again: Mapping[str, tuple[str, ...]],
) -> Iterable[ViewEffect]:
    keys = [key for key in (*declared, *changed) if key.kind in ("view", "request_features")]
    for key in dict.fromkeys(keys):
        source = declared[key].get("source") if key in declared else None
        reasons = (*_own_reason(changed.get(key)), *([f"table {source} is derived again"] if source in again else []))
        if reasons:
            users = [model.name for model in definitions.models.values() if key in _inputs(model)]
            yield ViewEffect(key.kind, key.name, *_versions(key, declared, record), reasons, tuple(users))


def _models(
    definitions: Definitions,
    trained: Sequence[Trained],
    changed: Mapping[Key, DefinitionChange],
    again: Mapping[str, tuple[str, ...]],
) -> Iterable[ModelEffect]:
    for model in definitions.models.values():
        newest = max((each for each in trained if each.model == model.name), key=lambda each: each.number, default=None)
        tables = definitions.upstream(model)
        if newest is None:
            if Key("model", model.name) in changed:
                yield ModelEffect(model.name, None, True, ("never trained",))
            continue
        differs = compare(newest.parts, model_meanings(model, tables))
        redone = [f"table {table.name} is derived again" for table in tables if table.name in again]
        rows = bool(redone) or any(not _only_fit(change) for change in differs)
        reasons = [*(_differs(change) for change in differs), *redone]
        if reasons:
            yield ModelEffect(model.name, newest.number, rows, tuple(reasons))


def _deployed(declared: Meanings, record: Record, champion: Trained) -> Iterable[DeployedEffect]:
    keeps = [
        KeptView(key.kind, key.name, record.number(key, each), _becomes(key, declared, record))
        for key, each in champion.parts.items()
        if key.kind in ("view", "request_features") and compare({key: each}, _only(declared, key))
    ]
    read = _read_by_views(champion.parts)
    tables = [
        key.name
        for key, each in champion.parts.items()
        if key.name in read and key.kind == "table" and key in declared and each.get("derivation")
        if compare({key: each}, _only(declared, key))
    ]
    if keeps or tables:
        yield DeployedEffect(champion.model, champion.number, tuple(keeps), tuple(tables))


def _read_by_views(parts: Meanings) -> set[str]:
    """Names of the tables that the views among `parts` are computed from, directly or through derivations."""
    found: set[str] = set()
    waiting = [each["source"] for key, each in parts.items() if key.kind == "view"]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            derivation = parts.get(Key("table", name), {}).get("derivation")
            waiting += derivation["inputs"] if derivation else []
    return found


def _online(
    declared: Meanings,
    views: Sequence[ViewEffect],
    champions: Sequence[Trained],
    states: Sequence[ViewState],
    again: Mapping[str, tuple[str, ...]],
) -> Iterable[OnlineEffect]:
    held: set[str] = set()
    for state in states:
        name = state.view.name
        if holds(state.view, declared.get(Key("view", name))):
            held.add(name)
            if state.view.table in again:
                because = f"table {state.view.table} is derived again"
                yield OnlineEffect(name, "refresh", because, state.entities, state.refreshed_at)
            continue
        users = [
            f"{each.model}/{each.number}" for each in champions if holds(state.view, each.parts.get(Key("view", name)))
        ]
        because = f"{', '.join(users)} answers with this meaning" if users else "nothing uses this meaning"
        yield OnlineEffect(name, "keep" if users else "drop", because, state.entities, state.refreshed_at)
    for view in views:
        if view.kind == "view" and view.becomes is not None and view.name not in held:
            yield OnlineEffect(view.name, "refresh", "this meaning is not held yet", None, None)


def holds(view: OnlineView, meaning: Meaning | None) -> bool:
    """Whether what a store holds has this meaning; types of columns aside."""
    if meaning is None:
        return False
    time = meaning["time"] or meaning["known"]
    features = [
        (f"{meaning['features']}__{name}", each["kind"], each["column"], *_lengths(each))
        for name, each in meaning["columns"].items()
    ]
    return features == [
        (each.name, each.kind, each.column.name if each.column else None, each.over, each.within)
        for each in view.features
    ] and (view.entity, list(view.entity_keys), view.table, list(view.row_keys), view.time, view.known, view.every) == (
        meaning["entity"]["entity"],
        meaning["entity"]["key"],
        meaning["source"],
        meaning["key"],
        time,
        meaning["known"] if meaning["known"] != time else None,
        meaning["every"] if time else None,
    )


def _lengths(each: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Window and age limit as a resolved feature has them: on the latest row the two mean the same."""
    if each["kind"] != "latest":
        return each["over"], each["within"]
    limits = [length for length in (each["over"], each["within"]) if length is not None]
    return None, min(limits) if limits else None


def _own_reason(change: DefinitionChange | None) -> tuple[str, ...]:
    if change is None:
        return ()
    return ({"added": "new", "removed": "no longer declared", "changed": "its definition changed"}[change.action],)


def _versions(key: Key, declared: Meanings, record: Record) -> tuple[int | None, int | None]:
    in_force = record.in_force.get(key)
    return in_force.number if in_force else None, _becomes(key, declared, record)


def _becomes(key: Key, declared: Meanings, record: Record) -> int | None:
    return record.becomes(key, declared[key]) if key in declared else None


def _inputs(model: Model) -> set[Key]:
    functions = (Key("request_features", each.name) for each in model.request_features)
    return {*(Key("view", view.name) for view in model.views), *functions}


def _only(declared: Meanings, key: Key) -> dict[Key, Meaning]:
    return {key: declared[key]} if key in declared else {}


def _only_fit(change: DefinitionChange) -> bool:
    return change.kind == "model" and all(field.path and field.path[0] in FIT_FIELDS for field in change.fields)


def _differs(change: DefinitionChange) -> str:
    fields = ", ".join(dict.fromkeys(field.path[0] for field in change.fields if field.path))
    if change.kind == "model":
        return f"its {fields} changed"
    return f"{change.key} changed" if change.action == "changed" else f"{change.key} was {change.action}"
