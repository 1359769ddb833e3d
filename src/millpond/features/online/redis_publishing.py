"""Putting whole states of views in place for all servers at once."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from millpond.core.errors import Conflict, MillpondError
from millpond.core.time import to_microseconds
from millpond.features.online.applying import LiveRules
from millpond.features.online.loads import LiveEntries, packed_entries
from millpond.features.online.packing import Packing
from millpond.features.online.ports import OnlineView, ViewState
from millpond.features.online.redis_connection import SEQUENCE, Operation
from millpond.features.online.redis_generations import (
    Entered,
    Generation,
    commands_of_deletion,
    copy_of,
    tagged,
    upload,
)
from millpond.features.online.redis_leases import lease
from millpond.features.online.redis_shared import Shared
from millpond.features.online.redis_staging import entered

if TYPE_CHECKING:
    import pyarrow as pa

#: More generations of changed values than this are made one.
_MOST_GENERATIONS = 8


@dataclass(frozen=True)
class Making:
    """A state that is being made.

    Attributes:
        token: Drawn for it; also the id of its generation.
        lease: That nobody else makes one of this view.
        seen: The last operation before it was begun.
    """

    token: str
    lease: tuple[str, str]
    seen: int


def load(
    shared: Shared, view: OnlineView, source: int, since: datetime | None, position: int, rows: pa.RecordBatchReader
) -> ViewState:
    """As `OnlineStore.load`."""
    with _making(shared, view, position) as making:
        built = LiveEntries(LiveRules.of(view), shared.replica.environment, rows)
        chunks = upload(shared.connection, making.token, tagged(shared.replica.environment, built.entries()))
        entry = Entered(
            view=view.describe(),
            operation=0,
            generations=(Generation(making.token, chunks, making.seen, 0, source, None),),
            since=None if since is None else to_microseconds(since),
            position=position,
            entities=built.entities,
        )
        return _put_in_place(shared, making, view, entry, entered(shared.connection, view.fingerprint))


def publish(
    shared: Shared, view: OnlineView, source: int, grid: datetime, rows: pa.RecordBatchReader, *, full: bool
) -> ViewState:
    """As `OnlineStore.publish`."""
    with _making(shared, view, None) as making:
        before = entered(shared.connection, view.fingerprint)
        at = to_microseconds(grid)
        if not full and before is not None and (before.newest.grid or at) > at:
            raise Conflict(
                f"View {view.name!r} already has the values of a later grid point than {grid.isoformat()}",
                hint="compute them again at the newest grid point, or publish all of them",
            )
        values = packed_entries(Packing.of_features(view), rows)
        chunks = upload(shared.connection, making.token, ((b"v", key, value) for key, value in values))
        generation = Generation(making.token, chunks, making.seen, 0, source, at)
        kept = before.generations if before is not None and not full else ()
        entry = Entered(view.describe(), 0, (*kept, generation), None, None, 0)
        state = _put_in_place(shared, making, view, entry, before)
        if len(entry.generations) > _MOST_GENERATIONS:
            make_one(shared, making.lease, view.fingerprint)
        return state


def drop(shared: Shared, view: OnlineView) -> None:
    """As `OnlineStore.drop`."""
    name = view.fingerprint
    with _lease(shared, view) as held:
        before = entered(shared.connection, name)
        if before is None and shared.replica.state(view) is None:
            return
        commands = [["HDEL", shared.connection.keys.views, name]]
        commands += commands_of_deletion(shared.connection, before.generations if before else ())
        operation = Operation("drop", json.dumps({"view": name}), commands=commands)
        shared.applied(shared.commit(operation, lease=held).sequence)


def make_one(shared: Shared, held: tuple[str, str], view: str) -> bool:
    """Put one generation, copied from this server's replica, in place of those of a view; whether it could be done.

    Replicas that have the state already take no notice; others begin with it.
    """
    before = entered(shared.connection, view)
    if before is None:
        return False
    copied = copy_of(shared.connection, shared.replica, bytes.fromhex(view), before.operation)
    if copied is None:
        return False
    generation, position, entities = copied
    live = before.position is not None
    after = before.whole(generation, position if live else None, entities if live else 0)
    commands = [["HSET", shared.connection.keys.views, view, after.write()]]
    commands += commands_of_deletion(shared.connection, before.generations)
    shared.commit(None, lease=held, commands=commands)
    return True


def end_killed(shared: Shared, chosen: Callable[[dict[str, str]], bool]) -> None:
    """Delete what was being made by processes that are gone."""
    keys = shared.connection.keys
    for token, data in shared.connection.hash(keys.making).items():
        made = json.loads(data)
        if chosen(made):
            _unmake(shared, token, made["table"])


def lease_name(view: str) -> str:
    """The lease for writing states of a view."""
    return f"view-{view}"


@contextmanager
def _lease(shared: Shared, view: OnlineView) -> Iterator[tuple[str, str]]:
    taken = f"Another process is loading or publishing view {view.name!r}"
    replica = shared.replica
    name = lease_name(view.fingerprint)
    with lease(shared.connection, replica.folder, replica.origin, name, taken) as held:
        yield held


@contextmanager
def _making(shared: Shared, view: OnlineView, position: int | None) -> Iterator[Making]:
    """Make a new state of a view; what is not put in place in the block is deleted.

    Raises:
        Conflict: Another makes one of this view, or events after `position` have left the log already.
    """
    connection, name = shared.connection, view.fingerprint
    keys = connection.keys
    with _lease(shared, view) as held:
        end_killed(shared, lambda made: made["view"] == name)
        token = uuid.uuid4().hex
        meta = json.dumps({"token": token, "view": name, "table": view.table, "position": position})
        commands = [["HSET", keys.making, token, meta]]
        seen = shared.commit(Operation("making", meta, commands=commands), lease=held).sequence
        try:
            if position is not None and _gone(shared, view.table) > position:  # from now on they stay
                raise Conflict(
                    f"Events of table {view.table!r} landed in the lake after the snapshot for view {view.name!r} "
                    "was taken, and have left the log",
                    hint="run it again: it will read a newer snapshot",
                )
            yield Making(token, held, seen)
        except BaseException:
            with suppress(MillpondError):  # the next one clears up
                _unmake(shared, token, view.table)
            raise


def _gone(shared: Shared, table: str) -> int:
    keys = shared.connection.keys
    return max(shared.connection.number(keys.purgeable, table), shared.connection.number(keys.gone, table))


def _unmake(shared: Shared, token: str, table: str) -> None:
    keys = shared.connection.keys
    commands = [["HDEL", keys.making, token], ["UNLINK", keys.generation(token)]]
    if shared.connection.hash(keys.making).get(token) is not None:
        shared.commit(Operation("unmade", json.dumps({"token": token, "table": table}), commands=commands))


def _put_in_place(
    shared: Shared, making: Making, view: OnlineView, entry: Entered, before: Entered | None
) -> ViewState:
    keys, name = shared.connection.keys, view.fingerprint
    kept = {each.id for each in entry.generations}
    old = [each for each in before.generations if each.id not in kept] if before else []
    described = {"view": name, "table": view.table, "token": making.token, "position": entry.position}
    commands = [["HSET", keys.views, name, entry.write(SEQUENCE)], ["HDEL", keys.making, making.token]]
    commands += commands_of_deletion(shared.connection, old)
    committed = shared.commit(Operation("state", json.dumps(described), commands=commands), lease=making.lease)
    shared.follower.refusals.pop(name, None)
    shared.taken_over(name, committed.sequence)
    state = shared.replica.state(view)
    if state is None:
        raise Conflict(f"View {view.name!r} was dropped meanwhile")
    return state
