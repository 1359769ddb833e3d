"""Making and meeting the original: a new one, the one that is known, or one that has lost what it held."""

from __future__ import annotations

import logging
import uuid

from millpond.features.online import records
from millpond.features.online.records import Awaited
from millpond.features.online.redis_connection import Connection
from millpond.features.online.redis_generations import Entered, copy_of
from millpond.features.online.redis_leases import lease
from millpond.features.online.redis_offers import offer
from millpond.features.online.redis_replica import Replica

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
    known, made = replica.epoch, found is None
    if found is None:
        if known:
            _log.warning("%s has lost everything; it gets back what this server's replica holds", connection.where)
        found = _make(connection, replica).encode()
    epoch: str = found.decode()
    if epoch == known and _same_history(connection, replica, int(sequence or 0), int(trimmed or 0)):
        if replica.sequence < int(trimmed or 0):
            _log.warning("The replica in %s is too far behind, and is built anew", replica.folder)
            _begin_again(connection, replica, epoch)
        return epoch
    if known and not made:
        _log.warning(
            "%s has lost operations that were acknowledged: it has %s of %s; this server's replica offers what it "
            "holds, and begins again",
            connection.where, int(sequence or 0), replica.sequence,
        )  # fmt: skip
    offer(connection, replica, epoch, views=not made)
    _begin_again(connection, replica, epoch)
    return epoch


def _same_history(connection: Connection, replica: Replica, there: int, trimmed: int) -> bool:
    """Whether the replica's last operation is the original's of that number, as far as that is in the log still."""
    here, (last, _) = replica.sequence, replica.last
    with connection.errors():
        found = connection.client.xrange(connection.keys.log, f"{here}-0", f"{here}-0")
    if found:
        return not last or found[0][1][b"id"].decode() == last
    return here <= trimmed <= there


def _make(connection: Connection, replica: Replica) -> str:
    """Make the original of a replica: its views, and numbers that go on from its own."""
    keys, environment = connection.keys, replica.environment
    with lease(connection, replica.folder, replica.origin, "original", "Another server makes the original in Redis"):
        with connection.errors():
            found = connection.client.get(keys.epoch)
            if found is not None:
                return str(found.decode())
            of_now = (
                keys.log,
                keys.payloads,
                keys.views,
                keys.making,
                keys.trimmed,
                keys.forgotten,
                keys.gone,
                keys.made_of,
            )
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
