"""One write to a table: rows are staged as files once, then committed, again if another writer was first."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from millpond.core.errors import DataError, MillpondError, Unavailable
from millpond.lake.catalog import identifier
from millpond.lake.commits import begin, commit_files, retrying
from millpond.lake.datafiles import Staged, stage
from millpond.lake.duckdb import DuckDBEngine
from millpond.lake.keys import refuse_bad_keys
from millpond.lake.metadata import PROPERTY, TOKEN, live_files, ordered, refuse_name, to_snapshot, types_of
from millpond.lake.ports import Engine, Snapshot, StagedRows
from millpond.lake.scan import ScanPlan, scan_sql
from millpond.lake.schema import column_hint, columns_of, evolve
from millpond.lake.upsert import files_with_keys, rows_to_keep

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.schema import Schema
    from pyiceberg.table import Table as IcebergTable

    from millpond.lake.iceberg import IcebergLake
    from millpond.lake.ports import Rows

Mode = Literal["append", "overwrite", "upsert"]


@dataclass(frozen=True)
class Request:
    """One write, as it was asked for."""

    table: str
    mode: Mode
    rows: pa.Schema
    key: tuple[str, ...] = ()
    properties: Mapping[str, str] | None = None
    token: str | None = None

    @property
    def replaces(self) -> bool:
        return self.mode == "overwrite"

    @property
    def summary(self) -> dict[str, str]:
        """What is kept with the snapshot."""
        kept = {PROPERTY + name: value for name, value in (self.properties or {}).items()}
        return kept | ({TOKEN: self.token} if self.token is not None else {})


def write(lake: IcebergLake, request: Request, rows: Rows) -> Snapshot:
    """Carry a write out; see `lake.ports.TableWriter`."""
    refuse_name(request.table)
    if (done := committed_before(lake, request)) is not None:
        return done
    try:
        return _TableWrite(lake, request).run(rows)
    except OSError as error:
        raise Unavailable(
            f'Table "{request.table}" cannot be written: {error}', where=str(lake.root), hint="nothing was committed"
        ) from error


def committed_before(lake: IcebergLake, request: Request) -> Snapshot | None:
    """What an earlier write with the same token committed; the current snapshot, where that one has expired."""
    loaded = lake.load(request.table) if request.token is not None else None
    if loaded is None:
        return None
    for each in ordered(loaded):
        if each.summary is not None and each.summary.get(TOKEN) == request.token:
            return to_snapshot(request.table, loaded, each)
    return lake.snapshot(request.table) if _expired(lake, loaded, str(request.token)) else None


def _expired(lake: IcebergLake, loaded: IcebergTable, token: str) -> bool:
    from sqlalchemy import text

    query = text("SELECT 1 FROM millpond_tokens WHERE table_uuid = :table AND token = :token")
    with lake.catalog.engine.connect() as connection:
        found = connection.execute(query, {"table": str(loaded.metadata.table_uuid), "token": token})
        return found.first() is not None


class _TableWrite:
    def __init__(self, lake: IcebergLake, request: Request) -> None:
        self.lake, self.request, self.table = lake, request, request.table
        self.staged: Staged
        self._opened: DuckDBEngine | None = None

    def run(self, rows: Rows) -> Snapshot:
        schema = self._schema_after(self.lake.load(self.table))
        self.staged = self._stage(rows, self.request.rows.names, schema)
        try:
            if self.request.key:
                staged = scan_sql(self._staged_plan(schema))
                refuse_bad_keys(self._engine(), staged, self.request.key, f'rows for table "{self.table}"')
            return retrying(self.lake.root, self.table, self._attempt)
        except MillpondError:  # raised only where nothing was committed
            self.staged.discard()
            raise
        finally:
            if self._opened is not None:
                self._opened.close()

    def _schema_after(self, loaded: IcebergTable | None) -> Schema:
        if loaded is None:
            from pyiceberg.schema import assign_fresh_schema_ids

            return assign_fresh_schema_ids(evolve(None, 0, self.request.rows, replace=True, table=self.table))
        current, last = loaded.schema(), loaded.metadata.last_column_id
        return evolve(current, last, self.request.rows, replace=self.request.replaces, table=self.table)

    def _stage(self, rows: Rows | Iterable[pa.RecordBatch], names: list[str], schema: Schema) -> Staged:
        import pyarrow as pa

        namespace, name = identifier(self.table)
        location, warehouse = f"{self.lake.warehouse.as_uri()}/{namespace}/{name}", self.lake.warehouse
        if isinstance(rows, StagedRows):
            return rows.stage(names, schema, location=location, warehouse=warehouse, table=self.table)
        batches = rows.to_batches() if isinstance(rows, pa.Table) else rows
        return stage(batches, names, schema, location=location, warehouse=warehouse, table=self.table)

    def _staged_plan(self, schema: Schema) -> ScanPlan:
        columns = tuple(column for column in columns_of(schema) if column.name in self.staged.columns)
        return ScanPlan(tuple(map(str, self.staged.paths)), columns, types_of(schema), self.staged.rows)

    def _engine(self) -> Engine:
        """The engine for key work, which spills below the lake; made when it is first needed."""
        if self._opened is None:
            spill = self.lake.root / "scratch" / f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
            self._opened = DuckDBEngine(self.lake, temp_directory=spill)
        return self._opened

    def _attempt(self) -> Snapshot:
        if (done := committed_before(self.lake, self.request)) is not None:
            self.staged.discard()
            return done
        loaded = self.lake.load(self.table)
        schema = self._schema_after(loaded)
        self._stage_again_under(schema)
        removed, rewritten = self._rewrite(loaded, schema)
        transaction = begin(self.lake.catalog, self.table, loaded, schema)
        try:
            after, snapshot = commit_files(
                transaction,
                added=[*(rewritten.files if rewritten else ()), *self.staged.files],
                removed=removed,
                replace=self.request.replaces,
                summary=self.request.summary,
            )
        except Exception:
            if rewritten is not None:
                self._discard_unless_committed(rewritten)
            raise
        return to_snapshot(self.table, after, snapshot)

    def _stage_again_under(self, schema: Schema) -> None:
        """Give the staged rows the ids that the columns have now: another writer may have added columns meanwhile."""
        if all(schema.find_field(name).field_id == id for name, id in self.staged.columns.items()):
            return
        import pyarrow.parquet as pq

        batches = (batch for path in self.staged.paths for batch in pq.ParquetFile(path).iter_batches())
        again = self._stage(batches, list(self.staged.columns), schema)
        self.staged.discard()
        self.staged = again

    def _rewrite(self, loaded: IcebergTable | None, schema: Schema) -> tuple[list[Any], Staged | None]:
        """The files that the write removes, and, for an upsert, files with the rows of them that stay."""
        current = loaded.metadata.current_snapshot() if loaded is not None else None
        if loaded is None or current is None or self.request.mode == "append":
            return [], None
        live = {str(self.lake.path(file.file_path)): file for file in live_files(loaded, current)}
        if self.request.replaces:
            return list(live.values()), None
        before, key = loaded.schema(), self.request.key
        old = ScanPlan(tuple(live), columns_of(before), types_of(before), 0)
        new = self._staged_plan(schema)
        for name in key:
            if name not in before.column_names:
                raise DataError(
                    f'The table has no key column "{name}"',
                    where=f'table "{self.table}"',
                    hint=column_hint(name, [column.name for column in old.columns]),
                )
        touched = files_with_keys(self._engine(), old, new, key)
        if not touched:
            return [], None
        part = replace(old, files=tuple(touched))
        names = [column.name for column in old.columns]
        kept = self._stage(rows_to_keep(self._engine(), part, new, key), names, schema)
        return [live[path] for path in touched], kept

    def _discard_unless_committed(self, rewritten: Staged) -> None:
        loaded = self.lake.load(self.table)
        current = loaded.metadata.current_snapshot() if loaded is not None else None
        held = {file.file_path for file in live_files(loaded, current)} if loaded is not None and current else set()
        if not any(file.file_path in held for file in rewritten.files):
            rewritten.discard()
