"""The lake on Iceberg: tables as Parquet files and Iceberg metadata below one directory, with a catalog in SQLite."""

from __future__ import annotations

import os
import random
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from millpond.core.errors import Conflict, DataError, MillpondError, NotFound, Unavailable
from millpond.core.names import NAME_RULE, did_you_mean, is_name
from millpond.core.time import format_instant
from millpond.lake.catalog import NAMESPACE, file_lock, identifier, open_catalog, table_name
from millpond.lake.datafiles import Staged, stage
from millpond.lake.duckdb import DuckDBEngine
from millpond.lake.files import local_path
from millpond.lake.keys import refuse_bad_keys
from millpond.lake.ports import Snapshot
from millpond.lake.scan import ScanPlan, scan_sql
from millpond.lake.schema import column_hint, columns_of, duckdb_type, evolve
from millpond.lake.upsert import files_with_keys, rows_to_keep

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.schema import Schema
    from pyiceberg.table import Table as IcebergTable
    from pyiceberg.table import Transaction

    from millpond.lake.ports import Engine, Rows

_ATTEMPTS = 12
_PROPERTY = "millpond."
_TOKEN = "millpond-token"  # noqa: S105 - names a write, opens nothing
_TABLE_PROPERTIES = {
    "commit.retry.num-retries": "0",
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "20",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
}

Mode = Literal["append", "overwrite", "upsert"]


@dataclass(frozen=True)
class _Write:
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
        kept = {_PROPERTY + name: value for name, value in (self.properties or {}).items()}
        return kept | ({_TOKEN: self.token} if self.token is not None else {})


class IcebergLake:
    """Implements `lake.ports.Lake` in a directory.

    Safe across threads and processes. A write commits with one update of one row in SQLite, after all of its files
    are durable; whatever dies before leaves files that nothing refers to (`maintenance.collect_garbage` removes
    them). The directory may be copied or moved while nobody writes.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root).resolve()
        self.warehouse = self.root / "warehouse"
        self._opened: Any = None
        self._process = 0

    @property
    def catalog(self) -> Any:
        """The PyIceberg catalog; opened again after a fork, since SQLite connections do not survive one."""
        if self._process != os.getpid():
            self._opened, self._process = open_catalog(self.root), os.getpid()
        return self._opened

    # Reading

    def tables(self) -> list[str]:
        found = [each for namespace in self.catalog.list_namespaces() for each in self.catalog.list_tables(namespace)]
        return sorted(table_name(each) for each in found)

    def exists(self, table: str) -> bool:
        return self.load(table) is not None

    def snapshot(self, table: str, at: int | datetime | None = None) -> Snapshot:
        loaded = self._require(table)
        if at is None:
            current = loaded.metadata.current_snapshot()
            if current is None:
                raise NotFound(f'Table "{table}" has no snapshot yet', hint="write rows to it first")
            return _snapshot(table, loaded, current)
        if isinstance(at, datetime):
            return self._snapshot_at(table, loaded, at)
        found = loaded.metadata.snapshot_by_id(at)
        if found is None:
            raise NotFound(
                f'Table "{table}" has no snapshot {at}',
                hint="it never had one, or it has expired; `history` lists those that are kept",
            )
        return _snapshot(table, loaded, found)

    def _snapshot_at(self, table: str, loaded: IcebergTable, at: datetime) -> Snapshot:
        if at.tzinfo is None:
            raise DataError(f"{at} names no time zone", where=f'table "{table}"', hint="give an instant in UTC")
        milliseconds = (at.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
        kept = _ordered(loaded)
        before = [each for each in kept if each.timestamp_ms <= milliseconds]
        if not before:
            first = f"the oldest kept is of {format_instant(_committed_at(kept[0]))}" if kept else "it has none"
            raise NotFound(f'Table "{table}" has no snapshot at {format_instant(at)}', hint=first)
        return _snapshot(table, loaded, before[-1])

    def history(self, table: str) -> list[Snapshot]:
        loaded = self._require(table)
        return [_snapshot(table, loaded, each) for each in _ordered(loaded)]

    def plan(self, snapshot: Snapshot) -> ScanPlan:
        """The files of a snapshot.

        Raises:
            NotFound: The table or the snapshot is no longer there.
        """
        loaded = self._require(snapshot.table)
        found = loaded.metadata.snapshot_by_id(snapshot.id)
        if found is None:
            raise NotFound(
                f'Snapshot {snapshot.id} of table "{snapshot.table}" is no longer kept',
                hint="read the current snapshot, or pin a snapshot that has to stay",
            )
        files = tuple(str(self._path(entry.file_path)) for entry in _live_files(loaded, found))
        schema = _schema_of(loaded, found)
        return ScanPlan(files, columns_of(schema), _types(schema), snapshot.rows)

    def load(self, table: str) -> IcebergTable | None:
        """PyIceberg's table, or None."""
        from pyiceberg.exceptions import NoSuchTableError

        for _ in range(3):
            try:
                loaded: IcebergTable = self.catalog.load_table(identifier(table))
            except NoSuchTableError:
                return None
            except FileNotFoundError:  # the metadata file was superseded many times since we asked for its name
                continue
            return loaded
        raise Unavailable(f'The metadata of table "{table}" is missing', where=str(self.warehouse))

    def _require(self, table: str) -> IcebergTable:
        loaded = self.load(table)
        if loaded is None:
            raise NotFound(f'There is no table "{table}"', hint=did_you_mean(table, self.tables(), noun="tables"))
        return loaded

    def _path(self, location: str) -> Path:
        return local_path(self.warehouse, location)

    # Writing

    def append(
        self, table: str, rows: Rows, *, properties: Mapping[str, str] | None = None, token: str | None = None
    ) -> Snapshot:
        return self._write(_Write(table, "append", rows.schema, (), properties, token), rows)

    def overwrite(
        self, table: str, rows: Rows, *, properties: Mapping[str, str] | None = None, token: str | None = None
    ) -> Snapshot:
        return self._write(_Write(table, "overwrite", rows.schema, (), properties, token), rows)

    def upsert(
        self,
        table: str,
        rows: Rows,
        key: Sequence[str],
        *,
        properties: Mapping[str, str] | None = None,
        token: str | None = None,
    ) -> Snapshot:
        missing = [name for name in key if name not in rows.schema.names]
        if missing or not key:
            what = f'The rows have no key column "{missing[0]}"' if missing else "Upsert needs key columns"
            hint = column_hint(missing[0] if missing else "", rows.schema.names)
            raise DataError(what, where=f'table "{table}"', hint=hint)
        return self._write(_Write(table, "upsert", rows.schema, tuple(key), properties, token), rows)

    def _write(self, write: _Write, rows: Rows) -> Snapshot:
        import pyarrow as pa

        _refuse_name(write.table)
        if (done := self._committed(write)) is not None:
            return done
        batches: Iterable[pa.RecordBatch] = rows.to_batches() if isinstance(rows, pa.Table) else rows
        schema = self._schema_after(write, self.load(write.table))
        try:
            staged = self._stage(write.table, batches, write.rows.names, schema)
            try:
                if write.key:
                    with self._engine() as engine:
                        rows_staged = scan_sql(self._staged_plan(staged, schema))
                        refuse_bad_keys(engine, rows_staged, write.key, f'rows for table "{write.table}"')
                return self._commit(write, staged)
            except MillpondError:  # raised only where nothing was committed
                staged.discard()
                raise
        except OSError as error:
            raise Unavailable(
                f'Table "{write.table}" cannot be written: {error}', where=str(self.root), hint="nothing was committed"
            ) from error

    def _committed(self, write: _Write) -> Snapshot | None:
        """What an earlier write with the same token committed."""
        loaded = self.load(write.table) if write.token is not None else None
        if loaded is None:
            return None
        for each in _ordered(loaded):
            if each.summary is not None and each.summary.get(_TOKEN) == write.token:
                return _snapshot(write.table, loaded, each)
        expired = self._expired_tokens(loaded, str(write.token))
        return self.snapshot(write.table) if expired else None

    def _expired_tokens(self, loaded: IcebergTable, token: str) -> bool:
        from sqlalchemy import text

        with self.catalog.engine.connect() as connection:
            query = text("SELECT 1 FROM millpond_tokens WHERE table_uuid = :table AND token = :token")
            found = connection.execute(query, {"table": str(loaded.metadata.table_uuid), "token": token})
            return found.first() is not None

    def _schema_after(self, write: _Write, loaded: IcebergTable | None) -> Schema:
        if loaded is None:
            from pyiceberg.schema import assign_fresh_schema_ids

            return assign_fresh_schema_ids(evolve(None, 0, write.rows, replace=True, table=write.table))
        current, last = loaded.schema(), loaded.metadata.last_column_id
        return evolve(current, last, write.rows, replace=write.replaces, table=write.table)

    def _stage(self, table: str, batches: Iterable[pa.RecordBatch], names: list[str], schema: Schema) -> Staged:
        namespace, name = identifier(table)
        location = f"{self.warehouse.as_uri()}/{namespace}/{name}"
        return stage(batches, names, schema, location=location, warehouse=self.warehouse, table=table)

    def _staged_plan(self, staged: Staged, schema: Schema) -> ScanPlan:
        columns = tuple(column for column in columns_of(schema) if column.name in staged.columns)
        return ScanPlan(tuple(map(str, staged.paths)), columns, _types(schema), staged.rows)

    @contextmanager
    def _engine(self) -> Iterator[Engine]:
        """An engine for key work, which spills below the lake."""
        engine = DuckDBEngine(self, temp_directory=self.root / "scratch" / f"{os.getpid()}-{uuid.uuid4().hex[:8]}")
        try:
            yield engine
        finally:
            engine.close()

    def _commit(self, write: _Write, staged: Staged) -> Snapshot:
        from pyiceberg.exceptions import CommitFailedException, TableAlreadyExistsError, ValidationException
        from sqlalchemy.exc import OperationalError

        cause: Exception | None = None
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(random.uniform(0, min(0.05 * 2**attempt, 2.0)))  # noqa: S311 - spreads writers
            with file_lock(self._lock_of(write.table)):
                if (done := self._committed(write)) is not None:
                    staged.discard()
                    return done
                loaded = self.load(write.table)
                schema = self._schema_after(write, loaded)
                staged = self._restaged(write, staged, schema)
                try:
                    return self._commit_once(write, staged, loaded, schema)
                except (CommitFailedException, ValidationException, TableAlreadyExistsError, OperationalError) as error:
                    cause = error
        raise Conflict(
            f'Table "{write.table}" was changed by other writers {_ATTEMPTS} times in a row',
            hint="nothing was written; run it again when there are fewer writers",
        ) from cause

    def _lock_of(self, table: str) -> Path:
        return self.root / "locks" / f"{'.'.join(identifier(table))}.lock"

    def _restaged(self, write: _Write, staged: Staged, schema: Schema) -> Staged:
        """The staged rows under the ids that the columns have now: another writer may have added columns meanwhile."""
        if all(schema.find_field(name).field_id == id for name, id in staged.columns.items()):
            return staged
        import pyarrow.parquet as pq

        batches = (batch for path in staged.paths for batch in pq.ParquetFile(path).iter_batches())
        again = self._stage(write.table, batches, list(staged.columns), schema)
        staged.discard()
        return again

    def _commit_once(self, write: _Write, staged: Staged, loaded: IcebergTable | None, schema: Schema) -> Snapshot:
        transaction = self._begin(write.table, loaded, schema)
        removed, rewritten = self._rewrite(write, staged, loaded, schema)
        update = transaction.update_snapshot(snapshot_properties=write.summary)
        producer = update.overwrite() if removed or write.replaces else update.merge_append()
        for file in removed:
            producer.delete_data_file(file)
        for file in (*(rewritten.files if rewritten else ()), *staged.files):
            producer.append_data_file(file)
        try:
            producer.commit()
            committed = transaction.commit_transaction()
        except Exception:
            if rewritten is not None and not self._landed(write.table, producer.snapshot_id):
                rewritten.discard()
            raise
        return _snapshot(write.table, committed, committed.metadata.snapshot_by_id(producer.snapshot_id))

    def _landed(self, table: str, snapshot_id: int) -> bool:
        loaded = self.load(table)
        return loaded is not None and loaded.metadata.snapshot_by_id(snapshot_id) is not None

    def _begin(self, table: str, loaded: IcebergTable | None, schema: Schema) -> Transaction:
        from pyiceberg.table import Transaction
        from pyiceberg.table.update import AddSchemaUpdate, AssertCurrentSchemaId, SetCurrentSchemaUpdate

        if loaded is None:
            namespace, name = identifier(table)
            self.catalog.create_namespace_if_not_exists(namespace)
            created: Transaction = self.catalog.create_table_transaction(
                (namespace, name), schema, properties=dict(_TABLE_PROPERTIES)
            )
            return created
        transaction = Transaction(loaded)
        if schema is not loaded.schema():
            highest = max(each.schema_id for each in loaded.metadata.schemas)
            added = schema.model_copy(update={"schema_id": highest + 1})
            transaction._apply(
                (AddSchemaUpdate(schema=added), SetCurrentSchemaUpdate(schema_id=-1)),
                (AssertCurrentSchemaId(current_schema_id=loaded.metadata.current_schema_id),),
            )
        return transaction

    def _rewrite(
        self, write: _Write, staged: Staged, loaded: IcebergTable | None, schema: Schema
    ) -> tuple[list[Any], Staged | None]:
        """The files that the write removes, and, for an upsert, files with the rows of them that stay."""
        current = loaded.metadata.current_snapshot() if loaded is not None else None
        if loaded is None or current is None or write.mode == "append":
            return [], None
        live = {str(self._path(file.file_path)): file for file in _live_files(loaded, current)}
        if write.replaces:
            return list(live.values()), None
        before = loaded.schema()
        old = ScanPlan(tuple(live), columns_of(before), _types(before), 0)
        new = self._staged_plan(staged, schema)
        missing = [name for name in write.key if name not in before.column_names]
        if missing:
            raise DataError(
                f'The table has no key column "{missing[0]}"',
                where=f'table "{write.table}"',
                hint=column_hint(missing[0], tuple(column.name for column in old.columns)),
            )
        with self._engine() as engine:
            touched = files_with_keys(engine, old, new, write.key)
            if not touched:
                return [], None
            part = replace(old, files=tuple(touched))
            names = [column.name for column in old.columns]
            kept = self._stage(write.table, rows_to_keep(engine, part, new, write.key), names, schema)
        return [live[path] for path in touched], kept

    def drop(self, table: str) -> None:
        """Take a table out of the catalog; its files stay until they are collected.

        Raises:
            NotFound: There is no such table.
        """
        self._require(table)
        with file_lock(self._lock_of(table)):
            self._require(table)
            self.catalog.drop_table(identifier(table))

    def pin(self, snapshot: Snapshot, name: str) -> None:
        """Keep a snapshot from expiry under a name; idempotent.

        Raises:
            NotFound: The snapshot is no longer there.
            Conflict: The name keeps another snapshot of the table.
        """
        from pyiceberg.exceptions import CommitFailedException

        if name == NAMESPACE:
            raise DataError(f"{name!r} cannot name a pinned snapshot", hint="it means the newest one")
        cause: Exception | None = None
        for _ in range(_ATTEMPTS):
            with file_lock(self._lock_of(snapshot.table)):
                loaded = self._require(snapshot.table)
                self.snapshot(snapshot.table, snapshot.id)
                held = loaded.metadata.refs.get(name)
                if held is not None and held.snapshot_id == snapshot.id:
                    return
                if held is not None:
                    raise Conflict(
                        f'The name "{name}" already keeps snapshot {held.snapshot_id} of table "{snapshot.table}"',
                        hint="choose another name",
                    )
                try:
                    loaded.manage_snapshots().create_tag(snapshot.id, name).commit()
                except CommitFailedException as error:
                    cause = error
                else:
                    return
        raise Conflict(f'Table "{snapshot.table}" kept being changed by other writers') from cause


def _refuse_name(table: str) -> None:
    parts = table.split(".")
    if len(parts) > 2 or not all(is_name(part) for part in parts):
        raise DataError(f'"{table}" cannot name a table', hint=f"{NAME_RULE}; one dot may part it in two")


def _ordered(loaded: IcebergTable) -> list[Any]:
    return sorted(loaded.metadata.snapshots, key=lambda each: each.sequence_number or 0)


def _committed_at(snapshot: Any) -> datetime:
    return datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC)


def _schema_of(loaded: IcebergTable, snapshot: Any) -> Schema:
    return next(each for each in loaded.metadata.schemas if each.schema_id == snapshot.schema_id)


def _types(schema: Schema) -> dict[str, str]:
    return {field.name: duckdb_type(field.field_type) for field in schema.fields}


def _live_files(loaded: IcebergTable, snapshot: Any) -> list[Any]:
    from pyiceberg.manifest import ManifestContent

    files = []
    for manifest in snapshot.manifests(loaded.io):
        if manifest.content != ManifestContent.DATA:
            raise DataError(
                f'Table "{table_name(loaded.name())}" holds delete files, written by another tool',
                hint="rewrite the table with that tool (copy on write) before it is read here",
            )
        files += [entry.data_file for entry in manifest.fetch_manifest_entry(loaded.io, discard_deleted=True)]
    return files


def _snapshot(table: str, loaded: IcebergTable, snapshot: Any) -> Snapshot:
    summary = snapshot.summary
    said = dict(summary.additional_properties) if summary is not None else {}
    return Snapshot(
        table=table,
        id=snapshot.snapshot_id,
        committed_at=_committed_at(snapshot),
        rows=int(said.get("total-records", 0)),
        columns=columns_of(_schema_of(loaded, snapshot)),
        operation=summary.operation.value if summary is not None else "append",
        properties={name.removeprefix(_PROPERTY): value for name, value in said.items() if name.startswith(_PROPERTY)},
    )
