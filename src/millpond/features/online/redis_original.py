"""Making and meeting the original: a new one, the one that is known, or one that has lost what it held."""

from __future__ import annotations

import json
import logging
import uuid
from typing import Any

from millpond.features.online import log, records
from millpond.features.online.events import to_bytes
from millpond.features.online.records import Awaited
from millpond.features.online.redis_connection import Connection, Operation
from millpond.features.online.redis_generations import Entered, Generation, held, tagged, upload
from millpond.features.online.redis_leases import lease
from millpond.features.online.redis_replica import Received, Replica

_log = logging.getLogger("millpond.online")


def meet(connection: Connection, replica: Replica) -> str:
    """Make sure that a replica is one of the original and can go on from where it is; the original's id.

    An original that is not there is made of the replica. One that lost what the replica has, or another one, is
    offered the events that have not landed in the lake, and the replica then begins again from it.

    Raises:
        Unavailable: Redis does not answer.
        Conflict: Another server makes the original just now.
    """
    keys = connection.keys
    connection.check_durability()
    with connection.errors():
        found, sequence, trimmed = connection.client.mget(keys.epoch, keys.sequence, keys.trimmed)
    known = replica.epoch
    if found is None:
        if known:
            _log.warning("%s has lost everything; it gets back what this server's replica holds", connection.where)
        found = _make(connection, replica).encode()
    epoch: str = found.decode()
    if epoch == known and int(sequence or 0) >= replica.sequence and _same_history(connection, replica):
        if replica.sequence < int(trimmed or 0):
            _log.warning("The replica in %s is too far behind, and is built anew", replica.folder)
            _begin_again(connection, replica, epoch)
        return epoch
    if known:
        _log.warning(
            "%s has lost operations that were acknowledged: it has %s of %s; events that have not landed in the lake "
            "are offered to it again, and the replica begins again from it",
            connection.where, int(sequence or 0), replica.sequence,
        )  # fmt: skip
    _offer_again(connection, replica, epoch)
    _begin_again(connection, replica, epoch)
    return epoch


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


def received(client: Any, connection: Connection, entries: list[Any]) -> list[Received]:
    """Operations of the log, with what is kept beside it."""
    found = [(int(id_.split(b"-")[0]), fields) for id_, fields in entries]
    with_payload = [sequence for sequence, fields in found if fields[b"kind"] == b"events"]
    payloads = {}
    if with_payload:
        kept = client.hmget(connection.keys.payloads, [str(each) for each in with_payload])
        payloads = dict(zip(with_payload, kept, strict=True))
    return [
        Received(
            sequence,
            fields[b"kind"].decode(),
            int(fields[b"last"]),
            fields[b"id"].decode(),
            json.loads(fields[b"meta"]),
            payloads.get(sequence),
        )
        for sequence, fields in found
    ]


def _same_history(connection: Connection, replica: Replica) -> bool:
    """Whether the replica's last operation is the original's of that number, as far as that is in the log still."""
    last, _ = replica.last
    name = f"{replica.sequence}-0"
    with connection.errors():
        found = connection.client.xrange(connection.keys.log, name, name)
    return not last or not found or found[0][1][b"id"].decode() == last


def _make(connection: Connection, replica: Replica) -> str:
    """Make the original of a replica: its views, and numbers that go on from its own."""
    keys, environment = connection.keys, replica.environment
    with lease(connection, replica.folder, replica.origin, "original", "Another server makes the original in Redis"):
        with connection.errors():
            found = connection.client.get(keys.epoch)
            if found is not None:
                return str(found.decode())
            of_now = (keys.log, keys.payloads, keys.views, keys.making, keys.trimmed, keys.forgotten, keys.gone)
            connection.client.unlink(*of_now, keys.landed, keys.purgeable)
        sequence = max(replica.sequence, 1)
        _, position = replica.last
        with environment.look() as txn:
            heads = records.heads(environment, txn)
            views = {view: records.view_of(environment, txn, view) for view, _ in heads}
            tables = list(records.tables(environment, txn))
        for view, head in heads:
            copied = copy_of(connection, replica, view, 0)
            if copied is not None:
                generation, at, entities = copied
                one = Entered(
                    view=views[view].describe(),
                    operation=generation.operation,
                    generations=(generation,),
                    since=head.since,
                    position=at if head.live else None,
                    entities=entities,
                )
                with connection.errors():
                    connection.client.hset(keys.views, view.hex(), one.write())
        epoch = uuid.uuid4().hex
        with connection.errors():
            pipeline = connection.client.pipeline(transaction=True)
            for table in tables:  # what has not landed is offered again, at later positions
                for key in (keys.landed, keys.purgeable, keys.gone):
                    pipeline.hset(key, table, position)
            pipeline.mset({keys.sequence: sequence, keys.trimmed: sequence, keys.position: position, keys.epoch: epoch})
            pipeline.execute()
        return epoch


def _offer_again(connection: Connection, replica: Replica, epoch: str) -> None:
    """Append the replica's events that have not landed; replicas that have them apply them no second time."""
    environment = replica.environment
    with environment.look() as txn:
        for name, record in records.tables(environment, txn).items():
            for entry in log.entries(environment, txn, record.prefix, record.landed):
                rows = entry.rows(record.landed)
                meta = {"table": name, "key": list(record.key), "events": rows.num_rows, "origin": ""}
                connection.commit(epoch, 0, Operation("events", json.dumps(meta), rows.num_rows, to_bytes(rows)))


def _begin_again(connection: Connection, replica: Replica, epoch: str) -> None:
    """Set a replica to the beginning of the original's log."""
    keys = connection.keys
    with connection.errors():
        pipeline = connection.client.pipeline(transaction=True)
        for each in (keys.landed, keys.purgeable, keys.gone, keys.views):
            pipeline.hgetall(each)
        pipeline.get(keys.trimmed)
        landed, purgeable, gone, views, trimmed = pipeline.execute()
    tables = {
        name.decode(): (int(landed.get(name, 0)), int(purgeable.get(name, 0)), int(gone.get(name, 0)))
        for name in {*landed, *gone}
    }
    awaited = []
    for name, data in views.items():
        found = Entered.read(data)
        awaited.append(Awaited(bytes.fromhex(name.decode()), found.operation, found.view["table"], found.position))
    replica.begin_again(epoch, int(trimmed or 0), tables, awaited)
