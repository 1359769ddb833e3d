"""Landing events in the lake, by one server at a time, and what may leave Redis afterwards."""

from __future__ import annotations

import json
import time
from datetime import timedelta

from millpond.core.errors import Conflict, Unavailable
from millpond.features.online.ports import LoggedEvents
from millpond.features.online.redis_connection import Operation
from millpond.features.online.redis_generations import Entered
from millpond.features.online.redis_leases import hold, lease, lives
from millpond.features.online.redis_publishing import end_killed, lease_name, make_one
from millpond.features.online.redis_shared import Shared

#: How long a server may take from `pending` to `land`.
LANDING_SECONDS = 120.0
#: How long to wait for another server that lands.
_PATIENCE_SECONDS = 5.0
_AT_ONCE = 500


def pending(shared: Shared, table: str, limit: int) -> LoggedEvents | None:
    """As `OnlineStore.pending`, while no other server lands events of this table."""
    store = shared.replica.store
    if store.pending(table, 1) is None:
        return None
    _hold(shared, table)
    landed = shared.connection.number(shared.connection.keys.landed, table)
    if not shared.follower.wait(lambda: store.landed(table) >= landed, _PATIENCE_SECONDS):
        raise Unavailable(
            f"This server's replica has not heard yet that events of table {table!r} up to {landed} have landed",
            hint="do it again in a moment",
        )
    found = store.pending(table, limit)
    if found is None:
        shared.connection.release(_name(table), shared.replica.origin)
    return found


def land(shared: Shared, table: str, position: int) -> None:
    """As `OnlineStore.land`."""
    connection = shared.connection
    keys = connection.keys
    _hold(shared, table)
    landed = connection.number(keys.landed, table)
    if position < landed:
        return
    end_killed(shared, lambda made: made["table"] == table and not lives(connection, lease_name(made["view"])))
    commands = [["HSET", keys.landed, table, str(position)], ["HSET", keys.purgeable, table, str(landed)]]
    meta = json.dumps({"table": table, "position": position})
    committed = shared.commit(Operation("land", meta, commands=commands), lease=(_name(table), shared.replica.origin))
    connection.release(_name(table), shared.replica.origin)
    shared.applied(committed.sequence)


def trim(shared: Shared, retention: timedelta) -> int:
    """Take operations from the log that are older than `retention`, whose events have landed, and that no state in
    Redis needs; how many.

    A live view that would need them gets its state in Redis renewed from this server's replica first.
    """
    connection, keys = shared.connection, shared.connection.keys
    count = 0
    while True:
        with connection.errors():
            found = connection.client.xrange(keys.log, count=_AT_ONCE)
        old = time.time() - retention.total_seconds()
        landed, making = connection.hash(keys.landed), connection.hash(keys.making)
        views = {name: Entered.read(data) for name, data in connection.hash(keys.views).items()}
        gone: dict[str, int] = {}
        leaving: list[str] = []
        for id_, fields in found:
            meta, last = json.loads(fields[b"meta"]), int(fields[b"last"])
            if int(fields[b"at"]) > old:
                break
            if fields[b"kind"] == b"events":
                table = meta["table"]
                if last > int(landed.get(table, 0)) or not _renew(shared, views, table, last):
                    break
                if any(_needs(json.loads(each), table, last) for each in making.values()):
                    break
                gone[table] = last
            leaving.append(id_.split(b"-")[0].decode())
        if not leaving:
            break
        commands: list[list[str | bytes]] = [
            ["XTRIM", keys.log, "MINID", f"{int(leaving[-1]) + 1}-0"],
            ["SET", keys.trimmed, leaving[-1]],
            ["HDEL", keys.payloads, *leaving],
        ]
        commands += [["HSET", keys.gone, table, str(last)] for table, last in gone.items()]
        shared.commit(None, commands=commands)
        count += len(leaving)
        if len(leaving) < len(found) or len(found) < _AT_ONCE:
            break
    _drop_forgotten(shared)
    return count


def _renew(shared: Shared, views: dict[str, Entered], table: str, last: int) -> bool:
    """Make sure that no live view's state in Redis is older than an event; whether none is."""
    for name, entry in list(views.items()):
        if entry.position is not None and entry.view["table"] == table and entry.position < last:
            replica = shared.replica
            taken = f"Another process is loading view {entry.of.name!r}"
            try:
                with lease(shared.connection, replica.folder, replica.origin, lease_name(name), taken) as held:
                    done = make_one(shared, held, name)
            except Conflict:
                return False
            with shared.connection.errors():
                found = shared.connection.client.hget(shared.connection.keys.views, name)
            if not done or found is None:
                return False
            views[name] = Entered.read(found)
            if (views[name].position or 0) < last:
                return False
    return True


def _needs(made: dict[str, object], table: str, last: int) -> bool:
    position = made["position"]
    return made["table"] == table and isinstance(position, int) and position < last


def _drop_forgotten(shared: Shared) -> None:
    """Delete the keys of forgotten entities that no state in Redis, or in the making, can have any more."""
    connection, keys = shared.connection, shared.connection.keys
    gone = connection.hash(keys.forgotten)
    if gone and not connection.hash(keys.making):
        entries = [Entered.read(data) for data in connection.hash(keys.views).values()]
        oldest = min((each.seen for entry in entries for each in entry.generations), default=None)
        done = [number for number in gone if oldest is None or int(number) <= oldest]
        if done:
            shared.commit(None, commands=[["HDEL", keys.forgotten, *done]])


def _hold(shared: Shared, table: str) -> None:
    taken = f"Another server is landing events of table {table!r}"
    until = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            hold(shared.connection, shared.replica.origin, _name(table), LANDING_SECONDS, taken)
        except Conflict:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return


def _name(table: str) -> str:
    return f"landing-{table}"
