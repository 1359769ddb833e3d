"""The lake on Iceberg: tables as Parquet files and Iceberg metadata below one directory, with a catalog in SQLite."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millpond.core.errors import DataError, NotFound, Unavailable
from millpond.core.names import did_you_mean
from millpond.core.time import format_instant
from millpond.lake import maintenance
from millpond.lake.catalog import identifier, open_catalog, table_name
from millpond.lake.commits import retrying
from millpond.lake.damage import whole_catalog, whole_metadata
from millpond.lake.files import local_path
from millpond.lake.metadata import committed_at, live_files, ordered, renamed, schema_of, to_snapshot, types_of
from millpond.lake.ports import Snapshot
from millpond.lake.scan import ScanPlan
from millpond.lake.schema import column_hint, columns_of
from millpond.lake.writes import Request, write

if TYPE_CHECKING:
    from pyiceberg.table import Table as IcebergTable

    from millpond.lake.ports import Rows

_MAIN = "main"
_DAY = timedelta(days=1)


class IcebergLake:
    """Implements `lake.ports.Lake` in a directory.

    Safe across threads and processes. A write commits with one update of one row in SQLite, after all of its files
    are durable; whatever dies before leaves files that nothing refers to (`maintenance.collect_garbage` removes
    them). The directory may be copied or moved while nobody writes.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root).resolve()
        self.warehouse = self.root / "warehouse"
        self.database = self.root / "catalog.db"
        self._opened: Any = None
        self._process = 0

    @property
    def catalog(self) -> Any:
        """The PyIceberg catalog; opened again after a fork, since SQLite connections do not survive one."""
        if self._process != os.getpid():
            with whole_catalog(self.database):
                self._opened, self._process = open_catalog(self.root), os.getpid()
        return self._opened

    # Reading

    def tables(self) -> list[str]:
        with whole_catalog(self.database):
            namespaces = self.catalog.list_namespaces()
            found = [each for namespace in namespaces for each in self.catalog.list_tables(namespace)]
        return sorted(table_name(each) for each in found)

    def exists(self, table: str) -> bool:
        return self.load(table) is not None

    def snapshot(self, table: str, at: int | datetime | None = None) -> Snapshot:
        loaded = self.require(table)
        if at is None:
            current = loaded.metadata.current_snapshot()
            if current is None:
                raise NotFound(f'Table "{table}" has no snapshot yet', hint="write rows to it first")
            return to_snapshot(table, loaded, current)
        if isinstance(at, datetime):
            return self._snapshot_at(table, loaded, at)
        found = loaded.metadata.snapshot_by_id(at)
        if found is None:
            raise NotFound(
                f'Table "{table}" has no snapshot {at}',
                hint="it never had one, or it has expired; `history` lists those that are kept",
            )
        return to_snapshot(table, loaded, found)

    def _snapshot_at(self, table: str, loaded: IcebergTable, at: datetime) -> Snapshot:
        if at.tzinfo is None:
            raise DataError(f"{at} names no time zone", where=f'table "{table}"', hint="give an instant in UTC")
        milliseconds = (at.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
        kept = ordered(loaded)
        before = [each for each in kept if each.timestamp_ms <= milliseconds]
        if not before:
            first = f"the oldest kept is of {format_instant(committed_at(kept[0]))}" if kept else "it has none"
            raise NotFound(f'Table "{table}" has no snapshot at {format_instant(at)}', hint=first)
        return to_snapshot(table, loaded, before[-1])

    def history(self, table: str) -> list[Snapshot]:
        loaded = self.require(table)
        return [to_snapshot(table, loaded, each) for each in ordered(loaded)]

    def plan(self, snapshot: Snapshot) -> ScanPlan:
        """The files of a snapshot.

        Raises:
            NotFound: The table or the snapshot is no longer there.
        """
        loaded = self.require(snapshot.table)
        found = loaded.metadata.snapshot_by_id(snapshot.id)
        if found is None:
            raise NotFound(
                f'Snapshot {snapshot.id} of table "{snapshot.table}" is no longer kept',
                hint="read the current snapshot, or pin a snapshot that has to stay",
            )
        with whole_metadata(snapshot.table, self.warehouse):
            files = tuple(str(self.path(entry.file_path)) for entry in live_files(loaded, found))
        schema = schema_of(loaded, found)
        return ScanPlan(files, columns_of(schema), types_of(schema), snapshot.rows, renamed(loaded, schema))

    def load(self, table: str) -> IcebergTable | None:
        """PyIceberg's table, or None."""
        from pyiceberg.exceptions import NoSuchTableError

        for _ in range(3):
            try:
                with whole_catalog(self.database), whole_metadata(table, self.warehouse):
                    loaded: IcebergTable = self.catalog.load_table(identifier(table))
            except NoSuchTableError:
                return None
            except Unavailable as error:
                missing = error
                if not isinstance(error.__cause__, FileNotFoundError):
                    raise
                continue  # the metadata file was superseded many times since we asked for its name
            return loaded
        raise missing

    def require(self, table: str) -> IcebergTable:
        """PyIceberg's table.

        Raises:
            NotFound: There is none.
        """
        loaded = self.load(table)
        if loaded is None:
            raise NotFound(f'There is no table "{table}"', hint=did_you_mean(table, self.tables(), noun="tables"))
        return loaded

    def path(self, location: str) -> Path:
        """Where a file of the lake is now, by the location that Iceberg recorded for it."""
        return local_path(self.warehouse, location)

    # Writing

    def append(
        self, table: str, rows: Rows, *, properties: Mapping[str, str] | None = None, token: str | None = None
    ) -> Snapshot:
        return write(self, Request(table, "append", rows.schema, (), properties, token), rows)

    def overwrite(
        self, table: str, rows: Rows, *, properties: Mapping[str, str] | None = None, token: str | None = None
    ) -> Snapshot:
        return write(self, Request(table, "overwrite", rows.schema, (), properties, token), rows)

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
        return write(self, Request(table, "upsert", rows.schema, tuple(key), properties, token), rows)

    def drop(self, table: str) -> None:
        """Take a table out of the catalog; its files stay until they are collected.

        Raises:
            NotFound: There is no such table.
        """

        def attempt() -> None:
            self.require(table)
            self.catalog.drop_table(identifier(table))

        retrying(self.root, table, attempt)

    def pin(self, snapshot: Snapshot, name: str) -> None:
        """Keep a snapshot from expiry under a name; idempotent.

        Raises:
            NotFound: The snapshot is no longer there.
            DataError: The name keeps another snapshot of the table.
        """

        def attempt() -> None:
            loaded = self.require(snapshot.table)
            self.snapshot(snapshot.table, snapshot.id)
            held = loaded.metadata.refs.get(name)
            if held is None:
                loaded.manage_snapshots().create_tag(snapshot.id, name).commit()
            elif held.snapshot_id != snapshot.id or name == _MAIN:
                raise DataError(
                    f'The name "{name}" already keeps snapshot {held.snapshot_id} of table "{snapshot.table}"',
                    hint="choose another name",
                )

        retrying(self.root, snapshot.table, attempt)

    def unpin(self, table: str, name: str) -> None:
        """Let go of a pinned snapshot; it stays until it is expired. Idempotent."""

        def attempt() -> None:
            loaded = self.require(table)
            if name in loaded.metadata.refs and name != _MAIN:
                loaded.manage_snapshots().remove_tag(name).commit()

        retrying(self.root, table, attempt)

    def rename_column(self, table: str, old: str, new: str) -> Snapshot:
        """Rename a column, as a snapshot of its own: earlier snapshots keep the old name.

        Raises:
            NotFound: There is no such table or column.
            DataError: There is a column of the new name already.
        """
        return maintenance.rename_column(self, table, old, new)

    # Upkeep

    def expire(self, table: str, keep_last: int = 100, older_than: timedelta = _DAY) -> int:
        """Forget snapshots of a table that are neither among the last `keep_last`, nor younger, nor pinned.

        Their files are removed by `collect_garbage`. The tokens they were written under stay known.

        Returns:
            How many were forgotten.
        """
        return maintenance.expire(self, table, keep_last=keep_last, older_than=older_than)

    def collect_garbage(self, older_than: timedelta = _DAY) -> maintenance.Collected:
        """Remove files that no kept snapshot refers to: of killed writes, expired snapshots, dropped tables.

        Args:
            older_than: Younger files stay; has to be longer than the longest write takes.
        """
        return maintenance.collect_garbage(self, older_than=older_than)

    def compact(self, table: str) -> Snapshot | None:
        """Merge a table's small files (under 32 MiB), as a snapshot with the same rows; None where none are small."""
        return maintenance.compact(self, table)
