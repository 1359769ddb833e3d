"""Types: from Arrow to Iceberg to DuckDB, and which changes of a table's columns are safe."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING

from millpond.core.errors import DataError, SchemaMismatch
from millpond.core.names import closest
from millpond.lake.ports import Column

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.schema import Schema
    from pyiceberg.types import IcebergType

_ZONE_HINT = 'give the instants an offset, or declare the zone of the table\'s sources, such as zone="America/New_York"'

_DUCKDB_TYPES = {
    "boolean": "BOOLEAN",
    "int": "INTEGER",
    "long": "BIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "string": "VARCHAR",
    "date": "DATE",
    "time": "TIME",
    "timestamptz": "TIMESTAMPTZ",
    "binary": "BLOB",
    "uuid": "UUID",
}


def iceberg_type(arrow: pa.DataType, column: str, table: str, ids: Iterator[int]) -> IcebergType:
    """The Iceberg type that holds every value of an Arrow type; nested fields take their ids from `ids`.

    Raises:
        DataError: There is none, or it is a timestamp that names no zone.
    """
    import pyarrow as pa
    from pyiceberg import types as t

    is_ = pa.types
    if is_.is_dictionary(arrow):
        return iceberg_type(arrow.value_type, column, table, ids)
    if is_.is_timestamp(arrow) and arrow.tz is None:
        raise DataError(
            f'Column "{column}" holds timestamps without a time zone', where=f'table "{table}"', hint=_ZONE_HINT
        )
    if is_.is_decimal(arrow) and arrow.precision <= 38 and arrow.scale >= 0:
        return t.DecimalType(arrow.precision, arrow.scale)
    if is_.is_struct(arrow):
        fields = [arrow.field(position) for position in range(arrow.num_fields)]
        own = [next(ids) for _ in fields]
        return t.StructType(
            *(
                t.NestedField(id, each.name, iceberg_type(each.type, f"{column}.{each.name}", table, ids))
                for id, each in zip(own, fields, strict=True)
            )
        )
    if is_.is_list(arrow) or is_.is_large_list(arrow) or is_.is_fixed_size_list(arrow):
        own = [next(ids)]
        return t.ListType(own[0], iceberg_type(arrow.value_type, f"{column}[]", table, ids), element_required=False)
    if is_.is_map(arrow):
        own = [next(ids), next(ids)]
        key = iceberg_type(arrow.key_type, f"{column}.key", table, ids)
        value = iceberg_type(arrow.item_type, f"{column}.value", table, ids)
        return t.MapType(own[0], key, own[1], value, value_required=False)
    simple = _simple_type(arrow)
    if simple is None:
        raise DataError(
            f'Column "{column}" has the type {arrow}, which a table cannot hold',
            where=f'table "{table}"',
            hint="cast it to a boolean, a number, a string, a date, an instant, a decimal or bytes",
        )
    return simple


def _simple_type(arrow: pa.DataType) -> IcebergType | None:
    import pyarrow as pa
    from pyiceberg import types as t

    is_ = pa.types
    if is_.is_boolean(arrow):
        return t.BooleanType()
    if is_.is_integer(arrow):
        fits_int = arrow.bit_width < 32 or arrow == pa.int32()
        return t.IntegerType() if fits_int else t.LongType()
    if is_.is_floating(arrow):
        return t.DoubleType() if arrow == pa.float64() else t.FloatType()
    if is_.is_string(arrow) or is_.is_large_string(arrow) or is_.is_string_view(arrow) or is_.is_null(arrow):
        return t.StringType()
    if is_.is_date(arrow):
        return t.DateType()
    if is_.is_time(arrow):
        return t.TimeType()
    if is_.is_timestamp(arrow):
        return t.TimestamptzType()
    if (
        is_.is_binary(arrow)
        or is_.is_large_binary(arrow)
        or is_.is_fixed_size_binary(arrow)
        or is_.is_binary_view(arrow)
    ):
        return t.BinaryType()
    return None


def evolve(current: Schema | None, last_id: int, rows: pa.Schema, *, replace: bool, table: str) -> Schema:
    """The schema of a table after rows with the Arrow schema `rows` are written.

    Args:
        current: The table's schema, or None for a table that is not there yet.
        last_id: The greatest field id that the table has ever used.
        replace: Whether the columns become those of `rows` (a type that cannot be widened gets a new field), or
            columns are only added and widened.
        table: Its name, for errors.

    Returns:
        `current` itself where nothing changes.

    Raises:
        SchemaMismatch: The type of a column can neither hold the rows' type nor be widened to it.
        DataError: No columns, columns that differ only in case, or a type that a table cannot hold.
    """
    import pyarrow as pa
    from pyiceberg.schema import Schema
    from pyiceberg.types import NestedField

    _refuse_names(rows.names, table)
    ids = count(last_id + 1)
    old = {} if current is None else {field.name: field for field in current.fields}
    _refuse_case(rows.names, [] if replace else list(old), table)
    written: dict[str, NestedField] = {}
    for field in rows:
        had = old.get(field.name)
        if had is not None and pa.types.is_null(field.type):
            written[field.name] = had
            continue
        type = iceberg_type(field.type, field.name, table, count(1))
        if had is not None and _same(had.field_type, type):
            written[field.name] = had
        elif had is not None and _widens(had.field_type, type):
            written[field.name] = NestedField(had.field_id, field.name, type)
        elif had is not None and not replace and _holds(had.field_type, type):
            written[field.name] = had
        elif had is not None and not replace:
            raise _mismatch(field.name, had.field_type, type, table)
        else:
            id = next(ids)
            written[field.name] = NestedField(id, field.name, iceberg_type(field.type, field.name, table, ids))
    fields = list(written.values())
    if not replace:
        kept = [written.get(name, field) for name, field in old.items()]
        fields = kept + [field for name, field in written.items() if name not in old]
    if current is not None and tuple(fields) == current.fields:
        return current
    return Schema(*fields, schema_id=0 if current is None else current.schema_id + 1)


def _refuse_names(names: list[str], table: str) -> None:
    where = f'table "{table}"'
    if not names:
        raise DataError("The rows have no columns", where=where, hint="a table has at least one column")
    if "" in names:
        raise DataError(
            f"Column {names.index('') + 1} has no name", where=where, hint="name every column of the source"
        )


def _refuse_case(names: list[str], existing: list[str], table: str) -> None:
    seen = {name.lower(): name for name in existing}
    own: set[str] = set()
    for name in names:
        other = seen.setdefault(name.lower(), name)
        if other != name or name in own:
            what = (
                f'Two columns are called "{name}"'
                if other == name
                else f'Columns "{other}" and "{name}" differ only in case'
            )
            raise SchemaMismatch(
                what, where=f'table "{table}"', hint="rename one of them; case does not tell columns apart"
            )
        own.add(name)


def _mismatch(column: str, had: IcebergType, type: IcebergType, table: str) -> SchemaMismatch:
    return SchemaMismatch(
        f'Column "{column}" is {had} in the table, and {type} in the rows',
        where=f'table "{table}"',
        hint=f'cast the rows to {had}, or overwrite the table if "{column}" is to become {type}',
    )


def _same(one: IcebergType, other: IcebergType) -> bool:
    """Whether two types are equal, whatever the ids of their nested fields."""
    from pyiceberg import types as t

    if isinstance(one, t.StructType) and isinstance(other, t.StructType):
        return len(one.fields) == len(other.fields) and all(
            a.name == b.name and _same(a.field_type, b.field_type)
            for a, b in zip(one.fields, other.fields, strict=True)
        )
    if isinstance(one, t.ListType) and isinstance(other, t.ListType):
        return _same(one.element_type, other.element_type)
    if isinstance(one, t.MapType) and isinstance(other, t.MapType):
        return _same(one.key_type, other.key_type) and _same(one.value_type, other.value_type)
    return bool(one == other)


def _widens(had: IcebergType, to: IcebergType) -> bool:
    """Whether Iceberg lets a column of type `had` become `to` without its files being written again."""
    from pyiceberg import types as t

    if isinstance(had, t.DecimalType) and isinstance(to, t.DecimalType):
        return bool(had.scale == to.scale and had.precision < to.precision)
    return (str(had), str(to)) in {("int", "long"), ("float", "double")}


def _holds(had: IcebergType, given: IcebergType) -> bool:
    """Whether a column of type `had` takes values of type `given`; each value is checked to survive unchanged."""
    numbers = ("int", "long", "float", "double")
    return _widens(given, had) or (str(given) in numbers[:2] and str(had) in numbers[2:])


def columns_of(schema: Schema) -> tuple[Column, ...]:
    """The columns of an Iceberg schema, in order."""
    return tuple(
        Column(field.name, str(field.field_type), required=field.required, field_id=field.field_id)
        for field in schema.fields
    )


def duckdb_type(type: IcebergType) -> str:
    """The DuckDB type that reads an Iceberg type."""
    from pyiceberg import types as t

    if isinstance(type, t.DecimalType):
        return f"DECIMAL({type.precision}, {type.scale})"
    if isinstance(type, t.FixedType):
        return "BLOB"
    if isinstance(type, t.StructType):
        fields = (f"{quoted(field.name)} {duckdb_type(field.field_type)}" for field in type.fields)
        return f"STRUCT({', '.join(fields)})"
    if isinstance(type, t.ListType):
        return f"{duckdb_type(type.element_type)}[]"
    if isinstance(type, t.MapType):
        return f"MAP({duckdb_type(type.key_type)}, {duckdb_type(type.value_type)})"
    return _DUCKDB_TYPES[str(type)]


def quoted(name: str) -> str:
    """An identifier for SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A string for SQL."""
    return "'" + text.replace("'", "''") + "'"


def column_hint(name: str, known: Iterator[str] | tuple[str, ...] | list[str]) -> str:
    """A hint for a column that is not there."""
    known = list(known)
    match = closest(name, known)
    shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    return f"did you mean {match!r}? columns: {shown}" if match else f"columns: {shown}"


def excerpt(sql: str) -> str:
    """The beginning of a query, on one line."""
    flat = " ".join(sql.split())
    return flat if len(flat) <= 200 else f"{flat[:197]}..."
