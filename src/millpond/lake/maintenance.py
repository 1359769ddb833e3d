"""Keeping a lake small: expiry of snapshots, collection of files that nothing refers to, merging of small files."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millpond.core.errors import DataError, NotFound
from millpond.core.time import now
from millpond.lake.catalog import identifier
from millpond.lake.commits import begin, commit_files, retrying
from millpond.lake.datafiles import stage
from millpond.lake.metadata import TOKEN, committed_at, live_files, ordered, to_snapshot, types_of
from millpond.lake.ports import Snapshot
from millpond.lake.scan import ScanPlan, scan_sql
from millpond.lake.schema import column_hint, columns_of

if TYPE_CHECKING:
    from pyiceberg.table import Table as IcebergTable

    from millpond.lake.iceberg import IcebergLake

_SMALL_FILE_BYTES = 32 << 20
_YOUNGEST = timedelta(minutes=1)


@dataclass(frozen=True)
class Collected:
    """What a collection removed.

    Attributes:
        files: Number of files.
        bytes: Their size.
    """

    files: int
    bytes: int


def expire(lake: IcebergLake, table: str, *, keep_last: int, older_than: timedelta) -> int:
    """Forget old snapshots of a table; how many. See `IcebergLake.expire`."""

    def attempt() -> int:
        loaded = lake.require(table)
        kept = {ref.snapshot_id for ref in loaded.metadata.refs.values()}
        before = now() - older_than
        snapshots = ordered(loaded)
        old = snapshots[: max(len(snapshots) - max(keep_last, 1), 0)]
        expiring = [each for each in old if each.snapshot_id not in kept and committed_at(each) < before]
        if not expiring:
            return 0
        _remember_tokens(lake, loaded, expiring)
        _commit_expiry(loaded, [each.snapshot_id for each in expiring])
        return len(expiring)

    return retrying(lake.root, table, attempt)


def _remember_tokens(lake: IcebergLake, loaded: IcebergTable, expiring: list[Any]) -> None:
    """Keep the tokens of snapshots that will be forgotten: a write under one must stay done."""
    from sqlalchemy import text

    uuid = str(loaded.metadata.table_uuid)
    tokens = [
        {"table": uuid, "token": each.summary.get(TOKEN), "snapshot": each.snapshot_id}
        for each in expiring
        if each.summary is not None and each.summary.get(TOKEN) is not None
    ]
    if tokens:
        statement = text("INSERT OR IGNORE INTO millpond_tokens VALUES (:table, :token, :snapshot)")
        with lake.catalog.engine.begin() as connection:
            connection.execute(statement, tokens)


def _commit_expiry(loaded: IcebergTable, snapshot_ids: list[int]) -> None:
    from pyiceberg.exceptions import CommitFailedException
    from pyiceberg.table import Transaction
    from pyiceberg.table.update import RemoveSnapshotsUpdate, ValidatableTableRequirement

    refs = dict(loaded.metadata.refs)

    class NothingPinned(ValidatableTableRequirement):  # type: ignore[misc]
        """Nobody has pinned a snapshot since the ones to expire were chosen."""

        type: str = "millpond-nothing-pinned"

        def validate(self, base_metadata: Any) -> None:
            if base_metadata is None or dict(base_metadata.refs) != refs:
                raise CommitFailedException("A snapshot was pinned or written meanwhile")

    transaction = Transaction(loaded)
    transaction._apply((RemoveSnapshotsUpdate(snapshot_ids=snapshot_ids),), (NothingPinned(),))
    transaction.commit_transaction()


def collect_garbage(lake: IcebergLake, *, older_than: timedelta) -> Collected:
    """Remove files that no kept snapshot refers to. See `IcebergLake.collect_garbage`."""
    if older_than < _YOUNGEST:
        raise DataError(
            f"Files younger than {_YOUNGEST} may belong to a write under way", hint="choose a longer older_than"
        )
    latest = time.time() - older_than.total_seconds()
    # Candidates are listed before references are read: what is committed in between is among the references.
    candidates = [path for path in lake.warehouse.glob("*/*/*/*") if path.is_file() and path.stat().st_mtime < latest]
    referenced = {path for table in lake.tables() for path in _referenced(lake, table)}
    files = size = 0
    for path in candidates:
        if path not in referenced:
            size += path.stat().st_size
            path.unlink(missing_ok=True)
            files += 1
    for path in (lake.root / "scratch").glob("*"):
        if path.stat().st_mtime < latest:
            shutil.rmtree(path, ignore_errors=True)
    return Collected(files, size)


def _referenced(lake: IcebergLake, table: str) -> Iterator[Path]:
    loaded = lake.load(table)
    if loaded is None:  # dropped meanwhile; its files are collected next time
        yield from (path for path in lake.warehouse.joinpath(*identifier(table)).glob("*/*"))
        return
    yield lake.path(loaded.metadata_location)
    for entry in loaded.metadata.metadata_log:
        yield lake.path(entry.metadata_file)
    seen: set[str] = set()
    for snapshot in loaded.metadata.snapshots:
        yield lake.path(snapshot.manifest_list)
        for manifest in snapshot.manifests(loaded.io):
            if manifest.manifest_path in seen:
                continue
            seen.add(manifest.manifest_path)
            yield lake.path(manifest.manifest_path)
            for entry in manifest.fetch_manifest_entry(loaded.io, discard_deleted=True):
                yield lake.path(entry.data_file.file_path)


def compact(lake: IcebergLake, table: str, *, smaller_than: int = _SMALL_FILE_BYTES) -> Snapshot | None:
    """Merge small files; the new snapshot, or None. See `IcebergLake.compact`."""
    from millpond.lake.duckdb import DuckDBEngine

    def attempt() -> Snapshot | None:
        loaded = lake.require(table)
        current = loaded.metadata.current_snapshot()
        if current is None:
            return None
        small = [each for each in live_files(loaded, current) if each.file_size_in_bytes < smaller_than]
        if len(small) < 2:
            return None
        schema = loaded.schema()
        files = tuple(str(lake.path(each.file_path)) for each in small)
        plan = ScanPlan(files, columns_of(schema), types_of(schema), 0)
        engine = DuckDBEngine(lake, temp_directory=lake.root / "scratch" / "compact")
        try:
            rows = engine.reader(f"SELECT * FROM {scan_sql(plan)}")
            location = f"{lake.warehouse.as_uri()}/{'/'.join(identifier(table))}"
            names = list(schema.column_names)
            merged = stage(rows, names, schema, location=location, warehouse=lake.warehouse, table=table)
        finally:
            engine.close()
        after, snapshot = commit_files(
            begin(lake.catalog, table, loaded, schema),
            added=list(merged.files),
            removed=small,
            replace=True,
            summary=_said(current),
        )
        return to_snapshot(table, after, snapshot)

    return retrying(lake.root, table, attempt)


def rename_column(lake: IcebergLake, table: str, old: str, new: str) -> Snapshot:
    """Rename a column, as a snapshot of its own. See `IcebergLake.rename_column`."""

    def attempt() -> Snapshot:
        from pyiceberg.schema import Schema

        loaded = lake.require(table)
        names = [field.name for field in loaded.schema().fields]
        if old not in names:
            raise NotFound(f'Table "{table}" has no column "{old}"', hint=column_hint(old, names))
        if new.lower() in [name.lower() for name in names if name != old]:
            raise DataError(f'Table "{table}" has a column "{new}" already', hint="choose another name")
        fields = [
            field.model_copy(update={"name": new}) if field.name == old else field for field in loaded.schema().fields
        ]
        transaction = begin(lake.catalog, table, loaded, Schema(*fields))
        current = loaded.metadata.current_snapshot()
        said = _said(current) if current is not None else {}
        after, snapshot = commit_files(transaction, added=[], removed=[], replace=False, summary=said)
        return to_snapshot(table, after, snapshot)

    return retrying(lake.root, table, attempt)


def _said(snapshot: Any) -> dict[str, str]:
    """What the writer of a snapshot said of it: still true after a change that leaves the rows as they are."""
    from millpond.lake.metadata import PROPERTY

    said = snapshot.summary.additional_properties if snapshot.summary is not None else {}
    return {name: value for name, value in said.items() if name.startswith(PROPERTY)}
