"""What an online store is filled from: rows for live views, values at a grid point for the others."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from millpond.core.time import from_microseconds, to_microseconds
from millpond.features.online.ports import OnlineView
from millpond.features.plan import ViewPlan
from millpond.features.point_in_time import join_features
from millpond.features.ports import AT
from millpond.lake.ports import Engine, Snapshot
from millpond.lake.sql_text import SqlText, sql_text

if TYPE_CHECKING:
    import pyarrow as pa

#: How far back before the newest event live views are exact, so that events and requests may come late.
KEPT = timedelta(days=30)


def live_since(engine: Engine, plan: ViewPlan, now: datetime) -> datetime | None:
    """From which instant on a live view's values are kept exact; None is since ever.

    `KEPT` before now, or before the newest event where that is older.
    """
    if plan.time is None or OnlineView.of(plan).reach is None:
        return None
    time = sql_text(engine.dialect).name(plan.time)
    newest: datetime | None = engine.rows(f"SELECT max({time}) FROM {engine.scan(plan.pinned.snapshot)}")[0][0]
    return (min(newest, now) if newest is not None else now) - KEPT


def live_rows(engine: Engine, plan: ViewPlan, since: datetime | None) -> pa.RecordBatchReader:
    """The rows that matter to a live view from `since` on: its source columns, by entity, then time.

    Rows without an entity, or without an instant that says when they are visible, are never seen and left out.
    """
    quote = sql_text(engine.dialect).name
    view = OnlineView.of(plan)
    columns = ", ".join(quote(name) for name in plan.pinned.view.source_columns)
    needed = [*plan.entity_keys, *(name for name in (plan.time, plan.known) if name)]
    wheres = [f"{quote(name)} IS NOT NULL" for name in needed]
    if since is not None and plan.time is not None and view.reach is not None:
        oldest = since - timedelta(microseconds=view.reach)
        wheres.append(f"{quote(plan.time)} >= {sql_text(engine.dialect).value(oldest)}")
    order = ", ".join(quote(name) for name in [*plan.entity_keys, *([plan.time] if plan.time else [])])
    scan = engine.scan(plan.pinned.snapshot)
    return engine.reader(f"SELECT {columns} FROM {scan} WHERE {' AND '.join(wheres)} ORDER BY {order}")


def grid_values(
    engine: Engine, plan: ViewPlan, grid: datetime, changed: tuple[Snapshot, datetime] | None = None
) -> pa.RecordBatchReader:
    """The values of a view at a grid point: the entity's keys and one column a feature. Call it within a session.

    Args:
        engine: Runs the queries.
        plan: A view with `every`.
        grid: The grid point.
        changed: The snapshot and the grid point of the values that are there: only entities whose values may differ
            from those are computed. None computes all.
    """
    text = sql_text(engine.dialect)
    keys = text.names(plan.entity_keys)
    present = " AND ".join(f"{text.name(name)} IS NOT NULL" for name in plan.entity_keys)
    source = engine.scan(plan.pinned.snapshot)
    if changed is None:
        entities = f"SELECT DISTINCT {keys} FROM {source} WHERE {present}"
    else:
        parts = _changed(engine, plan, grid, *changed)
        entities = " UNION ".join(f"SELECT {keys} FROM {part} AS part WHERE {present}" for part in parts)
    engine.materialize("__entities", f"SELECT *, {text.value(grid)} AS {AT} FROM ({entities}) AS e")
    joined = join_features(engine, "__entities", AT, [plan.pinned])
    names = text.names([*plan.entity_keys, *(each.name for each in plan.features)])
    return engine.reader(f"SELECT {names} FROM {joined} AS joined")


def _changed(engine: Engine, plan: ViewPlan, grid: datetime, before: Snapshot, last: datetime) -> list[str]:
    """Relations with the entities whose values at `grid` may differ from those at `last` over `before`."""
    text = sql_text(engine.dialect)
    quote = text.name
    columns = ", ".join(quote(name) for name in plan.pinned.view.source_columns)
    now, then = engine.scan(plan.pinned.snapshot), engine.scan(before)
    parts = []
    if before.id != plan.pinned.snapshot.id:
        parts += [
            f"(SELECT {columns} FROM {one} EXCEPT ALL SELECT {columns} FROM {other})"
            for one, other in ((now, then), (then, now))
        ]
    times = [name for name in (plan.time, plan.known) if name]
    spans = [(quote(name), 0) for name in times]
    assert plan.time is not None
    lengths = {each.over for each in plan.features} | {each.within for each in plan.features}
    spans += [(quote(plan.time), length) for length in sorted(each for each in lengths if each)]
    conditions = [
        f"({name} >= {_back(text, last, length)} AND {name} < {_back(text, grid, length)})" for name, length in spans
    ]
    parts.append(f"(SELECT {columns} FROM {now} WHERE {' OR '.join(conditions)})")
    return parts


def _back(text: SqlText, moment: datetime, microseconds: int) -> str:
    return text.value(from_microseconds(to_microseconds(moment) - microseconds))
