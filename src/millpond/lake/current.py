"""Which snapshot of a table is the current one, for those who ask often."""

from __future__ import annotations

import time
from typing import Protocol

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

    def of(self, table: str) -> Snapshot:
        asked, snapshot = self._known.get(table, (float("-inf"), None))
        if snapshot is None or time.monotonic() - asked > self._max_age:
            snapshot = self._lake.snapshot(table)
            self._known[table] = (time.monotonic(), snapshot)
        return snapshot

    def forget(self, table: str) -> None:
        """Ask the catalog again when the table is wanted next."""
        self._known.pop(table, None)
