"""Whole states put in place at once: a new generation is written out of sight, and then becomes the current one.

A generation is the entries whose keys begin with its prefix. While it is written, an intent in the store says so and
a lock file of the view is held, which the kernel frees when its holder dies; an intent without its lock is waste of a
killed process. The last transaction makes the generation current and the one before it waste. Waste is deleted in
small transactions, by whoever comes next if need be.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from millpond.core.errors import Conflict, Unavailable
from millpond.features.online import log, records
from millpond.features.online.environment import Environment
from millpond.features.online.ports import OnlineView
from millpond.features.online.records import Intent
from millpond.features.online.transactions import clear

#: Bytes and entries written in one transaction; between two of them, others write.
_BYTES, _ENTRIES = 8 << 20, 20_000
_PATIENCE_SECONDS = 0.1


@dataclass(frozen=True)
class Generation:
    """A generation that is being written.

    Attributes:
        environment: Where.
        intent: What the store notes about it.
    """

    environment: Environment
    intent: Intent

    @property
    def prefix(self) -> bytes:
        return self.intent.prefix

    def write(self, entries: Iterable[tuple[Any, bytes, bytes]]) -> int:
        """Write entries of maps, their keys without the prefix, in transactions of bounded size.

        A key that comes twice has the later value. Returns how many packed values are new.
        """
        grown, values = 0, self.environment.values
        for batch in _batches(entries):
            with self.environment.write() as txn:
                held = txn.stat(values)["entries"]
                for map_, key, value in batch:
                    txn.put(self.prefix + key, value, db=map_)
                grown += txn.stat(values)["entries"] - held
        return grown

    def done(self, txn: Any, before: bytes | None) -> None:
        """Within the transaction that makes the generation current: end the intent; `before` becomes waste."""
        records.end_intent(self.environment, txn, self.intent, waste=before)


@contextmanager
def generation(environment: Environment, view: OnlineView, position: int | None) -> Iterator[Generation]:
    """Write a new generation of a view; what is not made current in the block is deleted.

    Args:
        environment: Where.
        view: The view.
        position: Events of its table after this one stay in the log meanwhile; None needs none.

    Raises:
        Conflict: Another is writing one of this view, or events after `position` have left the log already.
    """
    with alone(environment.folder, view):
        view_id = records.view_id(view)
        with environment.write() as txn:
            table = records.ensure_table(environment, txn, view.table, view.row_keys)
            if position is not None and table.purged > position:
                raise Conflict(
                    f"Events of table {view.table!r} landed in the lake after the snapshot for view {view.name!r} "
                    "was taken, and have left the log",
                    hint="run it again: it will read a newer snapshot",
                )
            if view.row_keys and table.key != view.row_keys:
                records.change_key(environment, txn, view.table, table, view.row_keys)
            _end_killed(environment, txn, view_id)
            records.put_view(environment, txn, view)
            intent = Intent(view_id, records.new_prefix(environment, txn), view.table, position)
            records.put_intent(environment, txn, intent)
        try:
            collect(environment)
            yield Generation(environment, intent)
        finally:
            with suppress(Unavailable):  # a full disk, say: the next one clears up
                with environment.write() as txn:
                    _end_killed(environment, txn, view_id)  # this very one, where it failed
                    log.purge(environment, txn, view.table, needed(environment, txn, view.table))
                collect(environment)


def _end_killed(environment: Environment, txn: Any, view: bytes) -> None:
    """End the intents of a view that nobody else is writing now, and all those whose process is gone."""
    for intent in records.intents(environment, txn):
        if intent.view == view or not _is_held(environment.folder, intent.view):
            records.end_intent(environment, txn, intent, waste=intent.prefix)


def needed(environment: Environment, txn: Any, table: str) -> int | None:
    """Events of a table after this position are needed by a load under way or awaited; None where by none."""
    wanted = [
        intent.position
        for intent in records.intents(environment, txn)
        if intent.table == table and intent.position is not None and _is_held(environment.folder, intent.view)
    ]
    wanted += [
        each.position for each in records.awaited(environment, txn) if each.table == table and each.position is not None
    ]
    return min(wanted, default=None)


def collect(environment: Environment) -> None:
    """Delete all waste, in small transactions."""
    maps = (environment.values, environment.live, environment.places)
    with environment.look() as txn:
        found = records.garbage(environment, txn)
    for prefix in found:
        deleted = _ENTRIES
        while deleted:
            with environment.write() as txn:
                deleted = sum(clear(txn, map_, prefix, _ENTRIES) for map_ in maps)
                if not deleted:
                    records.drop_garbage(environment, txn, prefix)


@contextmanager
def alone(folder: Path, view: OnlineView) -> Iterator[None]:
    """Be the only one that writes a generation of a view; the kernel ends it with the process.

    Raises:
        Conflict: Another is at it.
    """
    path = _lock_path(folder, records.view_id(view))
    path.parent.mkdir(exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        until = time.monotonic() + _PATIENCE_SECONDS  # who looks whether it is held holds it for a moment
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise Conflict(
                        f"Another process is loading or publishing view {view.name!r}",
                        hint="wait until it has finished, then do it again",
                    ) from None
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def _is_held(folder: Path, view: bytes) -> bool:
    try:
        descriptor = os.open(_lock_path(folder, view), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _lock_path(folder: Path, view: bytes) -> Path:
    return folder / "locks" / view.hex()


def _batches(entries: Iterable[tuple[Any, bytes, bytes]]) -> Iterator[list[tuple[Any, bytes, bytes]]]:
    batch: list[tuple[Any, bytes, bytes]] = []
    size = 0
    for entry in entries:
        batch.append(entry)
        size += len(entry[1]) + len(entry[2])
        if size > _BYTES or len(batch) >= _ENTRIES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
