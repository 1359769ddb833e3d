"""What the other rooms need from a lake and from an engine; and the nouns they speak in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import narwhals as nw
    import pyarrow as pa
    from pyiceberg.schema import Schema

    from millpond.lake.datafiles import Staged


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its present name.
        type: An Iceberg type: "boolean", "int", "long", "float", "double", "string", "date", "timestamptz",
            "decimal(p, s)", "binary", or a nested type as Iceberg writes it.
        required: Whether null is refused.
        field_id: What identifies the column through renames; 0 where it has none yet.
    """

    name: str
    type: str
    required: bool = False
    field_id: int = 0


@dataclass(frozen=True)
class Snapshot:
    """One committed state of a table.

    Attributes:
        table: The table's name.
        id: The snapshot's id, unique within the table.
        committed_at: When it was committed; UTC.
        rows: Number of rows in the table at this snapshot.
        columns: The table's columns at this snapshot, in order.
        operation: "append", "overwrite", "delete" or "replace".
        properties: What the writer said of it, such as the digest of an ingested file.
    """

    table: str
    id: int
    committed_at: datetime
    rows: int
    columns: tuple[Column, ...]
    operation: str = "append"
    properties: Mapping[str, str] = field(default_factory=dict)

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def __str__(self) -> str:
        return f"{self.table}@{self.id}"


class TableReader(Protocol):
    """Reads the catalog. Safe across threads and processes; sees what is committed at the time of the call."""

    def tables(self) -> list[str]:
        """Names of all tables, sorted."""
        ...

    def exists(self, table: str) -> bool: ...

    def snapshot(self, table: str, at: int | datetime | None = None) -> Snapshot:
        """The current snapshot; the one with id `at`; or the last one committed at or before the instant `at`.

        Raises:
            NotFound: There is no such table, or no such snapshot, or the table has no snapshot yet.
        """
        ...

    def history(self, table: str) -> list[Snapshot]:
        """All snapshots that have not been expired, oldest first."""
        ...


class TableWriter(Protocol):
    """Writes tables. A call commits one snapshot whole, or nothing; a killed call leaves the last snapshot current.

    `rows` is a `pyarrow.RecordBatchReader` (streamed, in constant memory), a `pyarrow.Table`, or what an engine's
    `output` gives: rows that the engine writes where it computes them. The first write makes the table. A write whose
    columns differ from the table's evolves the schema where that is safe: new columns are added as nullable, missing
    columns are null, int widens to long and float to double; anything else raises SchemaMismatch and writes nothing.
    NaN becomes null. A timestamp without a zone raises DataError.

    `properties` are kept with the snapshot. With a `token`, a write that was committed before under the same token
    does nothing and returns that snapshot, so that it may be repeated after a crash.

    Concurrent writers retry; appends never conflict, others are re-run on the newest snapshot. Conflict is raised
    after the retries are used up, and then nothing was written.
    """

    def append(
        self, table: str, rows: Rows, *, properties: Mapping[str, str] | None = None, token: str | None = None
    ) -> Snapshot: ...

    def overwrite(
        self, table: str, rows: Rows, *, properties: Mapping[str, str] | None = None, token: str | None = None
    ) -> Snapshot:
        """Replace all rows; the columns become those of `rows` (columns no longer there are dropped)."""
        ...

    def upsert(
        self,
        table: str,
        rows: Rows,
        key: Sequence[str],
        *,
        properties: Mapping[str, str] | None = None,
        token: str | None = None,
    ) -> Snapshot:
        """Replace the rows whose key is in `rows`, and add the others.

        Raises:
            DataError: A key is null, or occurs twice in `rows`.
        """
        ...

    def drop(self, table: str) -> None: ...

    def pin(self, snapshot: Snapshot, name: str) -> None:
        """Keep a snapshot from expiry under a name; idempotent."""
        ...


class Lake(TableReader, TableWriter, Protocol):
    """A whole lake."""


@runtime_checkable
class StagedRows(Protocol):
    """Rows that are written where they are computed, by many machines at once.

    Attributes:
        schema: The columns.
    """

    schema: pa.Schema

    def stage(self, names: list[str], schema: Schema, *, location: str, warehouse: Path, table: str) -> Staged:
        """Write the rows as files that belong to no snapshot yet; see `lake.datafiles.stage`."""
        ...


class Engine(Protocol):
    """Runs queries over pinned snapshots, streaming and out of core. One engine is used by one thread.

    Sessions nest no further than one level; relations made in a session are gone after it.
    """

    dialect: str

    def scan(self, snapshot: Snapshot) -> str:
        """A relation, for use after FROM, with the rows of a snapshot under its columns' present names."""
        ...

    def schema(self, relation: str) -> pa.Schema:
        """The columns of a relation, without reading a row."""
        ...

    def execute(self, sql: str) -> None: ...

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """All rows of a small result. Instants come back as aware datetimes in UTC."""
        ...

    def reader(self, sql: str) -> pa.RecordBatchReader:
        """The result as a stream of record batches; the engine may run other queries meanwhile."""
        ...

    def output(self, sql: str) -> Rows:
        """The result as rows for a `TableWriter`. They are not gathered in one place where the engine has several."""
        ...

    def register(self, name: str, rows: pa.Table) -> None:
        """Make Arrow data a relation called `name` until the engine is closed, or it is registered again."""
        ...

    def materialize(self, name: str, query: str) -> None:
        """Compute a query once and keep its rows, out of core, as a relation called `name`.

        Within a session it is dropped at the session's end. What had the name before is replaced.
        """
        ...

    def lazy(self, relation: str) -> nw.LazyFrame[Any]:
        """A relation (what may stand after FROM) as a lazy Narwhals frame."""
        ...

    def to_sql(self, frame: nw.LazyFrame[Any]) -> str:
        """A relation, for use after FROM, with the rows of a lazy frame made by `lazy` on this engine."""
        ...

    def session(self) -> AbstractContextManager[None]:
        """Within it temporary tables may be made; they are dropped at its end."""
        ...

    def close(self) -> None: ...


if TYPE_CHECKING:
    Rows = pa.RecordBatchReader | pa.Table | StagedRows
