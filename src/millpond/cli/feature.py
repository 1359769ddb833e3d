"""`millpond feature`: list, show, diff, refresh, forget."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from millpond.cli.output import Output, failures, grid, plain
from millpond.cli.session import Json, session
from millpond.core.errors import RequestError
from millpond.definitions.changes import in_words

if TYPE_CHECKING:
    from rich.table import Table

    from millpond.platform.feature_models import FeatureLine, MeaningDiff, StatisticsBasis
    from millpond.platform.read_models import FeatureViewPage

app = typer.Typer(help="The feature catalog.", no_args_is_help=True)

View = Annotated[str, typer.Argument(help="Feature view.")]


@app.command("list")
def list_features(
    context: typer.Context,
    search: Annotated[
        list[str] | None, typer.Argument(help="Words that must all occur; tag:WORD and owner:WORD look there alone.")
    ] = None,
    json: Json = False,
) -> None:
    """All features: type, entity, source, freshness, and the models that use them."""
    output = Output(as_json=json)
    with failures(output):
        from millpond.platform.catalog import features

        found = features(session(context).open(output), " ".join(search or []))
        rows = [
            (each.view, each.feature, each.type, each.declared, each.entity, each.source, each.every or "live",
             each.fresh_at, ", ".join(each.models) or None)
            for each in found
        ]  # fmt: skip
        columns = ("view", "feature", "type", "declared", "entity", "source", "every", "newest event", "models")
        output.data(found, grid(*columns, rows=rows))
        if found:
            output.next(f"millpond feature show {found[0].view}")
        else:
            output.say(
                "No feature has all of these words." if search else "The definitions declare no mp.Features yet."
            )


@app.command()
def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="VIEW, VIEW.FEATURE or VIEW__FEATURE.")],
    json: Json = False,
) -> None:
    """A view or a feature: meaning, lineage, statistics, freshness, versions, and who uses which."""
    output = Output(as_json=json)
    with failures(output):
        from millpond.platform.catalog import feature_view, find

        platform = session(context).open(output)
        view, feature = find(platform, name)
        page = feature_view(platform, view)
        shown = [each for each in page.features if feature in (None, each.name)]
        output.data({**plain(page), "features": plain(shown)}, list(_parts(page, shown)))
        if page.pending:
            output.next("millpond plan", "what is declared is not applied yet")


@app.command("diff")
def diff_view(
    context: typer.Context,
    view: View,
    a: Annotated[int | None, typer.Argument(help="Version; default: the one in force.", min=1)] = None,
    b: Annotated[int | None, typer.Argument(help="Version; default: what is declared now.", min=1)] = None,
    json: Json = False,
) -> None:
    """How two versions of a view differ, or what is declared now from the version in force."""
    output = Output(as_json=json)
    with failures(output):
        from millpond.platform.catalog import difference

        found = difference(session(context).open(output), view, a, b)
        output.data(found)
        if not json:
            for line in _differences(found):
                output.line(line)


@app.command()
def refresh(
    context: typer.Context,
    views: Annotated[
        list[str] | None, typer.Argument(help="Feature views; default: all declared, and those of champions.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Do everything again, whatever is there.")] = False,
    json: Json = False,
) -> None:
    """Bring views up to date in the online store."""
    output = Output(as_json=json)
    with failures(output):
        from millpond.platform import online

        done = online.refresh(session(context).open(output), views or [], full=full)
        rows = [
            (each.view, each.how, each.state.entities, each.state.grid or each.state.since, each.state.refreshed_at)
            for each in done
        ]
        value = [
            {"view": view, "how": how, "entities": entities, "exact_from": exact, "refreshed_at": at}
            for view, how, entities, exact, at in rows
        ]
        output.data(value, grid("view", "refresh", "entities", "exact from", "refreshed", rows=rows))
        output.next("millpond up", "keeps them up to date")


@app.command()
def forget(
    context: typer.Context,
    entity: Annotated[str, typer.Argument(help="Entity.")],
    key: Annotated[list[str], typer.Argument(help="Its key, as COLUMN=VALUE.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Delete an entity from the online store, and from every table of the lake by a rewrite."""
    output = Output(as_json=json)
    with failures(output):
        from millpond.platform.forget import forget as forget_entity

        named = dict(_pair(each) for each in key)
        if not yes:
            typer.confirm(
                f"Delete {entity} {', '.join(key)} from everything? This cannot be undone", abort=True, err=True
            )
        found = forget_entity(session(context).open(output), entity, named)
        rows = [("online store", found.online), *found.rows.items()]
        told = [f"still held by {each}, which a version or a receipt pins" for each in found.pinned]
        told += [f"not touched: {each}, which tables were ingested from" for each in found.sources]
        output.data(found, [grid("deleted from", "rows", rows=rows), *told])


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise RequestError(f"{text!r} is not COLUMN=VALUE", where="KEY", hint="such as customer_id=c12")
    return name, value


def _differences(found: MeaningDiff) -> Iterator[str]:
    yield f"{found.view}: {found.old} -> {found.new}"
    if not found.changes:
        yield "  they mean the same"
    for change in found.changes:
        yield from (f"  {line}" for line in in_words(change))


def _parts(page: FeatureViewPage, shown: list[FeatureLine]) -> Iterator[str | Table]:
    summary = page.summary
    yield grid(summary.name, "", rows=list(_facts(page)))
    yield ""
    meaning = [(each.name, each.type, each.declared, each.description or None) for each in shown]
    yield grid("feature", "type", "declared", "description", rows=meaning)
    yield from ("", *_statistics(page.basis, shown))
    yield ""
    lineage = [
        (each.table, ", ".join(each.inputs or each.files) or None, each.rows, each.committed_at, each.version)
        for each in page.lineage
    ]
    yield grid("lineage", "made from", "rows", "committed", "version", rows=lineage)
    if page.versions:
        yield ""
        versions = [
            (str(each.number), each.applied_at, each.applied_by, (each.code_commit or "none")[:12], _mark(each),
             "; ".join(each.changes) or None)
            for each in page.versions
        ]  # fmt: skip
        yield grid("version", "first applied", "by", "commit", "", "changes", rows=versions)
    if page.uses:
        yield ""
        uses = [
            (f"{each.model}/{each.version}", ", ".join(each.aliases) or None, each.view_version, each.current)
            for each in page.uses
        ]
        yield grid("used by", "aliases", "with version", "as declared now", rows=uses)


def _facts(page: FeatureViewPage) -> Iterator[tuple[str, Any]]:
    summary, fresh = page.summary, page.freshness
    optional = (
        ("description", summary.description),
        ("owner", page.owner),
        ("tags", ", ".join(page.tags)),
    )
    yield from ((name, value) for name, value in optional if value)
    yield "entity", f"{summary.entity} by {', '.join(summary.entity_keys)}"
    yield "computed from", summary.source
    yield "refreshed", f"every {summary.every}" if summary.every else "live, exact at each instant"
    counts = f"from {page.time}" if page.time else "always"
    later = f", once {page.known} has passed" if page.known and page.known != page.time else ""
    yield "a row counts", counts + later
    yield "newest event", fresh.newest_event
    yield "table committed", fresh.committed_at
    if fresh.refreshed_at:
        yield "online values of", fresh.refreshed_at
    yield "models", ", ".join(summary.models) or None
    if page.pending:
        yield "not applied yet", "; ".join(page.pending)


def _statistics(basis: StatisticsBasis | None, shown: list[FeatureLine]) -> Iterator[str | Table]:
    if basis is None:
        yield "[dim]no statistics: no training set holds this view yet[/]"
        return
    rows = [
        (each.name, f"{found.nulls:.1%}", found.distinct, found.mean, *_spread(found.quantiles), _top(found.top))
        for each in shown
        if (found := each.statistics) is not None
    ]
    yield grid("values", "null", "distinct", "mean", "min", "median", "max", "most frequent", rows=rows)
    examples = f"{basis.rows:,} examples ({basis.entities:,} entities) of {basis.table}"
    version = f"version {basis.version}" if basis.version else "a version that is not on record"
    other = "" if basis.current else ", which is not what is declared now"
    yield f"[dim]over {examples}, each as of its own instant, by {version}{other}[/]"


def _spread(quantiles: Any) -> tuple[float | None, ...]:
    return tuple(quantiles.get(share) for share in ("0.0", "0.5", "1.0"))


def _top(top: Any) -> str | None:
    return ", ".join(f"{value} ({rows:,})" for value, rows in top) or None


def _mark(version: Any) -> str:
    return ", ".join([*(["in force"] if version.in_force else []), *(["declared"] if version.declared else [])])
