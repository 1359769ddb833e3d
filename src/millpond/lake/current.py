"""Which snapshot of a table is the current one, for those who ask often."""

from __future__ import annotations

import time
from typing import Protocol

from millpond.lake.events import only_landed_since
from millpond.lake.ports import Snapshot, TableReader


class Snapshots(Protocol):
    """Says which snapshot of a table features are read from."""

    def of(self, table: str) -> Snapshot: ...


class CurrentSnapshots:
    """The current snapshot of tables, asked of the catalog at most once a second each."""

    def __init__(self, lake: TableReader, *, max_age: float = 1.0) -> None:
        self._lake = lake
        self._max_age = max_age
        self._known: dict[str, tuple[float, Snapshot]] = {}
        self._landed: dict[tuple[str, int], tuple[int, bool]] = {}

    def of(self, table: str) -> Snapshot:
        asked, snapshot = self._known.get(table, (float("-inf"), None))
        if snapshot is None or time.monotonic() - asked > self._max_age:
            snapshot = self._lake.snapshot(table)
            self._known[table] = (time.monotonic(), snapshot)
        return snapshot

    def only_landed_since(self, table: str, snapshot_id: int) -> bool:
        """Whether all that came into a table after a snapshot are pushed events; see `lake.events`."""
        key = (table, snapshot_id)
        current = self.of(table)
        before = self._landed.get(key)
        if before is None or before[0] != current.id:
            before = self._landed[key] = (current.id, only_landed_since(self._lake, current, snapshot_id))
        return before[1]

    def forget(self, table: str) -> None:
        """Ask the catalog again when the table is wanted next."""
        self._known.pop(table, None)
