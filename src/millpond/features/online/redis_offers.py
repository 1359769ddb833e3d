"""Offering an original what it has lost, from a replica that has it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

from millpond.features.online import log, pushes, records
from millpond.features.online.events import from_bytes, to_bytes
from millpond.features.online.redis_connection import SEQUENCE, Connection, Operation
from millpond.features.online.redis_generations import Entered, commands_of_deletion, copy_of
from millpond.features.online.redis_leases import lease
from millpond.features.online.redis_replica import Received, Replica, received

_AT_ONCE = 200


@dataclass(frozen=True)
class _Newer:
    """What others did since the original lost its state: it stands.

    Attributes:
        after: Position of the last event that the original and the replica have in common; None: not known.
        keys: Tables, and keys of events that were pushed.
        views: Views that were loaded, published or dropped.
    """

    after: int | None
    keys: set[tuple[str, bytes]] = field(default_factory=set)
    views: set[str] = field(default_factory=set)

    def add(self, operation: Received) -> None:
        meta = operation.meta
        if operation.kind in ("state", "drop"):
            self.views.add(meta["view"])
        elif operation.kind == "events" and operation.payload is not None:
            _, told = pushes.tell(meta["table"], meta["key"], from_bytes(operation.payload))
            self.keys.update((meta["table"], key) for key, _ in told)


def offer(connection: Connection, replica: Replica, epoch: str, *, views: bool) -> None:
    """Append what a replica holds and the original lacks: events that have not landed, and states of views.

    Of replicas with one history only one that is ahead of those before has anything to offer. What was pushed, loaded
    or published since the loss is not undone. Killed half way, it is done again.

    Args:
        connection: The original.
        replica: The replica.
        epoch: Id of the original now.
        views: Whether states of views are offered too.

    Raises:
        Conflict: Another replica is at it.
    """
    keys, known, here = connection.keys, replica.epoch, replica.sequence
    if not _holds_anything(replica):
        return
    taken = "Another server offers Redis what it lost"
    with lease(connection, replica.folder, replica.origin, "original", taken) as held:
        with connection.errors():
            before = json.loads(connection.client.get(keys.made_of) or '{"epoch": "", "sequence": 0}')
        if known and before["epoch"] == known and here <= before["sequence"]:
            return
        newer = _since_parting(connection, replica)
        _go_on_from(connection, replica, epoch, held)
        if views and known and (before["epoch"] in ("", known) or epoch == known):
            _offer_views(connection, replica, epoch, newer)
        _offer_events(connection, replica, epoch, newer)
        whole = not any(each.operation for each in replica.awaited())
        made_of = json.dumps({"epoch": known, "sequence": here if whole else 0})
        connection.commit(epoch, 0, None, lease=held, commands=[["SET", keys.made_of, made_of]])


def _holds_anything(replica: Replica) -> bool:
    environment = replica.environment
    with environment.look() as txn:
        tables = records.tables(environment, txn).values()
        logged = any(next(log.entries(environment, txn, each.prefix, each.landed), None) for each in tables)
        return logged or bool(records.heads(environment, txn))


def _since_parting(connection: Connection, replica: Replica) -> _Newer:
    """What the original has that the replica's history has not."""
    newer = _Newer(None)
    stop = "+"
    while True:
        with connection.errors():
            found = connection.client.xrevrange(connection.keys.log, stop, "-", count=_AT_ONCE)
            operations = received(connection.client, connection, found)
        for each in operations:
            if each.sequence <= replica.sequence and replica.id_of(each.sequence) == each.id:
                return replace(newer, after=each.last)
            if not each.meta.get("again"):
                newer.add(each)
        if len(found) < _AT_ONCE:
            return newer
        stop = f"({found[-1][0].decode()}"


def _go_on_from(connection: Connection, replica: Replica, epoch: str, held: tuple[str, str]) -> None:
    """Raise the original's numbers to the replica's: none is given twice."""
    keys = connection.keys
    with connection.errors():
        sequence, position = (int(each or 0) for each in connection.client.mget(keys.sequence, keys.position))
    commands: list[list[str | bytes]] = []
    if replica.sequence > sequence:
        commands.append(["INCRBY", keys.sequence, str(replica.sequence - sequence)])
    if replica.last[1] > position:
        commands.append(["INCRBY", keys.position, str(replica.last[1] - position)])
    if commands:
        connection.commit(epoch, 0, None, lease=held, commands=commands)
        connection.commit(
            epoch, 0, Operation("unmade", json.dumps({"token": ""})), lease=held
        )  # replicas come up to it


def _offer_views(connection: Connection, replica: Replica, epoch: str, newer: _Newer) -> None:
    keys, environment = connection.keys, replica.environment
    with environment.look() as txn:
        held = [(each, head, records.view_of(environment, txn, each)) for each, head in records.heads(environment, txn)]
    for name, head, view in held:
        copied = None if name.hex() in newer.views else copy_of(connection, replica, name, 0)
        if copied is None:
            continue
        generation, _, entities = copied
        position = None
        if head.live:  # what comes after it in the log is applied on top
            position = max(connection.number(keys.gone, view.table), newer.after or 0)
        at = replace(generation, operation=0)
        entry = Entered(view.describe(), 0, (at,), head.since, position, entities)
        with connection.errors():
            before = connection.client.hget(keys.views, name.hex())
        described: dict[str, Any] = {"view": name.hex(), "table": view.table, "token": "", "position": position}
        commands: list[list[str]] = [["HSET", keys.views, name.hex(), entry.write(SEQUENCE)]]
        commands += commands_of_deletion(connection, Entered.read(before).generations if before else ())
        meta = json.dumps({**described, "again": True})
        connection.commit(epoch, 0, Operation("state", meta, commands=commands))


def _offer_events(connection: Connection, replica: Replica, epoch: str, newer: _Newer) -> None:
    import pyarrow as pa

    environment = replica.environment
    with environment.look() as txn:
        for name, record in records.tables(environment, txn).items():
            for entry in log.entries(environment, txn, record.prefix, record.landed):
                rows = entry.rows(record.landed)
                _, told = pushes.tell(name, record.key, rows)
                kept = [index for index, (key, _) in enumerate(told) if (name, key) not in newer.keys]
                if kept:
                    rows = rows.take(pa.array(kept, pa.int64()))
                    meta = {"table": name, "key": list(record.key), "events": len(kept), "again": True}
                    connection.commit(epoch, 0, Operation("events", json.dumps(meta), len(kept), to_bytes(rows)))
