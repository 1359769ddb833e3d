"""The log of events in its map: batches of events by table and position of their first."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from millpond.features.online import records
from millpond.features.online.environment import Environment
from millpond.features.online.events import from_bytes, to_bytes
from millpond.features.online.ports import LoggedEvents

if TYPE_CHECKING:
    import pyarrow as pa

_POSITION = struct.Struct(">Q")
_COUNT = struct.Struct(">I")
#: Events of one entry at most.
_BATCH = 20_000


class Entry(NamedTuple):
    """Consecutive events of one push.

    Attributes:
        key: Of the entry in the map.
        first: Position of the first event.
        last: Position of the last event.
        data: The events; see `rows`.
    """

    key: bytes
    first: int
    last: int
    data: bytes

    def rows(self, after: int = 0) -> pa.Table:
        """The events with positions greater than `after`."""
        return from_bytes(self.data).slice(max(0, after + 1 - self.first))


def append(environment: Environment, txn: Any, table: bytes, first: int, rows: pa.Table) -> None:
    """Add events whose positions begin at `first`."""
    for start in range(0, rows.num_rows, _BATCH):
        batch = rows.slice(start, _BATCH)
        key = table + _POSITION.pack(first + start)
        txn.put(key, _COUNT.pack(batch.num_rows) + to_bytes(batch), db=environment.log)


def entries(environment: Environment, txn: Any, table: bytes, after: int) -> Iterator[Entry]:
    """The entries that hold a position greater than `after`, in order."""
    cursor = txn.cursor(environment.log)
    start = table + _POSITION.pack(after + 1)
    if not (cursor.set_range(start) and cursor.key() == start):  # the batch before may reach beyond
        inside = cursor.prev() if cursor.key() else cursor.last()
        if not (inside and cursor.key().startswith(table)) and not cursor.set_range(start):
            return
    for key, value in cursor.iternext():
        if not key.startswith(table):
            return
        first = _POSITION.unpack_from(key, len(table))[0]
        last = first + _COUNT.unpack_from(value)[0] - 1
        if last > after:
            yield Entry(key, first, last, value[_COUNT.size :])


def pending(environment: Environment, txn: Any, table: records.TableRecord, limit: int) -> LoggedEvents | None:
    """The oldest events after `landed`, at most `limit`, as far as their columns go together."""
    import pyarrow as pa

    found: list[pa.Table] = []
    first = last = 0
    for entry in entries(environment, txn, table.prefix, table.landed):
        room = limit - sum(each.num_rows for each in found)
        rows = entry.rows(table.landed).slice(0, room)
        if room <= 0 or (found and not _fit(found[0].schema, rows.schema)):
            break
        found.append(rows)
        begins = max(entry.first, table.landed + 1)
        first, last = first or begins, begins + rows.num_rows - 1
    return LoggedEvents(first, last, pa.concat_tables(found, promote_options="permissive")) if found else None


def _fit(first: pa.Schema, second: pa.Schema) -> bool:
    import pyarrow as pa

    try:
        pa.unify_schemas([first, second], promote_options="permissive")
    except pa.ArrowException:
        return False
    return True


def land(environment: Environment, txn: Any, name: str, position: int) -> None:
    """Note that events up to `position` have landed. They stay until the next time, so that a load can start."""
    table = records.table_of(environment, txn, name)
    if table is not None and position >= table.landed:
        records.put_table(environment, txn, name, replace(table, landed=position, purgeable=table.landed))


def purge(environment: Environment, txn: Any, name: str, kept_from: int | None) -> None:
    """Delete entries that have landed, except events after `kept_from`."""
    table = records.table_of(environment, txn, name)
    if table is None:
        return
    bound = table.purgeable if kept_from is None else min(table.purgeable, kept_from)
    purged = table.purged
    for entry in list(_whole(environment, txn, table.prefix, bound)):
        txn.delete(entry.key, db=environment.log)
        purged = max(purged, entry.last)
    if purged != table.purged:
        records.put_table(environment, txn, name, replace(table, purged=purged))


def _whole(environment: Environment, txn: Any, table: bytes, bound: int) -> Iterator[Entry]:
    for entry in entries(environment, txn, table, 0):
        if entry.last > bound:
            return
        yield entry._replace(data=b"")


def remove(environment: Environment, txn: Any, table: bytes, entry: Entry, keep: list[bool]) -> None:
    """Delete events of an entry, except those marked in `keep`; the others keep their positions."""
    rows = entry.rows()
    txn.delete(entry.key, db=environment.log)
    start = 0
    for stop in range(1, len(keep) + 1):
        if stop == len(keep) or keep[stop] != keep[start]:
            if keep[start]:
                append(environment, txn, table, entry.first + start, rows.slice(start, stop - start))
            start = stop
