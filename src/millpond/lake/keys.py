"""What key and time columns must satisfy before rows are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from millpond.core.errors import DataError
from millpond.core.time import format_instant
from millpond.definitions.tables import Table
from millpond.lake.ports import Engine, Snapshot
from millpond.lake.schema import quoted

_EXAMPLES = 5
_INSTANT = "TIMESTAMP WITH TIME ZONE"


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
    types = {str(row[0]): str(row[1]) for row in engine.rows(f"DESCRIBE SELECT * FROM {rows}")}
    for role, name in (("time", table.time), ("known", table.known)):
        if name is not None and name in types and types[name] != _INSTANT:
            raise DataError(
                f'Column "{name}", the {role} of {table.subject}, holds {_plain(types[name])}, not instants',
                where=where,
                hint=f'an instant is written like "2013-12-01T08:00:00Z"; for local times declare zone= and'
                f' types={{"{name}": "instant"}}',
            )


def _plain(type: str) -> str:
    words = {"VARCHAR": "text", "BIGINT": "integers", "DOUBLE": "numbers", "DATE": "dates", "BOOLEAN": "true or false"}
    return words.get(type, type.lower())


def refuse_bad_keys(engine: Engine, rows: str, key: Sequence[str], where: str) -> None:
    """Refuse rows of a relation whose key is null, or occurs twice.

    Raises:
        DataError: Says how many, and up to five of the keys.
    """
    if not key:
        return
    nulls = engine.rows(
        f"SELECT {', '.join(f'count(*) FILTER (WHERE {quoted(name)} IS NULL)' for name in key)}, count(*) FROM {rows}"
    )[0]
    for name, missing in zip(key, nulls, strict=False):
        if missing:
            raise DataError(
                f'The key column "{name}" is null in {missing:,} of {nulls[-1]:,} rows',
                where=where,
                hint="every row needs a key; drop those rows, or choose other key columns",
            )
    names = ", ".join(quoted(name) for name in key)
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
    names = ", ".join(quoted(name) for name in key)
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
