"""Taking over whole states of views from Redis, into a replica."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

from millpond.core.errors import StoreMismatch
from millpond.core.time import from_microseconds
from millpond.features.online import records
from millpond.features.online.applying import LiveRules
from millpond.features.online.bulk import collect
from millpond.features.online.environment import FORMAT
from millpond.features.online.keys import KeyCodec
from millpond.features.online.loads import load_entries, publish_packed
from millpond.features.online.ports import OnlineView
from millpond.features.online.redis_connection import Connection
from millpond.features.online.redis_generations import (
    Entered,
    Entry,
    Generation,
    Superseded,
    belongs,
    download,
    untagged,
)
from millpond.features.online.redis_replica import Replica, entity_key

_log = logging.getLogger("millpond.online")


def entered(connection: Connection, view: str) -> Entered | None:
    """What Redis holds of a view."""
    with connection.errors():
        found = connection.client.hget(connection.keys.views, view)
    return None if found is None else Entered.read(found)


def take_over(connection: Connection, replica: Replica, view: str) -> None:
    """Bring a replica's state of a view to what Redis holds of it.

    Raises:
        Unavailable: Redis does not answer; what was held before is there still.
        StoreMismatch: Redis has lost a part of it.
    """
    before = None
    while True:
        found = entered(connection, view)
        if found is None:
            replica.drop(view)
            collect(replica.environment)
            return
        if replica.staged(view) >= found.operation:
            replica.taken_over(view, found.operation)
            return
        if found.format != FORMAT.decode():
            raise StoreMismatch(
                f"The state of view {found.of.name!r} in Redis has format {found.format}; this version reads "
                f"{FORMAT.decode()}",
                where=connection.where,
                hint="run one version on all servers, and `millpond feature refresh --full`",
            )
        try:
            _take_over(connection, replica, found)
        except Superseded as cause:
            if before == found:
                raise StoreMismatch(
                    f"Redis has lost a part of the state of view {found.of.name!r}",
                    where=connection.where,
                    hint="set maxmemory-policy noeviction, and run `millpond feature refresh --full`",
                ) from cause
            before = found  # another has taken its place meanwhile
        else:
            replica.taken_over(view, found.operation)


def _take_over(connection: Connection, replica: Replica, found: Entered) -> None:
    view, environment = found.of, replica.environment
    staged = replica.staged(view.fingerprint)
    newest = found.newest
    if found.newest.grid is None:
        built = _Copied(connection, replica, view, found)
        since = None if found.since is None else from_microseconds(found.since)
        load_entries(environment, LiveRules.of(view), newest.source, since, found.position or 0, built)
    elif staged < found.generations[0].operation:
        values = _values(connection, view, found.generations)
        grid = from_microseconds(newest.grid or 0)
        publish_packed(environment, view, newest.source, grid, values, full=True)
    else:
        for each in found.generations:
            if each.operation > staged:
                values = _values(connection, view, (each,))
                grid = from_microseconds(each.grid or 0)
                publish_packed(environment, view, each.source, grid, values, full=False)
                _forget_again(connection, replica, view, each)


def _values(
    connection: Connection, view: OnlineView, generations: tuple[Generation, ...]
) -> Iterator[tuple[bytes, bytes]]:
    for generation in generations:
        gone = set(forgotten(connection, view, generation.seen))
        for _, key, value in download(connection, generation):
            if key not in gone:
                yield key, value


def forgotten(connection: Connection, view: OnlineView, after: int) -> list[bytes]:
    """The entities of a view that were forgotten after an operation."""
    codec = KeyCodec(view.entity_keys, view.types)
    found = []
    for operation, data in connection.hash(connection.keys.forgotten).items():
        entity, _, key = data.partition(b"\0")
        if int(operation) > after and entity.decode() == view.entity:
            found.append(codec.encode(entity_key(key)))
    return found


def _forget_again(connection: Connection, replica: Replica, view: OnlineView, generation: Generation) -> None:
    """Delete those who were forgotten between the reading of changed values and their writing."""
    environment, view_id = replica.environment, records.view_id(view)
    gone = forgotten(connection, view, generation.seen)
    if gone:
        with environment.write() as txn:
            head = records.head_of(environment, txn, view_id)
            if head is not None:
                count = sum(txn.delete(head.prefix + each, db=environment.values) for each in gone)
                records.put_head(environment, txn, view_id, head._replace(entities=head.entities - count))


@dataclass
class _Copied:
    """The entries of a live view as Redis has them."""

    connection: Connection
    replica: Replica
    view: OnlineView
    found: Entered
    entities: int = field(init=False)

    def __post_init__(self) -> None:
        self.entities = self.found.entities

    def entries(self) -> Iterator[Entry]:
        for generation in self.found.generations:
            gone = forgotten(self.connection, self.view, generation.seen)
            met: set[bytes] = set()
            for entry in download(self.connection, generation):
                of = next((each for each in gone if belongs(entry, each)), None) if gone else None
                if of is None:
                    yield from untagged(self.replica.environment, [entry])
                elif of not in met:
                    met.add(of)
                    self.entities -= 1
