"""The rows behind the features of one example, found directly and one feature at a time."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any

from millpond.core.time import from_microseconds, to_microseconds
from millpond.features.assembly import Dialect, select_list
from millpond.features.plan import Feature, ViewPlan
from millpond.lake.ports import Engine

_SHOWN = 5


def evidence(
    dialect: Dialect, engine: Engine, plan: ViewPlan, example: str, at: datetime | None
) -> dict[str, tuple[int, datetime | None, list[tuple[Any, ...]]]]:
    """The rows behind the features of one view at one example, by feature.

    Args:
        dialect: Of the engine.
        engine: Runs the queries, within a session.
        plan: The view.
        example: A relation of one row with the entity's key columns.
        at: The instant, already on the view's grid; None where the view has no time.

    Returns:
        Number of rows that the value was computed from, the instant from which on the last of them to become
        visible was so, and the keys of up to five of them, the newest first.
    """
    seen = f"__seen_{secrets.token_hex(6)}"
    _keep_visible(dialect, engine, plan, example, at, seen)
    return {each.name: _of(engine, plan, seen, each, at) for each in plan.features}


def _keep_visible(
    dialect: Dialect, engine: Engine, plan: ViewPlan, example: str, at: datetime | None, name: str
) -> None:
    """Keep the entity's visible rows: us, av, kn, k0.., c0..; all instants are null where the view has no time."""
    quote = dialect.quote
    us = dialect.microseconds(f"s.{quote(plan.time)}") if plan.time else "CAST(NULL AS BIGINT)"
    known = dialect.microseconds(f"s.{quote(plan.known)}") if plan.known else us
    visible = "TRUE"
    if plan.time is not None:
        t = "CAST(NULL AS BIGINT)" if at is None else str(to_microseconds(at))
        visible = f"{us} < {t} AND {known} < {t}"
    columns = [f"s.{quote(key)} AS k{index}" for index, key in enumerate(plan.row_keys)]
    columns += [f"s.{quote(column.name)} AS {column.slot}" for column in plan.columns]
    on = " AND ".join(f"s.{quote(key)} = e.{quote(key)}" for key in plan.entity_keys)
    engine.materialize(
        name,
        f"""SELECT {select_list(f"{us} AS us, {known} AS kn, greatest({us}, {known}) AS av", columns)}
            FROM {engine.scan(plan.pinned.snapshot)} s JOIN {example} e ON {on} WHERE {visible}""",
    )


def _of(
    engine: Engine, plan: ViewPlan, seen: str, feature: Feature, at: datetime | None
) -> tuple[int, datetime | None, list[tuple[Any, ...]]]:
    keys = [f"k{index}" for index in range(len(plan.row_keys))]
    newest = select_list([f"{column} DESC" for column in ("us", "kn", *keys)])
    rows = f"SELECT us, kn, av, {select_list([*keys, '0'])} FROM {seen}"
    if feature.kind in ("latest", "first"):
        start = feature.within if feature.kind == "latest" else feature.over
        order = newest if feature.kind == "latest" else newest.replace("DESC", "ASC")
        # the latest row is judged by its age, the first one is sought in the window
        inside = f"WHERE us >= {to_microseconds(at) - start}" if start is not None and at is not None else ""
        best = (
            f"{rows} ORDER BY {order} LIMIT 1"
            if feature.kind == "latest"
            else f"{rows} {inside} ORDER BY {order} LIMIT 1"
        )
        rows = f"SELECT * FROM ({best}) {inside}"
    else:
        conditions = [f"{feature.slot} IS NOT NULL"] if feature.column else []
        if feature.over is not None and at is not None:
            conditions.append(f"us >= {to_microseconds(at) - feature.over}")
        rows += f" WHERE {' AND '.join(conditions)}" if conditions else ""
    number, since = engine.rows(f"SELECT count(*), max(av) FROM ({rows})")[0]
    shown = engine.rows(f"SELECT {select_list(keys)} FROM ({rows}) ORDER BY {newest} LIMIT {_SHOWN}") if keys else []
    return number, None if since is None else from_microseconds(since), shown
