"""Receipts: the value of each feature at one instant, and the rows behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from millpond.core.errors import DataError, RequestError
from millpond.core.time import grid_floor
from millpond.features.evidence import evidence
from millpond.features.plan import plan_views
from millpond.features.point_in_time import dialect_of, join_features
from millpond.features.ports import PinnedView
from millpond.lake.ports import Engine

_EXAMPLE, _AT = "__explained_example", "__explained_at"


@dataclass(frozen=True)
class FeatureExplanation:
    """One feature's value at one instant, and where it comes from.

    Attributes:
        name: `{view}__{feature}`.
        value: As `join_features` computes it.
        visible_since: When the last of the rows behind the value became visible: from then on it could be known.
            None over no rows, and for tables without time.
        rows: Number of rows the value was computed from: one for latest and first; otherwise the visible rows in
            the window whose column is not null.
        example_rows: Keys (column -> value) of up to five of these rows, the newest first; empty where the table
            declares no key.
        table: The table they are rows of.
        snapshot_id: The snapshot they were read from.
    """

    name: str
    value: Any
    visible_since: datetime | None
    rows: int
    example_rows: tuple[Mapping[str, Any], ...]
    table: str
    snapshot_id: int


def explain(
    engine: Engine, views: Sequence[PinnedView], keys: Mapping[str, Any], at: datetime
) -> list[FeatureExplanation]:
    """Explain the features of one example, in the order of `views` and of their declarations.

    Opens a session of the engine. The values are those of `join_features` with an example at `at`.

    Args:
        engine: Runs the queries.
        views: The views, pinned.
        keys: Value of each key column of the views' entities; None is an entity without rows.
        at: The instant, time-zone aware.

    Raises:
        RequestError: A key is missing.
        DataError: `at` is naive.
        SchemaMismatch: As `join_features`.
    """
    plans = plan_views(views)
    if at.tzinfo is None:
        raise DataError(f"The instant {at} names no time zone", hint="use datetime(..., tzinfo=UTC)")
    missing = [key for plan in plans for key in plan.entity_keys if key not in keys]
    if missing:
        raise RequestError(f"The value of key {missing[0]!r} is missing", hint=f"given: {', '.join(keys) or 'none'}")
    dialect = dialect_of(engine)
    _register(engine, views, keys, at)
    with engine.session():
        names = [feature.name for plan in plans for feature in plan.features]
        relation = join_features(engine, _EXAMPLE, _AT, views)
        columns = ", ".join(dialect.quote(name) for name in names)
        values = dict(zip(names, engine.rows(f"SELECT {columns} FROM {relation}")[0], strict=True)) if names else {}
        explained = []
        for plan in plans:
            grid = plan.pinned.view.grid
            moment = None if plan.time is None else grid_floor(at, grid) if grid else at
            found = evidence(dialect, engine, plan, _EXAMPLE, moment)
            for name, (rows, since, shown) in found.items():
                example_rows = tuple(dict(zip(plan.row_keys, row, strict=True)) for row in shown)
                snapshot = plan.pinned.snapshot
                explained.append(
                    FeatureExplanation(name, values[name], since, rows, example_rows, snapshot.table, snapshot.id)
                )
        return explained


def _register(engine: Engine, views: Sequence[PinnedView], keys: Mapping[str, Any], at: datetime) -> None:
    """Make the example a relation of one row, its keys in the types of the tables' columns."""
    import pyarrow as pa

    names = dict.fromkeys(key for pinned in views for key in pinned.view.entity.keys)
    columns = {name: pa.array([keys[name]]) for name in names}
    kinds = {column.name: column.type for pinned in views for column in pinned.snapshot.columns}
    simple = {"string": pa.string(), "long": pa.int64(), "int": pa.int64(), "boolean": pa.bool_(), "date": pa.date32()}
    for name, column in columns.items():
        if pa.types.is_null(column.type) and kinds.get(name) in simple:
            columns[name] = column.cast(simple[kinds[name]])
    columns[_AT] = pa.array([at], pa.timestamp("us", tz="UTC"))
    engine.register(_EXAMPLE, pa.table(columns))
