"""The engine for many machines: Spark, over the files of pinned snapshots."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millpond.lake.frames import native_query
from millpond.lake.ports import Snapshot
from millpond.lake.scan import Scannable
from millpond.lake.small_rows import python_rows
from millpond.lake.spark_errors import translated
from millpond.lake.spark_session import close_session, default_scratch, open_session
from millpond.lake.spark_types import arrow_schema, spark_schema, without_ids
from millpond.lake.spark_write import SparkRows
from millpond.lake.sql_text import sql_text

if TYPE_CHECKING:
    import narwhals as nw
    import pyarrow as pa

_TEMPORARY_TABLE = re.compile(
    r"^\s*CREATE\s+(?:OR\s+REPLACE\s+)?TEMP(?:ORARY)?\s+TABLE\s+(`(?:[^`]|``)+`|\w+)\s+AS\s+(.+)$",
    re.IGNORECASE | re.DOTALL,
)
_BATCH_ROWS = 65_536

quoted = sql_text("spark").name


class SparkEngine:
    """Implements `lake.ports.Engine`. Used by one thread; the streams it gives may be read meanwhile.

    What a query gives as a stream, and what is kept for a session, Spark's executors write as Parquet files below
    `temp_directory`; nothing but small results (`rows`) is held by the driver. Executors, a server of Spark Connect
    and this process have to see the lake and `temp_directory` under the same paths.

    The session's time zone is UTC, and SQL is ANSI: overflows and casts that fail are errors. Spark is started, or
    reached, by the first query; that query may raise MissingExtra (PySpark is not installed), SettingsError (Java is
    missing, or this process runs another Spark) or Unavailable (the master or the server does not answer).

    Args:
        lake: Where snapshots are read from.
        master: Spark's master: "local[*]", "spark://host:7077", "k8s://https://host:6443".
        remote: URL of a Spark Connect server, such as "sc://127.0.0.1:15002"; used instead of `master`.
        threads: Threads of a local master; by default one a core.
        conf: More of Spark's settings.
        temp_directory: Where queries put what they keep; by default a directory in the system's temporary one.
    """

    dialect = "spark"

    def __init__(
        self,
        lake: Scannable,
        *,
        master: str = "local[*]",
        remote: str | None = None,
        threads: int | None = None,
        conf: Mapping[str, str] | None = None,
        temp_directory: Path | None = None,
    ) -> None:
        root = (temp_directory or default_scratch()).absolute()
        self._lake = lake
        self._remote = remote is not None
        self._open = partial(
            open_session, master=master, remote=remote, threads=threads, conf=dict(conf or {}), scratch=root
        )
        self._opened: Any = None
        self._scratch = root / f"spark-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._scans: dict[tuple[str, int], str] = {}
        self._kept: set[str] = set()
        self._folders: dict[str, list[Path]] = {}
        self._frames = 0

    @property
    def _spark(self) -> Any:
        if self._opened is None:
            self._opened = self._open()
        return self._opened

    def scan(self, snapshot: Snapshot) -> str:
        """A view with the rows of a snapshot, under the names that its columns had then.

        Raises:
            NotFound: The snapshot is no longer kept.
        """
        known = self._scans.get((snapshot.table, snapshot.id))
        if known is not None:
            return known
        spark, plan = self._spark, self._lake.plan(snapshot)
        schema = spark_schema(plan)
        view = f"{snapshot.table}@{snapshot.id}"
        with translated(view):
            if plan.files:
                frame = spark.read.schema(schema).parquet(*map(_literal_path, plan.files))
                frame = frame.toDF(*(column.name for column in plan.columns)) if plan.renamed else frame
            else:
                frame = spark.createDataFrame([], schema)
            frame.createOrReplaceTempView(quoted(view))
        self._kept.add(view.lower())
        self._scans[snapshot.table, snapshot.id] = quoted(view)
        return quoted(view)

    def schema(self, relation: str) -> pa.Schema:
        with translated(relation):
            return arrow_schema(self._spark.sql(f"SELECT * FROM {relation}").schema)

    def execute(self, sql: str) -> None:
        """Run a statement. "CREATE TEMP TABLE name AS query" keeps the query's rows, as `materialize` does."""
        table = _TEMPORARY_TABLE.match(sql)
        if table is not None:
            self.materialize(_unquoted(table.group(1)), table.group(2))
            return
        with translated(sql):
            self._spark.sql(sql)

    def materialize(self, name: str, query: str) -> None:
        with translated(query):
            frame = _storable(self._spark.sql(_bare(query)))
            folder = self._write(frame)
            self._folders.setdefault(name.lower(), []).append(folder)
            kept = self._spark.read.schema(without_ids(frame.schema)).parquet(_literal_path(str(folder)))
            kept.createOrReplaceTempView(quoted(name))

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with translated(sql):
            return python_rows(self._spark.sql(_bare(sql)).toArrow())

    def reader(self, sql: str) -> pa.RecordBatchReader:
        """The result as a stream; the query has run when this returns, and its rows lie in temporary files."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        with translated(sql):
            frame = self._spark.sql(_bare(sql))
            schema = arrow_schema(frame.schema)
            folder = self._write(_storable(frame))

        def batches() -> Iterator[pa.RecordBatch]:
            try:
                for path in sorted(folder.glob("part-*")):
                    with pq.ParquetFile(path) as file:
                        for batch in file.iter_batches(_BATCH_ROWS):
                            yield batch.cast(schema)
            finally:
                shutil.rmtree(folder, ignore_errors=True)

        return pa.RecordBatchReader.from_batches(schema, batches())

    def output(self, sql: str) -> SparkRows:
        """The result as rows that the executors write themselves; the query runs when they are staged."""
        with translated(sql):
            frame = self._spark.sql(_bare(sql))
            return SparkRows(_storable(frame), arrow_schema(frame.schema), sql)

    def register(self, name: str, rows: pa.Table) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        folder = self._folder()
        folder.mkdir(parents=True)
        untyped = [field.name for field in rows.schema if pa.types.is_null(field.type)]
        pq.write_table(_microseconds(rows.drop_columns(untyped)), folder / "part-0.parquet", store_schema=False)
        columns = [
            f"NULL AS {quoted(field.name)}" if field.name in untyped else quoted(field.name) for field in rows.schema
        ]
        with translated(name):
            read = self._spark.read.parquet(_literal_path(str(folder))).selectExpr(*columns)
            read.createOrReplaceTempView(quoted(name))
        for before in self._folders.pop(name.lower(), ()):
            shutil.rmtree(before, ignore_errors=True)
        self._folders[name.lower()] = [folder]
        self._kept.add(name.lower())

    def lazy(self, relation: str) -> nw.LazyFrame[Any]:
        import narwhals as nw

        with translated(relation):
            frame: nw.LazyFrame[Any] = nw.from_native(self._spark.sql(f"SELECT * FROM {relation}")).lazy()
        return frame

    def to_sql(self, frame: nw.LazyFrame[Any]) -> str:
        """A relation, for use after FROM, with the rows of a lazy frame made by `lazy` on this engine.

        Raises:
            DataError: The frame is not one of this engine.
        """
        native = native_query(frame, "createOrReplaceTempView")
        self._frames += 1
        view = f"__frame_{self._frames}"
        with translated("a lazy frame"):
            native.createOrReplaceTempView(view)
        return quoted(view)

    @contextmanager
    def session(self) -> Iterator[None]:
        before = self._views()
        try:
            yield
        finally:
            for name in self._views() - before - self._kept:
                self._spark.sql(f"DROP VIEW IF EXISTS {quoted(name)}")
                for folder in self._folders.pop(name, ()):
                    shutil.rmtree(folder, ignore_errors=True)

    def _views(self) -> set[str]:
        with translated("SHOW VIEWS"):
            return {str(row["viewName"]).lower() for row in self._spark.sql("SHOW VIEWS").collect()}

    def _folder(self) -> Path:
        return self._scratch / uuid.uuid4().hex

    def _write(self, frame: Any) -> Path:
        """Have the executors write a frame's rows; the folder they are in."""
        folder = self._folder()
        frame.write.option("compression", "zstd").parquet(f"file:{folder}")
        return folder

    def close(self) -> None:
        """Let go of everything. The Java process stays up for the next engine, and ends with this process."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        if self._opened is not None:
            opened, self._opened = self._opened, None
            close_session(opened, remote=self._remote)


def _unquoted(name: str) -> str:
    return name[1:-1].replace("``", "`") if name.startswith("`") else name


def _bare(sql: str) -> str:
    return sql.rstrip().rstrip(";")


def _literal_path(path: str) -> str:
    """A path for Spark, in which no character stands for others."""
    return "file:" + re.sub(r"([\[\]{}*?\\])", r"\\\1", path)


def _storable(frame: Any) -> Any:
    """The frame with columns that hold nothing but null as text: a file has no type for them."""
    untyped = [field.name for field in frame.schema.fields if field.dataType.typeName() == "void"]
    if not untyped:
        return frame
    columns = [
        f"CAST({quoted(field.name)} AS STRING) AS {quoted(field.name)}" if field.name in untyped else quoted(field.name)
        for field in frame.schema.fields
    ]
    return frame.selectExpr(*columns)


def _microseconds(rows: pa.Table) -> pa.Table:
    """The rows with instants in microseconds, cut towards the past: Spark has no finer ones."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for position, field in enumerate(rows.schema):
        if pa.types.is_timestamp(field.type) and field.type.unit != "us":
            column: Any = rows.column(position)
            if field.type.unit == "ns":
                column = pc.floor_temporal(column, unit="microsecond")
            column = column.cast(pa.timestamp("us", field.type.tz))
            rows = rows.set_column(position, field.name, column)
    return rows
