"""What an online store is filled from: rows for live views, values at a grid point for the others."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from millpond.core.time import format_instant, from_microseconds, to_microseconds
from millpond.features.online.ports import OnlineView
from millpond.features.plan import ViewPlan, plan_view
from millpond.features.point_in_time import dialect_of, join_features
from millpond.features.ports import AT, PinnedView
from millpond.lake.ports import Engine, Snapshot

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
    time = dialect_of(engine).quote(plan.time)
    newest: datetime | None = engine.rows(f"SELECT max({time}) FROM {engine.scan(plan.pinned.snapshot)}")[0][0]
    return (min(newest, now) if newest is not None else now) - KEPT


def live_rows(engine: Engine, plan: ViewPlan, since: datetime | None) -> pa.RecordBatchReader:
    """The rows that matter to a live view from `since` on: its source columns, by entity, then time.

    Rows without an entity, or without an instant that says when they are visible, are never seen and left out.
    """
    quote = dialect_of(engine).quote
    view = OnlineView.of(plan)
    columns = ", ".join(quote(name) for name in plan.pinned.view.source_columns)
    needed = [*plan.entity_keys, *(name for name in (plan.time, plan.known) if name)]
    wheres = [f"{quote(name)} IS NOT NULL" for name in needed]
    if since is not None and plan.time is not None and view.reach is not None:
        oldest = format_instant(since - timedelta(microseconds=view.reach))
        wheres.append(f"{quote(plan.time)} >= {_instant(oldest)}")
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
    dialect = dialect_of(engine)
    keys = ", ".join(dialect.quote(name) for name in plan.entity_keys)
    present = " AND ".join(f"{dialect.quote(name)} IS NOT NULL" for name in plan.entity_keys)
    source = engine.scan(plan.pinned.snapshot)
    if changed is None:
        entities = f"SELECT DISTINCT {keys} FROM {source} WHERE {present}"
    else:
        parts = _changed(engine, plan, grid, *changed)
        entities = " UNION ".join(f"SELECT {keys} FROM {part} AS part WHERE {present}" for part in parts)
    dialect.keep(engine, "__entities", f"SELECT *, {_instant(format_instant(grid))} AS {AT} FROM ({entities}) AS e")
    joined = join_features(engine, "__entities", AT, [plan.pinned])
    names = ", ".join(dialect.quote(name) for name in [*plan.entity_keys, *(each.name for each in plan.features)])
    return engine.reader(f"SELECT {names} FROM {joined} AS joined")


def _changed(engine: Engine, plan: ViewPlan, grid: datetime, before: Snapshot, last: datetime) -> list[str]:
    """Relations with the entities whose values at `grid` may differ from those at `last` over `before`."""
    quote = dialect_of(engine).quote
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
    conditions = [f"({name} >= {_back(last, length)} AND {name} < {_back(grid, length)})" for name, length in spans]
    parts.append(f"(SELECT {columns} FROM {now} WHERE {' OR '.join(conditions)})")
    return parts


def _back(moment: datetime, microseconds: int) -> str:
    return _instant(format_instant(from_microseconds(to_microseconds(moment) - microseconds)))


def _instant(text: str) -> str:
    return f"TIMESTAMP WITH TIME ZONE '{text}'"


def plan_online(views: Sequence[PinnedView]) -> list[tuple[ViewPlan, OnlineView]]:
    """The views, resolved, and as an online store knows them."""
    plans = [plan_view(each) for each in views]
    return [(plan, OnlineView.of(plan)) for plan in plans]
