"""The online store in LMDB: a folder, read by several processes while one at a time writes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from millpond.features.online import log, records
from millpond.features.online.applying import LiveRules
from millpond.features.online.bulk import alone, collect, needed
from millpond.features.online.environment import MAP_SIZE, Environment, acquire, release
from millpond.features.online.forgetting import Forgetting, drop
from millpond.features.online.loads import load, publish
from millpond.features.online.ports import EntityKey, LoggedEvents, OnlineView, Pushed, ViewState
from millpond.features.online.pushes import push
from millpond.features.online.reader import Handle, LmdbReader

if TYPE_CHECKING:
    import pyarrow as pa

#: Handles kept; more views than that are in use by nobody.
_MOST_HANDLES = 1024


class LmdbStore:
    """`OnlineStore` in a folder. Safe across threads and processes, not across a fork.

    The maps, and their entries:

        meta     format, counters, loads under way, generations to be deleted
        views    fingerprint of a view -> the view
        heads    fingerprint of a view -> its state: prefix of the current generation, position, times
        tables   name -> number, key, how far it has landed
        values   prefix, entity -> packed values
        live     prefix, entity, suffix -> live state
        places   prefix, key of a row -> entity and times of the row in live state
        seen     number of a table, key of a row -> digest and position of the row as last pushed
        log      number of a table, position -> events

    Args:
        folder: Made if need be.
        map_size: Bytes that the store may grow to; address space, not disk.

    Raises:
        StoreMismatch: The folder holds a store of another format.
        Unavailable: The folder cannot be opened.
    """

    def __init__(self, folder: Path, *, map_size: int = MAP_SIZE) -> None:
        self.folder = folder
        self._environment: Environment = acquire(folder, map_size)
        self._closed = False
        self._handles: dict[str, Handle] = {}
        self._rules: dict[bytes, LiveRules] = {}

    def read(self) -> LmdbReader:
        return LmdbReader(self._environment, self._handle)

    def states(self) -> list[ViewState]:
        with self._environment.look() as txn:
            found = [
                head.state(records.view_of(self._environment, txn, view))
                for view, head in records.heads(self._environment, txn)
            ]
        return sorted(found, key=lambda each: each.view.name)

    def load(
        self, view: OnlineView, source: int, since: datetime | None, position: int, rows: pa.RecordBatchReader
    ) -> ViewState:
        return load(self._environment, self._handle(view).rules, source, since, position, rows)

    def publish(
        self, view: OnlineView, source: int, grid: datetime, rows: pa.RecordBatchReader, *, full: bool
    ) -> ViewState:
        return publish(self._environment, self._handle(view).packed, source, grid, rows, full=full)

    def push(self, table: str, key: Sequence[str], rows: pa.Table) -> Pushed:
        return push(self._environment, self._rules_of, table, key, rows)

    def pending(self, table: str, limit: int = 100_000) -> LoggedEvents | None:
        with self._environment.look() as txn:
            record = records.table_of(self._environment, txn, table)
            return log.pending(self._environment, txn, record, limit) if record is not None else None

    def landed(self, table: str) -> int:
        with self._environment.look() as txn:
            record = records.table_of(self._environment, txn, table)
            return record.landed if record is not None else 0

    def land(self, table: str, position: int) -> None:
        with self._environment.write() as txn:
            log.land(self._environment, txn, table, position)
            log.purge(self._environment, txn, table, needed(self._environment, txn, table))

    def forget(self, entity: str, key: EntityKey) -> int:
        with self._environment.write() as txn:
            return Forgetting(self._environment, txn, self._rules_of).forget(entity, key)

    def drop(self, view: OnlineView) -> None:
        with alone(self.folder, view):
            with self._environment.write() as txn:
                drop(self._environment, txn, view)
            collect(self._environment)

    def synced_at(self) -> datetime | None:
        return None

    def close(self) -> None:
        """Give the files back; calling it again does nothing."""
        if not self._closed:
            self._closed = True
            release(self._environment)

    def _handle(self, view: OnlineView) -> Handle:
        found = self._handles.get(view.fingerprint)
        if found is None:
            if len(self._handles) >= _MOST_HANDLES:
                self._handles.clear()
            found = self._handles[view.fingerprint] = Handle(view)
        return found

    def _rules_of(self, view: bytes) -> LiveRules:
        found = self._rules.get(view)
        if found is None:
            with self._environment.look() as txn:
                found = self._rules[view] = LiveRules.of(records.view_of(self._environment, txn, view))
        return found
