"""From the columns of a source to the columns of a table: one SQL expression each, and a refusal where none fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from millpond.core.errors import DataError, SchemaMismatch
from millpond.definitions.tables import Table
from millpond.lake.infer import cast_sql, infer, is_kind
from millpond.lake.ports import Engine
from millpond.lake.schema import column_hint, literal, quoted
from millpond.lake.sources import Source, line_of

_NAIVE_TYPES = ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "DATETIME")
_ZONED_TYPE = "TIMESTAMP WITH TIME ZONE"
_TEMPORAL = ("DATE", "TIME", *_NAIVE_TYPES, _ZONED_TYPE)
_NATIVE = {
    "bool": "BOOLEAN",
    "int": "BIGINT",
    "float": "DOUBLE",
    "string": "VARCHAR",
    "date": "DATE",
    "instant": "TIMESTAMPTZ",
    "decimal": "DECIMAL(38, 9)",
    "binary": "BLOB",
}
_EXISTING = {
    "boolean": "BOOLEAN",
    "int": "INTEGER",
    "long": "BIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "date": "DATE",
    "timestamptz": "TIMESTAMPTZ",
    "binary": "BLOB",
}
_KIND_OF_EXISTING = {
    "boolean": "bool",
    "int": "int",
    "long": "int",
    "float": "float",
    "double": "float",
    "date": "date",
    "timestamptz": "instant",
}


@dataclass(frozen=True)
class SourceColumn:
    """How one column is taken.

    Attributes:
        name: Its name.
        sql: Its value, as an expression over the source's relation.
        bad: A condition that holds for values that could not be taken; empty where all could.
        kind: What it was declared as, for messages.
    """

    name: str
    sql: str
    bad: str = ""
    kind: str = ""


@dataclass(frozen=True)
class _Reading:
    """What is read, by what, for what."""

    engine: Engine
    relation: str
    sources: Sequence[Source]
    table: Table


def source_relation(engine: Engine, sources: Sequence[Source], table: Table) -> str:
    """One relation with the rows of all sources; columns are matched by name, one that a file lacks is null."""
    nulls = table.nulls
    relations = []
    for source in sources:
        relation = source.relation(nulls)
        if source.kind == "json":
            described = _describe(engine, relation)
            _refuse_no_objects(source, described)
            # Text that looks like a time stays text here, so that its offset is judged by our rule, not by a guess.
            columns = ", ".join(
                f"{literal(name)}: {literal('VARCHAR' if type in (*_TEMPORAL, 'UUID', 'JSON') else type)}"
                for name, type in described.items()
            )
            relation = source.relation(nulls, f"{{{columns}}}")
        relations.append(f"SELECT * FROM {relation}")
    return f"({' UNION ALL BY NAME '.join(relations)})"


def _refuse_no_objects(source: Source, described: Mapping[str, str]) -> None:
    if list(described) == ["json"] and described["json"] not in ("VARCHAR", "BIGINT"):
        raise DataError(
            "The lines are not JSON objects", where=source.label, hint='such as {"origin": "JFK", "temp": 39}'
        )


def source_columns(
    engine: Engine, relation: str, sources: Sequence[Source], table: Table, existing: Mapping[str, str]
) -> list[SourceColumn]:
    """How each column of the source is taken.

    Args:
        existing: Iceberg types of the columns that the table has and will keep.

    Raises:
        DataError: A declared column is missing, a value is not of its declared type, or a timestamp has no zone.
    """
    described = _describe(engine, relation)
    _refuse_missing(table, sources, described)
    reading = _Reading(engine, relation, sources, table)
    text = _text_columns(sources, described)
    kinds = infer(engine, relation, [name for name in text if name not in table.types])
    columns = []
    for name, type in described.items():
        declared = table.types.get(name)
        if name in kinds:
            columns.append(_inferred(reading, name, kinds[name], existing.get(name)))
        elif declared is not None:
            columns.append(_declared(reading, name, type, declared))
        else:
            columns.append(_native(sources, table, name, type))
    _refuse_bad(engine, relation, sources, columns)
    return columns


def _describe(engine: Engine, relation: str) -> dict[str, str]:
    return {str(row[0]): str(row[1]) for row in engine.rows(f"DESCRIBE SELECT * FROM {relation}")}


def _text_columns(sources: Sequence[Source], described: Mapping[str, str]) -> list[str]:
    texts = [name for name, type in described.items() if type == "VARCHAR"]
    return texts if sources[0].kind in ("csv", "json") else []


def _refuse_missing(table: Table, sources: Sequence[Source], described: Mapping[str, str]) -> None:
    named: list[tuple[str, str | None]] = [("key", name) for name in table.keys]
    named += [("time", table.time), ("known", table.known)]
    named += [("types", name) for name in table.types]
    for role, name in named:
        if name is not None and name not in described:
            raise DataError(
                f'The source has no column "{name}", which {table.subject} names as its {role}',
                where=", ".join(source.label for source in sources[:3]),
                hint=column_hint(name, list(described)),
            )


def _inferred(reading: _Reading, name: str, kind: str, existing: str | None) -> SourceColumn:
    column, table, sources = quoted(name), reading.table, reading.sources
    if existing == "string" or (sources[0].kind == "json" and kind in ("bool", "int", "float")):
        return SourceColumn(name, column)  # text in the table already, or text in quotes
    if kind == "null" and existing in _EXISTING:
        return SourceColumn(name, f"CAST(NULL AS {_EXISTING[existing]})")
    if kind == "string" and existing in _KIND_OF_EXISTING:
        _refuse_text(reading, name, existing)
    if kind in ("naive", "stamp") and table.zone is None:
        raise _naive(table, name, _first_bad(reading.engine, sources, table.nulls, name, is_kind(column, "naive")))
    return SourceColumn(name, cast_sql(column, kind, table.zone))


def _refuse_text(reading: _Reading, name: str, existing: str) -> None:
    column, table = quoted(name), reading.table
    value = cast_sql(column, _KIND_OF_EXISTING[existing], table.zone)
    bad = f"({column} IS NOT NULL AND {value} IS NULL)"
    where, found = _first_bad(reading.engine, reading.sources, table.nulls, name, bad)
    if found:
        raise SchemaMismatch(
            f'Column "{name}" is {existing} in the table, and "{found}" is not',
            where=where,
            hint=f'mend the value, declare it null with nulls=, or, if "{name}" is to become text,'
            f' declare types={{"{name}": "string"}} and overwrite the table',
        )


def _naive(table: Table, name: str, found: tuple[str, str]) -> DataError:
    where, value = found
    shown = f', such as "{value}"' if value else ""
    return DataError(
        f'Column "{name}" holds timestamps without a time zone{shown}',
        where=where,
        hint=f'declare the zone of the source: mp.Table("{table.name}", zone="America/New_York", ...); or keep the'
        f' column as text: types={{"{name}": "string"}}',
    )


def _declared(reading: _Reading, name: str, type: str, kind: str) -> SourceColumn:
    column, table = quoted(name), reading.table
    if type == "VARCHAR":
        if kind == "decimal":
            fraction = f"SELECT max(length(split_part(trim({column}), '.', 2))) FROM {reading.relation}"
            digits = reading.engine.rows(fraction)[0][0]
            value = f"TRY_CAST({column} AS DECIMAL(38, {min(int(digits or 0), 18)}))"
        else:
            value = cast_sql(column, kind, table.zone)
        return SourceColumn(name, value, f"({column} IS NOT NULL AND {value} IS NULL)", kind)
    if kind == "instant" and type in (*_NAIVE_TYPES, "DATE"):
        if table.zone is None:
            raise _naive(table, name, ("the source", ""))
        return SourceColumn(name, f"timezone({literal(table.zone)}, CAST({column} AS TIMESTAMP))")
    value = f"TRY_CAST({column} AS {_NATIVE[kind]})"
    lost = f" OR {value} <> {column}" if kind == "int" else ""
    return SourceColumn(name, value, f"({column} IS NOT NULL AND ({value} IS NULL{lost}))", kind)


def _native(sources: Sequence[Source], table: Table, name: str, type: str) -> SourceColumn:
    column = quoted(name)
    if type in _NAIVE_TYPES:
        if table.zone is None:
            raise _naive(table, name, (", ".join(source.label for source in sources[:3]), ""))
        return SourceColumn(name, f"timezone({literal(table.zone)}, CAST({column} AS TIMESTAMP))")
    if type in ("UUID", "JSON") or type.startswith("ENUM"):
        return SourceColumn(name, f"CAST({column} AS VARCHAR)")
    return SourceColumn(name, column)


def _refuse_bad(engine: Engine, relation: str, sources: Sequence[Source], columns: Sequence[SourceColumn]) -> None:
    """Refuse values that are not of their declared type; counts all, and shows the first with its line."""
    judged = [column for column in columns if column.bad]
    if not judged:
        return
    counts = ", ".join(f"count(*) FILTER (WHERE {column.bad})" for column in judged)
    for column, bad in zip(judged, engine.rows(f"SELECT {counts} FROM {relation}")[0], strict=True):
        if bad:
            where, value = _first_bad(engine, sources, (), column.name, column.bad)
            raise DataError(
                f'Column "{column.name}" is declared {column.kind}, and {bad:,} values are not, such as "{value}"',
                where=where,
                hint="mend them, declare them null with nulls=, or declare another type",
            )


def _first_bad(
    engine: Engine, sources: Sequence[Source], nulls: Sequence[str], name: str, condition: str
) -> tuple[str, str]:
    """Where the first value is for which `condition` holds, and the value."""
    for source in sources:
        if source.kind == "csv" and name not in source.header:
            continue
        found = engine.rows(
            f"SELECT __row, CAST({quoted(name)} AS VARCHAR) FROM (SELECT row_number() OVER () AS __row, {quoted(name)}"
            f" FROM {source.relation(nulls)}) WHERE {condition} ORDER BY __row LIMIT 1"
        )
        if found:
            record, value = found[0]
            line = f"line {line_of(source, record)}" if source.kind == "csv" else f"row {record}"
            return f'{source.label}, {line}, column "{name}"', str(value)
    return f'column "{name}"', ""
