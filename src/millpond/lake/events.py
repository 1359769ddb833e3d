"""Rows that arrive one by one: checked against their table when they come, and written into it in batches."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from millpond.core.errors import DataError, SchemaMismatch
from millpond.core.time import format_instant
from millpond.core.values import read_value
from millpond.definitions.tables import Table
from millpond.lake.clean import clean_batch
from millpond.lake.lineage import BASE, LANDED, base_of
from millpond.lake.ports import Column, Engine, Lake, Snapshot
from millpond.lake.schema import column_hint
from millpond.lake.sql_text import sql_text

if TYPE_CHECKING:
    import pyarrow as pa

#: Clocks may differ by this much before an event is said to come from the future.
CLOCK_TOLERANCE = timedelta(minutes=1)

#: Properties of a snapshot that landing hands on: what was derived or ingested before stays up to date.
_KEPT = ("derivation", "inputs", "source", "mode", "files")

_KINDS = {
    "boolean": "bool",
    "int": "int64",
    "long": "int64",
    "float": "float64",
    "double": "float64",
    "string": "string",
    "date": "date",
    "timestamptz": "instant",
    "binary": "binary",
}


def pushed_table(table: str) -> str:
    """The lake table with the newest pushed row of every key of `table`; what overwrites the table adds them again."""
    return f"events.{table}"


@dataclass(frozen=True)
class Limits:
    """Between which instants an event's time may lie.

    Attributes:
        received_at: Now.
        oldest: The oldest event time that is taken; None is any.
    """

    received_at: datetime
    oldest: datetime | None = None


def conform_events(
    table: Table, columns: Sequence[Column], rows: Sequence[Mapping[str, Any]] | pa.Table, limits: Limits
) -> pa.Table:
    """Events as rows of their table: its columns, in its types.

    A column that an event does not name is null. Where the table declares `known` and an event does not say it, the
    event became known when it was received.

    Args:
        table: The declaration: key, time and known.
        columns: The columns that the table has in the lake.
        rows: The events, as records of plain values (instants as ISO 8601 text) or as Arrow data.
        limits: Which times are taken.

    Raises:
        DataError: No key is declared, or a key or the time is null, or lies in the future or too far in the past.
        SchemaMismatch: A column is unknown, or a value does not fit its column.
    """
    if not table.keys:
        raise DataError(
            f"{table.subject} has no key, so that an event sent twice could not be told from two events",
            where=str(table.declared_at),
            hint="declare key= on the table",
        )
    found = _from_records(table, columns, rows) if isinstance(rows, Sequence) else _from_arrow(table, columns, rows)
    if table.known is not None and table.known != table.time:
        found = _fill_known(found, table.known, limits.received_at)
    for name in table.keys:
        _refuse_null(table, found, name, "key")
    for role, instant in (("time", table.time), ("known", table.known)):
        if instant is not None and instant in found.column_names:
            _refuse_null(table, found, instant, role)
            _refuse_future(table, found, instant, limits)
    if table.time is not None and limits.oldest is not None:
        _refuse_late(table, found, table.time, limits.oldest)
    return found


def empty_events(table: Table, rows: Sequence[Mapping[str, Any]] | pa.Table) -> pa.Table:
    """An empty table with the columns that the first events of a table have; declared types come first.

    Raises:
        DataError: The types cannot be read off the events.
    """
    import pyarrow as pa

    if not isinstance(rows, Sequence):
        return rows.slice(0, 0)
    names = list(dict.fromkeys(name for row in rows for name in row))
    instants = {name for name in (table.time, table.known) if name}
    declared = {name: "timestamptz" if kind == "instant" else _DECLARED[kind] for name, kind in table.types.items()}
    fields = []
    for name in dict.fromkeys([*names, *table.keys, *sorted(instants)]):
        kind = "timestamptz" if name in instants else declared.get(name)
        values = [row.get(name) for row in rows]
        fields.append(pa.field(name, arrow_type(kind) if kind else _inferred(table, name, values)))
    return pa.schema(fields).empty_table()


def land(lake: Lake, table: Table, rows: pa.Table, position: str) -> Snapshot:
    """Write pushed rows into their table, the newest of each key; repeating it changes nothing.

    The table stays up to date where it was: what it was derived or ingested from is handed on. A table that is
    overwritten as a whole keeps the pushed rows beside it as well; see `with_pushed`.

    Args:
        lake: Where the table is.
        table: Its declaration.
        rows: Events in order, as `conform_events` gave them.
        position: Which events these are, for the snapshot's properties.
    """
    newest = newest_of_key(rows, table.keys)
    if table.derivation is not None or table.write_mode == "overwrite":
        lake.upsert(pushed_table(table.name), newest, table.keys)
    before = lake.snapshot(table.name)
    kept = {name: before.properties[name] for name in _KEPT if name in before.properties}
    said = {**kept, LANDED: position, BASE: base_of(before.id, before.properties)}
    return lake.upsert(table.name, newest, table.keys, properties=said)


def with_pushed(engine: Engine, rows: str, columns: Sequence[str], pushed: Snapshot | None, key: Sequence[str]) -> str:
    """A query of `rows`, and of those pushed rows whose key is not among them.

    Args:
        engine: Reads the snapshot.
        rows: A relation, for use after FROM.
        columns: Its columns.
        pushed: The snapshot of `pushed_table`; None where nothing was ever pushed.
        key: The table's key columns.
    """
    text = sql_text(engine.dialect)
    names = text.names(columns)
    if pushed is None:
        return f"SELECT {names} FROM {rows}"
    there = set(pushed.column_names)
    taken = ", ".join(f"e.{text.name(each)}" if each in there else f"NULL AS {text.name(each)}" for each in columns)
    same = " AND ".join(f"d.{text.name(each)} = e.{text.name(each)}" for each in key)
    return (
        f"SELECT {names} FROM {rows} UNION ALL SELECT {taken} FROM {engine.scan(pushed)} AS e "
        f"WHERE NOT EXISTS (SELECT 1 FROM {rows} AS d WHERE {same})"
    )


def pushed_rows(lake: Lake, table: Table) -> Snapshot | None:
    """The newest pushed rows of a table that is overwritten as a whole; None where there are none."""
    name = pushed_table(table.name)
    return lake.snapshot(name) if lake.exists(name) else None


def newest_of_key(rows: pa.Table, key: Sequence[str]) -> pa.Table:
    """The last row of each key, in order."""
    import pyarrow as pa

    order = pa.array(range(rows.num_rows), pa.int64())
    numbered = rows.select(list(key)).append_column("__order", order)
    last = numbered.group_by(list(key)).aggregate([("__order", "max")])
    return rows.take(last["__order_max"].combine_chunks().sort())


def arrow_type(type_: str) -> Any:
    """The Arrow type of an Iceberg type that events can carry.

    Raises:
        DataError: Events carry no such values.
    """
    import pyarrow as pa

    simple: dict[str, Any] = {
        "boolean": pa.bool_(),
        "int": pa.int32(),
        "long": pa.int64(),
        "float": pa.float32(),
        "double": pa.float64(),
        "string": pa.string(),
        "date": pa.date32(),
        "timestamptz": pa.timestamp("us", "UTC"),
        "binary": pa.binary(),
    }
    if found := re.fullmatch(r"decimal\((\d+), ?(\d+)\)", type_):
        return pa.decimal128(int(found[1]), int(found[2]))
    if type_ not in simple:
        raise DataError(f"A column of type {type_} cannot be pushed", hint="leave it out of the event: it is null then")
    return simple[type_]


_DECLARED = {
    "bool": "boolean",
    "int": "long",
    "float": "double",
    "string": "string",
    "date": "date",
    "decimal": "decimal(38, 9)",
    "binary": "binary",
}


def _inferred(table: Table, name: str, values: Sequence[Any]) -> Any:
    import pyarrow as pa

    try:
        found = pa.array(values).type
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(
            f'Column "{name}" holds values of several types',
            where=table.subject,
            hint=f'declare types={{"{name}": ...}}',
        ) from error
    if pa.types.is_null(found):
        raise DataError(
            f'Column "{name}" is null in all of the first events, so its type is not known',
            where=table.subject,
            hint=f'declare types={{"{name}": ...}} on the table',
        )
    return found


def _from_records(table: Table, columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    import pyarrow as pa

    known = {column.name: column for column in columns}
    for index, row in enumerate(rows):
        for name in row:
            _refuse_column(table, known.get(name), name, known, f"event {index}")
    taken = [column for column in columns if _is_pushed(column)]
    arrays = []
    for column in taken:
        values = [_value(column, row.get(column.name), index) for index, row in enumerate(rows)]
        try:
            arrays.append(pa.array(values, arrow_type(column.type)))
        except (pa.ArrowInvalid, OverflowError) as error:
            raise SchemaMismatch(
                f'A value of "{column.name}" does not fit {column.type}: {error}', where=table.subject
            ) from error
    return pa.Table.from_arrays(arrays, names=[column.name for column in taken])


def _from_arrow(table: Table, columns: Sequence[Column], rows: pa.Table) -> pa.Table:
    import pyarrow as pa

    known = {column.name: column for column in columns}
    for name in rows.column_names:
        _refuse_column(table, known.get(name), name, known, "the events")
    taken = [column for column in columns if _is_pushed(column)]
    given = [column for column in taken if column.name in rows.column_names]
    schema = pa.schema([pa.field(column.name, arrow_type(column.type)) for column in given])
    ordered = rows.select(schema.names).combine_chunks()
    found = pa.Table.from_batches([clean_batch(each, schema, table.name) for each in ordered.to_batches()], schema)
    for position, column in enumerate(taken):
        if column.name not in schema.names:
            nulls: Any = pa.array([None] * found.num_rows, arrow_type(column.type))
            found = found.add_column(position, column.name, nulls)
    return found


def _is_pushed(column: Column) -> bool:
    """Whether events can carry the column; in others it is null."""
    return column.type in _KINDS or column.type.startswith("decimal")


def _refuse_column(table: Table, column: Column | None, name: str, known: Mapping[str, Column], where: str) -> None:
    if column is None:
        raise SchemaMismatch(f'{table.subject} has no column "{name}"', where=where, hint=column_hint(name, [*known]))
    arrow_type(column.type)


def _value(column: Column, value: Any, index: int) -> Any:
    kind = "decimal" if column.type.startswith("decimal") else _KINDS[column.type]
    try:
        return read_value(value, kind)
    except ValueError as error:
        raise SchemaMismatch(
            f'{value!r} is no value for "{column.name}": {error}',
            where=f"event {index}",
            hint=f"the column is {column.type}",
        ) from error


def _fill_known(rows: pa.Table, known: str, received_at: datetime) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    position = rows.column_names.index(known)
    filled: Any = pc.fill_null(rows[known], pa.scalar(received_at, pa.timestamp("us", "UTC")))
    return rows.set_column(position, known, filled)


def _refuse_null(table: Table, rows: pa.Table, name: str, role: str) -> None:
    import pyarrow.compute as pc

    if rows[name].null_count:
        first = pc.index(pc.is_null(rows[name]), True).as_py()
        raise DataError(
            f'"{name}", the {role} of {table.subject}, is missing', where=f"event {first}", hint="every event needs it"
        )


def _refuse_future(table: Table, rows: pa.Table, name: str, limits: Limits) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    latest = limits.received_at + CLOCK_TOLERANCE
    ahead = pc.greater(rows[name], pa.scalar(latest, pa.timestamp("us", "UTC")))
    if pc.any(ahead).as_py():
        first = pc.index(ahead, True).as_py()
        raise DataError(
            f'"{name}" is {format_instant(rows[name][first].as_py())}, which lies in the future of {table.subject}',
            where=f"event {first}",
            hint=f"it is {format_instant(limits.received_at)} here; check the sender's clock and time zone",
        )


def _refuse_late(table: Table, rows: pa.Table, name: str, oldest: datetime) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    late = pc.less(rows[name], pa.scalar(oldest, pa.timestamp("us", "UTC")))
    if pc.any(late).as_py():
        first = pc.index(late, True).as_py()
        raise DataError(
            f'"{name}" is {format_instant(rows[name][first].as_py())}, later than {table.subject} allows: events from '
            f"{format_instant(oldest)} on are taken",
            where=f"event {first}",
            hint=f"raise lateness= (now {table.lateness}), or bring it in with `millpond ingest {table.name} FILE`",
        )
