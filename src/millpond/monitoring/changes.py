"""Rows that a table showed at an instant, and does not show for the same instant now; and the reverse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from millpond.core.errors import DataError
from millpond.core.time import to_microseconds
from millpond.lake.ports import Engine, Snapshot
from millpond.lake.schema import literal, quoted

_SHOWN = 5


@dataclass(frozen=True)
class Sight:
    """What a feature sees of a table.

    Attributes:
        entity: Value of each of the entity's key columns.
        columns: The columns that the value depends on.
        row_keys: The columns that name a row; may be empty.
        time, known: Event time and known time; None for a table without time.
        at: The instant: rows with `time < at` and `known < at` are seen; None for a table without time.
        reach: Microseconds before `at` from which on rows count; None is for ever.
    """

    entity: Mapping[str, Any]
    columns: Sequence[str]
    row_keys: Sequence[str]
    time: str | None
    known: str | None
    at: datetime | None
    reach: int | None


@dataclass(frozen=True)
class Changes:
    """Number of rows, and the keys of up to five of them, the newest first."""

    rows: int
    keys: tuple[tuple[Any, ...], ...]


def rows_only_in(engine: Engine, one: Snapshot, other: Snapshot, sight: Sight) -> Changes | None:
    """The rows that are seen in `one` and not, or with other values, in `other`.

    None where one of the snapshots does not have the columns.
    """
    if not {*sight.columns, *sight.entity} <= {*one.column_names} & {*other.column_names}:
        return None
    rows = f"({_seen(engine, one, sight)} EXCEPT ALL {_seen(engine, other, sight)})"
    number: int = engine.rows(f"SELECT count(*) FROM {rows}")[0][0]
    if not number or not sight.row_keys:
        return Changes(number, ())
    newest = f"{quoted(sight.time)} DESC, " if sight.time else ""
    keys = ", ".join(quoted(key) for key in sight.row_keys)
    shown = engine.rows(f"SELECT {keys} FROM {rows} ORDER BY {newest}{keys} LIMIT {_SHOWN}")
    return Changes(number, tuple(shown))


def _seen(engine: Engine, snapshot: Snapshot, sight: Sight) -> str:
    conditions = [f"{quoted(key)} = {_literal(value)}" for key, value in sight.entity.items()]
    if sight.at is not None and sight.time is not None:
        end = to_microseconds(sight.at)
        conditions += [f"epoch_us({quoted(column)}) < {end}" for column in (sight.time, sight.known) if column]
        if sight.reach is not None:
            conditions.append(f"epoch_us({quoted(sight.time)}) >= {end - sight.reach}")
    columns = ", ".join(quoted(column) for column in sight.columns)
    return f"SELECT {columns} FROM {engine.scan(snapshot)} WHERE {' AND '.join(conditions)}"


def _literal(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, datetime):
        return f"make_timestamptz({to_microseconds(value)})"
    if isinstance(value, str):
        return literal(value)
    raise DataError(
        f"A key of type {type(value).__name__} cannot be looked for", hint="keys are text, numbers, instants"
    )
