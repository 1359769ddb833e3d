"""`millpond model`: list, show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from millpond.cli.output import Output, failures, grid
from millpond.cli.session import Json, session
from millpond.core.errors import NotFound
from millpond.platform.tiers import tier_of

if TYPE_CHECKING:
    from millpond.registry.mlflow_store import MLflowStore
    from millpond.registry.ports import Version

app = typer.Typer(help="Models and their versions.", no_args_is_help=True)


@app.command("list")
def list_models(context: typer.Context, json: Json = False) -> None:
    """All models with versions."""
    output = Output(as_json=json)
    with failures(output):
        store = session(context).open(output).store
        versions = [each for name in store.models() for each in store.versions(name)]
        rows = [(str(each), ", ".join(each.aliases), each.created_at, each.created_by) for each in versions]
        output.data(versions, grid("version", "aliases", "trained", "by", rows=rows))


def _report(store: MLflowStore, version: Version) -> Path | None:
    try:
        return store.report(version)
    except NotFound:  # registered, not trained
        return None


def _find(store: MLflowStore, name: str, version: str | None) -> Version:
    if version is not None:
        return store.version(name, int(version) if version.isdigit() else version)
    made = store.versions(name)
    champion = next((each for each in made if "champion" in each.aliases), None)
    return champion or (made[-1] if made else store.version(name, "champion"))


@app.command()
def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Model.")],
    version: Annotated[
        str | None, typer.Option(help="Number or alias; default: the champion, else the newest.")
    ] = None,
    json: Json = False,
) -> None:
    """A version: metrics, what it was made of, where its report is."""
    output = Output(as_json=json)
    with failures(output):
        from millpond.platform.log_policies import policies, told

        platform = session(context).open(output)
        store = platform.store
        found = _find(store, name, version)
        kept = policies(platform, found)
        lineage, report, tier = store.lineage(found), _report(store, found), tier_of(platform, found)
        facts = [
            ("trained", f"{found.created_at:%Y-%m-%d %H:%M} UTC by {found.created_by}"),
            ("aliases", ", ".join(found.aliases)),
            ("training set", f"{lineage.training_set}@{lineage.training_set_snapshot}" if lineage.training_set else ""),
            *((f"table {table}", str(snapshot)) for table, snapshot in lineage.sources.items()),
            ("code", (lineage.code.commit or "no commit") + (" + uncommitted" if lineage.code.dirty else "")),
            ("served", f"{tier.tier}: {tier.why}"),
            ("logged", told(kept.present) + (f", since {kept.since:%Y-%m-%d %H:%M} UTC" if kept.since else "")),
            ("report", report),
        ]
        metrics = sorted(found.metrics.items())
        output.data(
            {"version": found, "lineage": lineage, "report": report, "tier": tier, "log": kept.present},
            [grid(str(found), "", rows=facts), "", grid("metric", "value", rows=metrics)],
        )
