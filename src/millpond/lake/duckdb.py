"""The embedded engine: DuckDB in this process, over the files of pinned snapshots."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millpond.core.errors import DataError
from millpond.lake.duckdb_errors import translate, translated
from millpond.lake.frames import native_query
from millpond.lake.ports import Snapshot
from millpond.lake.scan import Scannable, scan_sql
from millpond.lake.schema import excerpt, literal, quoted
from millpond.lake.small_rows import python_rows

if TYPE_CHECKING:
    import narwhals as nw
    import pyarrow as pa

_TEMPORARY = re.compile(r"^\s*CREATE\s+(OR\s+REPLACE\s+)?TEMP(?:ORARY)?\s+", re.IGNORECASE)
_WIDE_INTEGERS = ("HUGEINT", "UHUGEINT")
_BATCH_ROWS = 65_536


class DuckDBEngine:
    """Implements `lake.ports.Engine`. Used by one thread; the streams it gives may be read meanwhile.

    All relations live in one private in-memory database, which spills to `temp_directory` over `memory_limit`.
    Integers of 128 bits (DuckDB sums integers into them) come back as int64; a value that does not fit is refused.

    Args:
        lake: Where snapshots are read from.
        threads: Threads of a query; by default one a core.
        memory_limit: Such as "4GB"; by default four fifths of the machine's memory.
        temp_directory: Where queries spill; by default a directory in the system's temporary one.
    """

    dialect = "duckdb"

    def __init__(
        self,
        lake: Scannable,
        *,
        threads: int | None = None,
        memory_limit: str | None = None,
        temp_directory: Path | None = None,
    ) -> None:
        import duckdb

        spill = temp_directory or Path(tempfile.gettempdir()) / f"millpond-engine-{os.getpid()}"
        self._lake = lake
        self._connection: Any = duckdb.connect(":memory:")
        self._connection.execute("SET GLOBAL TimeZone = 'UTC'")
        self._connection.execute(f"SET GLOBAL temp_directory = {literal(str(spill))}")
        if threads is not None:
            self._connection.execute(f"SET GLOBAL threads = {int(threads)}")
        if memory_limit is not None:
            self._connection.execute(f"SET GLOBAL memory_limit = {literal(memory_limit)}")
        self._scans: dict[tuple[str, int], str] = {}
        self._registered: set[str] = set()
        self._sources: set[str] = set()

    def scan(self, snapshot: Snapshot) -> str:
        """A view with the rows of a snapshot, under the names that its columns had then.

        Raises:
            NotFound: The snapshot is no longer kept.
        """
        known = self._scans.get((snapshot.table, snapshot.id))
        if known is not None:
            return known
        view = f"{snapshot.table}@{snapshot.id}"
        self.execute(f"CREATE OR REPLACE VIEW {quoted(view)} AS SELECT * FROM {scan_sql(self._lake.plan(snapshot))}")
        self._sources.add(view)
        self._scans[snapshot.table, snapshot.id] = quoted(view)
        return quoted(view)

    def schema(self, relation: str) -> pa.Schema:
        with translated(relation):
            found: pa.Schema = _narrowed(self._connection, f"SELECT * FROM {relation} LIMIT 0").to_arrow_table().schema
        return found

    def execute(self, sql: str) -> None:
        """Run a statement. "CREATE TEMP" makes what streams can see as well, and the session still drops it."""
        with translated(sql):
            self._connection.execute(_TEMPORARY.sub(_shared, sql))

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with translated(sql):
            return python_rows(_narrowed(self._connection, sql).to_arrow_table())

    def reader(self, sql: str) -> pa.RecordBatchReader:
        import pyarrow as pa

        with translated(sql):
            cursor = self._connection.cursor()
            source = _narrowed(cursor, sql).to_arrow_reader(_BATCH_ROWS)

        def batches() -> Iterator[pa.RecordBatch]:
            try:
                with translated(sql):
                    yield from source
            except (OSError, pa.ArrowException) as error:  # how Arrow hands on what DuckDB raised in mid-stream
                raise translate(error, excerpt(sql)) from error
            finally:
                cursor.close()

        return pa.RecordBatchReader.from_batches(source.schema, batches())

    def output(self, sql: str) -> pa.RecordBatchReader:
        return self.reader(sql)

    def register(self, name: str, rows: pa.Table) -> None:
        with translated(name):
            self._connection.register("__arriving", rows)
            try:
                self._connection.execute(f"CREATE OR REPLACE TABLE {quoted(name)} AS SELECT * FROM __arriving")
            finally:
                self._connection.unregister("__arriving")
        self._registered.add(name)

    def materialize(self, name: str, query: str) -> None:
        self.execute(f"CREATE OR REPLACE TEMP TABLE {quoted(name)} AS {query}")

    def lazy(self, relation: str) -> nw.LazyFrame[Any]:
        import narwhals as nw

        with translated(relation):
            frame: nw.LazyFrame[Any] = nw.from_native(self._connection.sql(f"SELECT * FROM {relation}")).lazy()
        return frame

    def to_sql(self, frame: nw.LazyFrame[Any]) -> str:
        """A relation, for use after FROM, with the rows of a lazy frame made by `lazy` on this engine.

        Raises:
            DataError: The frame is not one of this engine.
        """
        native = native_query(frame, "sql_query")
        with translated("a lazy frame"):
            return f"({native.sql_query()}\n)"

    @contextmanager
    def session(self) -> Iterator[None]:
        before = self._relations()
        try:
            yield
        finally:
            for kind, name in sorted(self._relations() - before, key=lambda each: each[0] != "VIEW"):
                if name not in self._registered | self._sources:
                    self._connection.execute(f"DROP {kind} IF EXISTS {quoted(name)}")

    def _relations(self) -> set[tuple[str, str]]:
        found = self._connection.sql(
            "SELECT 'TABLE', table_name FROM duckdb_tables() WHERE NOT internal"
            " UNION ALL SELECT 'VIEW', view_name FROM duckdb_views() WHERE NOT internal"
        ).fetchall()
        return set(found)

    def close(self) -> None:
        self._connection.close()


def _shared(match: re.Match[str]) -> str:
    return f"CREATE {match.group(1) or ''}"


def _narrowed(connection: Any, sql: str) -> Any:
    """The query's relation, with 128-bit integers as BIGINT."""
    relation = connection.sql(sql)
    if relation is None:
        raise DataError("The statement gives no rows", where=sql[:200], hint="use execute for it")
    wide = [name for name, type in zip(relation.columns, relation.types, strict=True) if str(type) in _WIDE_INTEGERS]
    if not wide:
        return relation
    casts = ", ".join(f"CAST({quoted(name)} AS BIGINT) AS {quoted(name)}" for name in wide)
    return connection.sql(f"SELECT * REPLACE ({casts}) FROM (\n{sql.rstrip().rstrip(';')}\n)")
