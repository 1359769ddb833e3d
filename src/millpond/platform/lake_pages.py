"""Pages about tables and feature views, and the overview."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from millpond.core.errors import NotFound
from millpond.core.names import did_you_mean
from millpond.definitions.features import Features
from millpond.definitions.tables import Table
from millpond.lake.derive import DERIVATION
from millpond.lake.ingest import FILES
from millpond.lake.ports import Snapshot
from millpond.platform import model_pages
from millpond.platform.batch_receipts import SCORED
from millpond.platform.platform import Platform
from millpond.platform.read_models import (
    CheckState,
    CheckView,
    ColumnView,
    Edge,
    FeatureViewSummary,
    Overview,
    Reference,
    SnapshotView,
    TablePage,
    TableSummary,
)

_SHOWN_SNAPSHOTS = 50
_SAMPLE_ROWS = 20
_TYPES = {
    "boolean": "bool",
    "int": "int",
    "long": "int",
    "float": "float",
    "double": "float",
    "timestamptz": "instant",
}


def overview(platform: Platform, state: model_pages.StateOf) -> Overview:
    """The project at a glance; `state` asks the serving worker."""
    definitions = platform.definitions
    checks = _latest_checks(platform)
    models = [model_pages.summary(platform, model) for model in definitions.models.values()]
    models += [model_pages.registered_summary(platform, name) for name in model_pages.undeclared(platform)]
    deployments = model_pages.deployments(platform, state)
    return Overview(
        project=platform.settings.name,
        tables=tuple(_summary(platform, name, checks.get(name, ())) for name in definitions.tables),
        views=tuple(view_summary(platform, view) for view in definitions.views.values()),
        models=tuple(models),
        deployments=tuple(deployments),
        edges=tuple(_edges(platform))
        + tuple(Edge(Reference("model", each.model), Reference("deployment", each.model)) for each in deployments),
    )


def table_page(platform: Platform, name: str) -> TablePage:
    """All about a table, Millpond's own ones included."""
    _require_table(platform, name)
    checks = tuple(sorted(_latest_checks(platform, name).get(name, ()), key=lambda each: (each.passed, each.name)))
    if not platform.lake.exists(name):
        return TablePage(_summary(platform, name, checks), (), (), checks, ())
    history = platform.lake.history(name)
    current = history[-1]
    with platform.engine() as engine:
        sample = engine.rows(f"SELECT * FROM {engine.scan(current)} LIMIT {_SAMPLE_ROWS}")
    return TablePage(
        summary=_summary(platform, name, checks),
        columns=tuple(_columns(platform, name, current)),
        snapshots=tuple(_snapshot(each) for each in reversed(history[-_SHOWN_SNAPSHOTS:])),
        checks=checks,
        sample=tuple(tuple(row) for row in sample),
        read_by=tuple(edge.target for edge in _edges(platform) if edge.source == Reference("table", name)),
    )


def _require_table(platform: Platform, name: str) -> None:
    if name not in platform.definitions.tables and not platform.lake.exists(name):
        known = {*platform.definitions.tables, *platform.lake.tables()}
        raise NotFound(f"There is no table {name!r}", hint=did_you_mean(name, known, noun="tables"))


def _summary(platform: Platform, name: str, checks: Iterable[CheckView]) -> TableSummary:
    declared = platform.definitions.tables.get(name)
    snapshot = platform.lake.snapshot(name) if platform.lake.exists(name) else None
    inputs = declared.derivation.inputs if declared is not None and declared.derivation else ()
    return TableSummary(
        name=name,
        description=declared.description if declared else "",
        rows=snapshot.rows if snapshot else None,
        snapshot_id=snapshot.id if snapshot else None,
        changed_at=snapshot.committed_at if snapshot else None,
        checks=_state(tuple(checks)),
        inputs=tuple(each.name for each in inputs),
    )


def _state(checks: tuple[CheckView, ...]) -> CheckState:
    if not checks:
        return "none"
    failed = {each.severity for each in checks if not each.passed}
    return "failed" if "block" in failed else "warning" if failed else "passed"


def _latest_checks(platform: Platform, table: str | None = None) -> dict[str, tuple[CheckView, ...]]:
    """The results of each table's last run of checks."""
    from millpond.quality.results import TABLE

    if not platform.lake.exists(TABLE):
        return {}
    only = f"""WHERE "table" = '{table}'""" if table else ""
    with platform.engine() as engine:
        relation = engine.scan(platform.lake.snapshot(TABLE))
        rows = engine.rows(
            f'SELECT "table", "check", severity, passed, violations, rows, examples, checked_at FROM {relation} {only} '
            f'QUALIFY checked_at = max(checked_at) OVER (PARTITION BY "table")'
        )
    found: dict[str, list[CheckView]] = {}
    for name, check, severity, passed, violations, count, examples, at in rows:
        shown = tuple(part for part in (examples or "").split("; ") if part)
        found.setdefault(name, []).append(CheckView(check, severity, passed, violations, count, shown, at))
    return {name: tuple(each) for name, each in found.items()}


def _columns(platform: Platform, name: str, snapshot: Snapshot) -> Iterable[ColumnView]:
    declared: Table | None = platform.definitions.tables.get(name)
    roles: Mapping[str | None, str] = {}
    if declared is not None:
        roles = {declared.known: "known", declared.time: "time", **dict.fromkeys(declared.keys, "key")}
    for column in snapshot.columns:
        yield ColumnView(column.name, _TYPES.get(column.type, column.type), roles.get(column.name, ""))


def _snapshot(snapshot: Snapshot) -> SnapshotView:
    return SnapshotView(snapshot.id, snapshot.committed_at, snapshot.operation, snapshot.rows, _note(snapshot))


def _note(snapshot: Snapshot) -> str:
    """What the writer did, from what it said of the snapshot."""
    said = snapshot.properties
    if FILES in said:
        return f"ingested {said[FILES]}"
    if SCORED in said:
        return f"scored {said[SCORED]}"
    return "derived" if DERIVATION in said else ""


def view_summary(platform: Platform, view: Features) -> FeatureViewSummary:
    """A feature view in one line."""
    users = [model.name for model in platform.definitions.models.values() if view.name in {v.name for v in model.views}]
    return FeatureViewSummary(
        name=view.name,
        description=view.description,
        entity=view.entity.name,
        entity_keys=view.entity.keys,
        source=view.source.name,
        every=view.every,
        features=tuple(view.features),
        models=tuple(users),
    )


def _edges(platform: Platform) -> Iterable[Edge]:
    definitions = platform.definitions
    for table in definitions.tables.values():
        for each in table.derivation.inputs if table.derivation else ():
            yield Edge(Reference("table", each.name), Reference("table", table.name))
    for view in definitions.views.values():
        yield Edge(Reference("table", view.source.name), Reference("view", view.name))
    for model in definitions.models.values():
        yield Edge(Reference("table", model.examples.name), Reference("model", model.name))
        for view in model.views:
            yield Edge(Reference("view", view.name), Reference("model", model.name))
