"""What key and time columns must satisfy before rows are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from millpond.core.errors import DataError
from millpond.core.time import format_instant
from millpond.definitions.tables import Table
from millpond.lake.ports import Engine, Snapshot
from millpond.lake.sql_text import sql_text

if TYPE_CHECKING:
    import pyarrow as pa

_EXAMPLES = 5


def key_text(key: Sequence[str], values: Sequence[Any]) -> str:
    """A key as a person reads it: "origin=JFK, hour=5"."""
    return ", ".join(f"{name}={value_text(value)}" for name, value in zip(key, values, strict=True))


def value_text(value: Any) -> str:
    """A value as a person reads it; instants in UTC."""
    if value is None:
        return "null"
    return format_instant(value) if hasattr(value, "tzinfo") and hasattr(value, "hour") else str(value)


def refuse_no_instant(engine: Engine, rows: str, table: Table, where: str) -> None:
    """Refuse `time` and `known` columns that hold something other than instants."""
    schema = engine.schema(rows)
    types = dict(zip(schema.names, schema.types, strict=True))
    for role, name in (("time", table.time), ("known", table.known)):
        if name is not None and name in types and getattr(types[name], "tz", None) is None:
            raise DataError(
                f'Column "{name}", the {role} of {table.subject}, holds {_plain(types[name])}, not instants',
                where=where,
                hint=f'an instant is written like "2013-12-01T08:00:00Z"; for local times declare zone= and'
                f' types={{"{name}": "instant"}}',
            )


def _plain(type: pa.DataType) -> str:
    import pyarrow as pa

    is_ = pa.types
    words: list[tuple[Callable[[Any], bool], str]] = [
        (is_.is_string, "text"),
        (is_.is_integer, "integers"),
        (is_.is_floating, "numbers"),
        (is_.is_date, "dates"),
        (is_.is_boolean, "true or false"),
        (is_.is_timestamp, "times without a zone"),
    ]
    return next((word for test, word in words if test(type)), str(type))


def refuse_bad_keys(engine: Engine, rows: str, key: Sequence[str], where: str) -> None:
    """Refuse rows of a relation whose key is null, or occurs twice.

    Raises:
        DataError: Says how many, and up to five of the keys.
    """
    if not key:
        return
    text = sql_text(engine.dialect)
    counts = ", ".join(f"count(*) FILTER (WHERE {text.name(name)} IS NULL)" for name in key)
    nulls = engine.rows(f"SELECT {counts}, count(*) FROM {rows}")[0]
    for name, missing in zip(key, nulls, strict=False):
        if missing:
            raise DataError(
                f'The key column "{name}" is null in {missing:,} of {nulls[-1]:,} rows',
                where=where,
                hint="every row needs a key; drop those rows, or choose other key columns",
            )
    names = text.names(key)
    twice = engine.rows(
        f"SELECT {names}, count(*), count(*) OVER () FROM {rows}"
        f" GROUP BY {names} HAVING count(*) > 1 ORDER BY {names} LIMIT {_EXAMPLES}"
    )
    if twice:
        shown = "; ".join(f"{key_text(key, row[: len(key)])} ({row[-2]} times)" for row in twice)
        raise DataError(
            f"{twice[0][-1]:,} keys ({', '.join(key)}) occur more than once: {shown}",
            where=where,
            hint="keep one row a key, or add columns to the key",
        )


def refuse_known_keys(engine: Engine, rows: str, snapshot: Snapshot, key: Sequence[str], where: str) -> None:
    """Refuse rows whose key is in a snapshot already.

    Raises:
        DataError: Says how many, and up to five of the keys.
    """
    if not key or not set(key) <= set(snapshot.column_names):
        return
    names = sql_text(engine.dialect).names(key)
    known = engine.rows(
        f"SELECT {names}, count(*) OVER () FROM {rows} AS new SEMI JOIN {engine.scan(snapshot)} AS old USING ({names})"
        f" ORDER BY {names} LIMIT {_EXAMPLES}"
    )
    if known:
        shown = "; ".join(key_text(key, row[: len(key)]) for row in known)
        raise DataError(
            f'{known[0][-1]:,} keys ({", ".join(key)}) are in table "{snapshot.table}" already: {shown}',
            where=where,
            hint="upsert them to replace their rows, or append only new rows",
        )
