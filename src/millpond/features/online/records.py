"""What the store notes about views, tables and work that is under way."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

from millpond.core.errors import DataError
from millpond.core.time import from_microseconds
from millpond.features.online.environment import Environment
from millpond.features.online.ports import Mark, OnlineView, ViewState
from millpond.features.online.transactions import clear

_HEAD = struct.Struct(">4sI?qqqqqq")
_NONE = -(1 << 63)
_COUNTER = struct.Struct(">Q")
_INTENT, _GARBAGE, _FORGOTTEN, _AWAITED = b"intent/", b"garbage/", b"forgotten/", b"awaited/"
#: Bytes at the beginning of a head, and of every key of the generation that it names.
PREFIX = 4


class Head(NamedTuple):
    """The state of a view: which generation of entries is current, and what `ViewState` tells.

    Attributes:
        prefix: What the keys of the current generation begin with.
        table: Number of the view's table.
        live: Whether the view is live.
        position, source, refreshed_at, grid, since, entities: As in `ViewState`, instants in microseconds.
    """

    prefix: bytes
    table: int
    live: bool
    position: int
    source: int
    refreshed_at: int
    grid: int | None
    since: int | None
    entities: int

    def to_bytes(self) -> bytes:
        optional = [_NONE if each is None else each for each in (self.grid, self.since)]
        return _HEAD.pack(*self[:6], *optional, self.entities)

    @classmethod
    def from_bytes(cls, data: bytes) -> Head:
        head = cls(*_HEAD.unpack(data))
        return head._replace(
            grid=None if head.grid == _NONE else head.grid, since=None if head.since == _NONE else head.since
        )

    def state(self, view: OnlineView) -> ViewState:
        return ViewState(
            view=view,
            source=self.source,
            refreshed_at=from_microseconds(self.refreshed_at),
            position=self.position,
            grid=None if self.grid is None else from_microseconds(self.grid),
            since=None if self.since is None else from_microseconds(self.since),
            entities=self.entities,
        )


@dataclass(frozen=True)
class TableRecord:
    """A table as the store knows it.

    Attributes:
        id: Its number in the store.
        key: Columns of its key, as they were at the last push.
        landed: Position up to which its events are in the lake.
        purgeable: What `landed` was before; events up to here may leave the log.
        purged: Position up to which they have left it.
    """

    id: int
    key: tuple[str, ...]
    landed: int = 0
    purgeable: int = 0
    purged: int = 0

    @property
    def prefix(self) -> bytes:
        return self.id.to_bytes(PREFIX, "big")


class Intent(NamedTuple):
    """A load or a publication under way: the generation that it writes, and the events that it will need.

    Attributes:
        view: The view's fingerprint.
        prefix: What the keys of the new generation begin with.
        table: Name of the view's table.
        position: Events after this one stay in the log; None needs none.
    """

    view: bytes
    prefix: bytes
    table: str
    position: int | None


class Awaited(NamedTuple):
    """A state of a view that is made elsewhere, or that this replica's original has and this replica has not yet.

    Attributes:
        name: The view's fingerprint; while the state is being made, a token of who makes it.
        operation: Number of the operation that put it in place; 0 while it is being made.
        table: Name of the view's table.
        position: Events after this one stay in the log; None needs none.
    """

    name: bytes
    operation: int
    table: str
    position: int | None


def view_id(view: OnlineView) -> bytes:
    """A view's fingerprint as eight bytes."""
    return bytes.fromhex(view.fingerprint)


def head_of(environment: Environment, txn: Any, view: bytes) -> Head | None:
    found = txn.get(view, db=environment.heads)
    return Head.from_bytes(found) if found is not None else None


@lru_cache(1024)
def mark_of(head: bytes) -> Mark:
    """What each lookup needs of a head as it is stored; most lookups find the same ones."""
    _, _, _, position, source, _, grid, since, _ = _HEAD.unpack(head)
    return Mark(source, position, None if grid == _NONE else grid, None if since == _NONE else since)


def put_head(environment: Environment, txn: Any, view: bytes, head: Head) -> None:
    txn.put(view, head.to_bytes(), db=environment.heads)


def heads(environment: Environment, txn: Any) -> list[tuple[bytes, Head]]:
    return [(view, Head.from_bytes(data)) for view, data in txn.cursor(environment.heads)]


def put_view(environment: Environment, txn: Any, view: OnlineView) -> None:
    txn.put(view_id(view), json.dumps(view.describe()).encode(), db=environment.views)


def view_of(environment: Environment, txn: Any, view: bytes) -> OnlineView:
    return OnlineView.restore(json.loads(txn.get(view, db=environment.views)))


def views(environment: Environment, txn: Any) -> list[tuple[bytes, OnlineView]]:
    """All views that are held or being loaded."""
    return [(view, OnlineView.restore(json.loads(data))) for view, data in txn.cursor(environment.views)]


def table_of(environment: Environment, txn: Any, name: str) -> TableRecord | None:
    found = txn.get(name.encode(), db=environment.tables)
    return None if found is None else _table(found)


def tables(environment: Environment, txn: Any) -> dict[str, TableRecord]:
    return {name.decode(): _table(data) for name, data in txn.cursor(environment.tables)}


def _table(data: bytes) -> TableRecord:
    record = TableRecord(**json.loads(data))
    return replace(record, key=tuple(record.key))


def put_table(environment: Environment, txn: Any, name: str, record: TableRecord) -> None:
    txn.put(name.encode(), json.dumps(asdict(record)).encode(), db=environment.tables)


def ensure_table(environment: Environment, txn: Any, name: str, key: Sequence[str]) -> TableRecord:
    """The table's record; made if need be.

    Raises:
        DataError: The name is longer than the store takes.
    """
    found = table_of(environment, txn, name)
    if found is None:
        if len(name.encode()) > 500:
            raise DataError(f"The name of table {name!r} is too long", hint="at most 500 bytes")
        found = TableRecord(count_up(environment, txn, b"table"), tuple(key))
        put_table(environment, txn, name, found)
    return found


def change_key(environment: Environment, txn: Any, name: str, table: TableRecord, key: Sequence[str]) -> TableRecord:
    """Another key was declared for a table: its events are told apart by that from here on."""
    clear(txn, environment.seen, table.prefix)
    changed = replace(table, key=tuple(key))
    put_table(environment, txn, name, changed)
    return changed


def count_up(environment: Environment, txn: Any, counter: bytes, by: int = 1) -> int:
    """Raise a counter that begins at 0; its new value. It never gives a value twice."""
    value = counted(environment, txn, counter) + by
    txn.put(counter, _COUNTER.pack(value), db=environment.meta)
    return value


def count_to(environment: Environment, txn: Any, counter: bytes, value: int) -> None:
    """Raise a counter to `value`, where it is less."""
    if counted(environment, txn, counter) < value:
        txn.put(counter, _COUNTER.pack(value), db=environment.meta)


def counted(environment: Environment, txn: Any, counter: bytes) -> int:
    found = txn.get(counter, db=environment.meta)
    return int(_COUNTER.unpack(found)[0]) if found is not None else 0


def new_prefix(environment: Environment, txn: Any) -> bytes:
    """A prefix that no key has ever begun with."""
    return count_up(environment, txn, b"generation").to_bytes(PREFIX, "big")


def put_intent(environment: Environment, txn: Any, intent: Intent) -> None:
    described = {"prefix": intent.prefix.hex(), "table": intent.table, "position": intent.position}
    txn.put(_INTENT + intent.view, json.dumps(described).encode(), db=environment.meta)


def intents(environment: Environment, txn: Any) -> list[Intent]:
    return [
        Intent(key[len(_INTENT) :], bytes.fromhex(each["prefix"]), each["table"], each["position"])
        for key, each in ((key, json.loads(data)) for key, data in _meta(environment, txn, _INTENT))
    ]


def end_intent(environment: Environment, txn: Any, intent: Intent, *, waste: bytes | None) -> None:
    """Delete an intent and its marks, and hand a generation to the collector."""
    txn.delete(_INTENT + intent.view, db=environment.meta)
    for entity in forgotten(environment, txn, intent.view):
        unmark_forgotten(environment, txn, intent.view, entity)
    if waste is not None:
        put_garbage(environment, txn, waste)


def put_awaited(environment: Environment, txn: Any, awaited: Awaited) -> None:
    described = json.dumps(awaited._asdict() | {"name": ""}).encode()
    txn.put(_AWAITED + awaited.name, described, db=environment.meta)


def awaited(environment: Environment, txn: Any) -> list[Awaited]:
    return [
        Awaited(**(json.loads(data) | {"name": key[len(_AWAITED) :]}))
        for key, data in _meta(environment, txn, _AWAITED)
    ]


def drop_awaited(environment: Environment, txn: Any, name: bytes) -> None:
    txn.delete(_AWAITED + name, db=environment.meta)


def put_garbage(environment: Environment, txn: Any, prefix: bytes) -> None:
    txn.put(_GARBAGE + prefix, b"", db=environment.meta)


def garbage(environment: Environment, txn: Any) -> list[bytes]:
    """Prefixes of generations that nobody will read again."""
    return [key[len(_GARBAGE) :] for key, _ in _meta(environment, txn, _GARBAGE)]


def drop_garbage(environment: Environment, txn: Any, prefix: bytes) -> None:
    txn.delete(_GARBAGE + prefix, db=environment.meta)


def mark_forgotten(environment: Environment, txn: Any, view: bytes, entity: bytes) -> None:
    """Note for the load or publication under way that an entity was deleted meanwhile."""
    txn.put(_FORGOTTEN + view + entity, b"", db=environment.meta)


def forgotten(environment: Environment, txn: Any, view: bytes) -> list[bytes]:
    prefix = _FORGOTTEN + view
    return [key[len(prefix) :] for key, _ in _meta(environment, txn, prefix)]


def unmark_forgotten(environment: Environment, txn: Any, view: bytes, entity: bytes) -> None:
    txn.delete(_FORGOTTEN + view + entity, db=environment.meta)


def _meta(environment: Environment, txn: Any, prefix: bytes) -> list[tuple[bytes, bytes]]:
    cursor = txn.cursor(environment.meta)
    found: list[tuple[bytes, bytes]] = []
    if cursor.set_range(prefix):
        entries: Iterator[tuple[bytes, bytes]] = cursor.iternext()
        for key, value in entries:
            if not key.startswith(prefix):
                break
            found.append((key, value))
    return found
