"""Whole states of views in Redis: generations of entries, in chunks, and what is said of those in place.

An entry is one of the replica's LMDB store, without the prefix of its generation there: every replica of a view has the
same entries, so they are made once and copied.
"""

from __future__ import annotations

import json
import struct
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from millpond.core.time import from_microseconds
from millpond.features.online import records
from millpond.features.online.environment import FORMAT, Environment
from millpond.features.online.events import Place
from millpond.features.online.ports import OnlineView
from millpond.features.online.redis_connection import Connection
from millpond.features.online.redis_replica import Replica

_ENTRY = struct.Struct(">cHI")
_CHUNK_BYTES = 1 << 20
#: Chunks asked for at once.
_AHEAD = 4

Entry = tuple[Any, bytes, bytes]


class Superseded(Exception):
    """A generation is not in Redis any more, or not whole."""


@dataclass(frozen=True)
class Generation:
    """Entries of a view in Redis.

    Attributes:
        id: Its id.
        chunks: How many chunks it has.
        seen: Operation as of which it was made; who was forgotten later may be in it.
        operation: Operation that put it in place; one that was copied from a replica has the operation of its state.
        source: Snapshot that it was computed from.
        grid: Grid point of its values, microseconds since 1970 UTC; None where the view is live.
    """

    id: str
    chunks: int
    seen: int
    operation: int
    source: int
    grid: int | None


@dataclass(frozen=True)
class Entered:
    """What is in place of a view.

    Attributes:
        view: The view, described.
        operation: Operation that it is the state of.
        generations: One with all entries, then those with changed values, in order.
        since: As in `ViewState`, microseconds since 1970 UTC.
        position: Live views: events up to here are in it.
        entities: Live views: how many there are in it.
        format: Of the entries; see `environment.FORMAT`.
    """

    view: dict[str, Any]
    operation: int
    generations: tuple[Generation, ...]
    since: int | None
    position: int | None
    entities: int
    format: str = FORMAT.decode()

    @classmethod
    def read(cls, data: bytes) -> Entered:
        found = json.loads(data)
        generations = tuple(
            Generation(**(each | {"operation": int(each["operation"])})) for each in found["generations"]
        )
        return cls(**(found | {"operation": int(found["operation"]), "generations": generations}))

    def write(self, now: str = "") -> str:
        """As JSON; `now` stands for the operation where it is 0, until it has its number."""
        described = asdict(self)
        for each in (described, *described["generations"]):
            each["operation"] = each["operation"] or now
        return json.dumps(described)

    @property
    def of(self) -> OnlineView:
        return OnlineView.restore(self.view)

    @property
    def newest(self) -> Generation:
        return self.generations[-1]

    def grid(self) -> datetime | None:
        found = self.newest.grid
        return None if found is None else from_microseconds(found)

    def whole(self, generation: Generation, position: int | None, entities: int) -> Entered:
        """The same state as one generation."""
        return replace(self, generations=(generation,), position=position, entities=entities)


def upload(connection: Connection, id_: str, entries: Iterable[tuple[bytes, bytes, bytes]]) -> int:
    """Write entries, as map, key and value, under an id that nobody reads yet; how many chunks they make."""
    key, count = connection.keys.generation(id_), 0
    for chunk in _chunks(entries):
        with connection.errors():
            connection.client.hset(key, str(count), chunk)
        count += 1
    return count


def download(connection: Connection, generation: Generation) -> Iterator[tuple[bytes, bytes, bytes]]:
    """The entries of a generation, in order.

    Raises:
        Superseded: It is gone.
    """
    key = connection.keys.generation(generation.id)
    for start in range(0, generation.chunks, _AHEAD):
        names = [str(each) for each in range(start, min(start + _AHEAD, generation.chunks))]
        with connection.errors():
            found = connection.client.hmget(key, names)
        for chunk in found:
            if chunk is None:
                raise Superseded(generation.id)
            yield from entries_of(chunk)


def scrub(connection: Connection, generation: Generation, entity: bytes) -> None:
    """Take an entity out of a generation."""
    key = connection.keys.generation(generation.id)
    for number in range(generation.chunks):
        with connection.errors():
            chunk = connection.client.hget(key, str(number))
        if chunk is not None and entity in chunk:
            kept = [each for each in entries_of(chunk) if not belongs(each, entity)]
            connection.replace(key, str(number), b"".join(_pack(*each) for each in kept))


def belongs(entry: tuple[bytes, bytes, bytes], entity: bytes) -> bool:
    """Whether an entry is of an entity."""
    map_, key, value = entry
    return Place.is_of(entity)(value) if map_ == b"p" else key.startswith(entity)


def tagged(environment: Environment, entries: Iterable[Entry]) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Entries with letters for their maps: values, live, places."""
    letters = {id(environment.values): b"v", id(environment.live): b"l", id(environment.places): b"p"}
    return ((letters[id(map_)], key, value) for map_, key, value in entries)


def untagged(environment: Environment, entries: Iterable[tuple[bytes, bytes, bytes]]) -> Iterator[Entry]:
    """The reverse of `tagged`."""
    maps = {b"v": environment.values, b"l": environment.live, b"p": environment.places}
    return ((maps[letter], key, value) for letter, key, value in entries)


def held(environment: Environment, view: bytes, head_is: Callable[[Any, records.Head], None]) -> Iterator[Entry]:
    """The entries that a store holds of a view, as of one moment; none where it holds nothing of it.

    Args:
        environment: The store.
        view: The view.
        head_is: Told the transaction and the view's state, before the first entry.
    """
    with environment.look() as txn:
        head = records.head_of(environment, txn, view)
        if head is None:
            return
        head_is(txn, head)
        for map_ in (environment.values, environment.live, environment.places):
            cursor = txn.cursor(map_)
            if cursor.set_range(head.prefix):
                for key, value in cursor.iternext():
                    if not key.startswith(head.prefix):
                        break
                    yield map_, key[records.PREFIX :], value


def entries_of(chunk: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """The entries of a chunk."""
    offset, end = 0, len(chunk)
    while offset < end:
        map_, key, value = _ENTRY.unpack_from(chunk, offset)
        start = offset + _ENTRY.size
        offset = start + key + value
        yield map_, chunk[start : start + key], chunk[start + key : offset]


def _pack(map_: bytes, key: bytes, value: bytes) -> bytes:
    return _ENTRY.pack(map_, len(key), len(value)) + key + value


def _chunks(entries: Iterable[tuple[bytes, bytes, bytes]]) -> Iterator[bytes]:
    parts: list[bytes] = []
    size = 0
    for entry in entries:
        parts.append(_pack(*entry))
        size += len(parts[-1])
        if size >= _CHUNK_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
    if parts:
        yield b"".join(parts)


def commands_of_deletion(connection: Connection, generations: Sequence[Generation]) -> list[list[str]]:
    """Commands that delete generations."""
    return [["UNLINK", connection.keys.generation(each.id)] for each in generations]


def copy_of(
    connection: Connection, replica: Replica, view: bytes, operation: int
) -> tuple[Generation, int, int] | None:
    """Upload what a replica holds of a view as one generation; None where it is not the state of `operation`.

    Returns:
        The generation, the position of the last event then, and the number of entities.
    """
    environment = replica.environment
    seen = position = entities = source = 0
    grid: int | None = None
    current = False

    def head_is(txn: Any, head: records.Head) -> None:
        nonlocal seen, position, entities, source, grid, current
        seen, staged = replica.moment(txn, view.hex())
        position = records.counted(environment, txn, b"position")
        entities, source, grid = head.entities, head.source, head.grid
        current = operation in (staged, 0)

    id_ = uuid.uuid4().hex
    entries = tagged(environment, held(environment, view, head_is))
    chunks = upload(connection, id_, entries)
    generation = Generation(id_, chunks, seen, operation or max(seen, 1), source, grid)
    if not current:
        with connection.errors():
            connection.client.unlink(connection.keys.generation(id_))
        return None
    return generation, position, entities
