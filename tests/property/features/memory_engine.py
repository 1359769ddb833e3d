"""The smallest engine that satisfies `millpond.lake.ports.Engine`: DuckDB over tables given as Arrow data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import duckdb
import narwhals as nw
import pyarrow as pa

from millpond.lake.ports import Column, Snapshot

_TYPES = {
    pa.bool_(): "boolean",
    pa.int32(): "int",
    pa.int64(): "long",
    pa.float32(): "float",
    pa.float64(): "double",
    pa.string(): "string",
    pa.date32(): "date",
    pa.timestamp("us", tz="UTC"): "timestamptz",
    pa.binary(): "binary",
}


def columns_of(schema: pa.Schema) -> tuple[Column, ...]:
    return tuple(
        Column(field.name, f"decimal({field.type.precision}, {field.type.scale})")
        if pa.types.is_decimal(field.type)
        else Column(field.name, _TYPES[field.type])
        for field in schema
    )


class MemoryEngine:
    dialect = "duckdb"

    def __init__(self) -> None:
        self.connection = duckdb.connect()
        self.execute("SET TimeZone = 'UTC'")
        self.execute("SET threads = 2")
        self._last = 0

    def add(self, name: str, rows: pa.Table) -> Snapshot:
        """Make a table of one snapshot."""
        self._last += 1
        self.connection.register("__given", rows)
        self.execute(f'CREATE TABLE "{name}@{self._last}" AS SELECT * FROM __given')
        self.connection.unregister("__given")
        return Snapshot(name, self._last, datetime.now(UTC), rows.num_rows, columns_of(rows.schema))

    def drop(self, snapshot: Snapshot) -> None:
        self.execute(f"DROP TABLE {self.scan(snapshot)}")

    def scan(self, snapshot: Snapshot) -> str:
        return f'"{snapshot.table}@{snapshot.id}"'

    def execute(self, sql: str) -> None:
        self.connection.execute(sql).fetchall()

    def table(self, sql: str) -> pa.Table:
        return self.connection.sql(sql).to_arrow_table()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        columns = self.table(sql).columns
        return list(zip(*(column.to_pylist() for column in columns), strict=True))

    def reader(self, sql: str) -> pa.RecordBatchReader:
        return self.table(sql).to_reader(max_chunksize=1000)

    def output(self, sql: str) -> pa.RecordBatchReader:
        return self.reader(sql)

    def register(self, name: str, rows: pa.Table) -> None:
        self.connection.register(name, rows)

    def materialize(self, name: str, query: str) -> None:
        self.execute(f'CREATE OR REPLACE TEMP TABLE "{name}" AS {query}')

    def lazy(self, relation: str) -> nw.LazyFrame[Any]:
        return nw.from_native(self.connection.sql(f"SELECT * FROM {relation}")).lazy()

    def to_sql(self, frame: nw.LazyFrame[Any]) -> str:
        return f"({frame.to_native().sql_query()})"

    @contextmanager
    def session(self) -> Iterator[None]:
        try:
            yield
        finally:
            for (name,) in self.rows("SELECT table_name FROM duckdb_tables() WHERE temporary"):
                self.execute(f'DROP TABLE temp."{name}"')

    def close(self) -> None:
        self.connection.close()
