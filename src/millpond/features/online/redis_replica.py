"""What a server's LMDB store notes as a replica, and how operations of the original are applied to it."""

from __future__ import annotations

import json
import logging
import struct
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from millpond.core import errors
from millpond.core.errors import MillpondError, Unavailable
from millpond.features.online import log, pushes, records
from millpond.features.online.applying import LiveRules
from millpond.features.online.bulk import needed
from millpond.features.online.environment import MAP_SIZE, acquire, release
from millpond.features.online.events import from_bytes, to_bytes
from millpond.features.online.forgetting import SEEN, Forgetting, drop
from millpond.features.online.lmdb import LmdbStore
from millpond.features.online.ports import EntityKey, OnlineView, Pushed, ViewState
from millpond.features.online.records import Awaited
from millpond.features.online.redis_connection import Connection
from millpond.features.online.transactions import clear

if TYPE_CHECKING:
    import pyarrow as pa

_log = logging.getLogger("millpond.online")

_EPOCH, _SEQUENCE, _LAST, _ORIGIN = b"replica/epoch", b"replica/sequence", b"replica/last", b"replica/origin"
_STAGED, _RESULT = b"replica/staged/", b"replica/result/"
_NUMBER = struct.Struct(">Q")
#: Operations whose id is kept, to find where histories part, and their results, for those who wait for them.
_RESULTS = 20_000


class Received(NamedTuple):
    """An operation as it was read from the log.

    Attributes:
        sequence: Its number.
        kind: events, land, making, unmade, state, forget or drop.
        last: Position of the last event, then.
        id: Drawn for it.
        meta: What it says.
        payload: What was kept beside the log; None where nothing is.
    """

    sequence: int
    kind: str
    last: int
    id: str
    meta: dict[str, Any]
    payload: bytes | None


class Replica:
    """An LMDB store that follows an original. Safe across threads and processes; see `LmdbStore`."""

    def __init__(self, store: LmdbStore) -> None:
        self.store = store
        self.folder = store.folder
        self.environment = acquire(store.folder, MAP_SIZE)
        self._rules: dict[bytes, LiveRules] = {}
        with self.environment.write() as txn:
            self._put(txn, _ORIGIN, uuid.uuid4().hex.encode(), overwrite=False)
        self.origin = self._get(_ORIGIN).decode()

    def close(self) -> None:
        release(self.environment)

    @property
    def epoch(self) -> str:
        """The original that this is a replica of; "" where of none yet."""
        return self._get(_EPOCH).decode()

    @property
    def sequence(self) -> int:
        """The last operation that was applied."""
        found = self._get(_SEQUENCE)
        return int(_NUMBER.unpack(found)[0]) if found else 0

    @property
    def last(self) -> tuple[str, int]:
        """Id of the last operation that was applied, and the position of the last event."""
        with self.environment.look() as txn:
            return self._in(txn, _LAST).decode(), records.counted(self.environment, txn, b"position")

    def awaited(self) -> list[Awaited]:
        """States of views that are to be taken over, and those that are being made."""
        with self.environment.look() as txn:
            return records.awaited(self.environment, txn)

    def staged(self, view: str) -> int:
        """Number of the operation whose state of a view was taken over; 0 is none."""
        found = self._get(_STAGED + view.encode())
        return int(_NUMBER.unpack(found)[0]) if found else 0

    def moment(self, txn: Any, view: str) -> tuple[int, int]:
        """Within a transaction: the last operation that was applied, and the one whose state of a view is here."""
        return self._number(txn, _SEQUENCE), self._number(txn, _STAGED + view.encode())

    def state(self, view: OnlineView) -> ViewState | None:
        with self.store.read() as reading:
            return reading.state(view)

    def rules(self, view: bytes) -> LiveRules:
        """The rules of a live view that is held."""
        found = self._rules.get(view)
        if found is None:
            with self.environment.look() as txn:
                found = self._rules[view] = LiveRules.of(records.view_of(self.environment, txn, view))
        return found

    def fresh(self, table: str, key: Sequence[str], rows: pa.Table) -> tuple[list[int], int]:
        """Refuse events that could not be applied; which are new here, and the last position of those that are not.

        Raises:
            MillpondError: As `OnlineStore.push`.
        """
        names, told = pushes.tell(table, key, rows)
        fresh: list[int] = []
        latest = 0
        with self.environment.look() as txn:
            record = records.table_of(self.environment, txn, table)
            states: dict[bytes, bytes] = {}
            for index, (encoded, digest) in enumerate(told):
                seen = None
                if record is not None and record.key == names:
                    seen = txn.get(record.prefix + encoded, db=self.environment.seen)
                if states.get(encoded, seen[:16] if seen else None) != digest:
                    fresh.append(index)
                elif encoded not in states and seen:
                    latest = max(latest, SEEN.unpack(seen)[1])
                states[encoded] = digest
            heads = records.heads(self.environment, txn)
        for view, head in heads:
            if head.live and record is not None and head.table == record.id:
                rules = self.rules(view)
                rules.check_key(names)
                rules.rows.take(rows)
        return fresh, latest

    def apply(self, operations: Sequence[Received]) -> None:
        """Apply operations in order, each once, all in one durable transaction.

        One that cannot be applied does nothing on any replica, and who sent it is told.
        """
        prepared = [(each, self._prepare(each)) for each in operations]
        with self.environment.write() as txn:
            done = self._number(txn, _SEQUENCE)
            for each, rows in prepared:
                if each.sequence <= done:
                    continue
                try:
                    with self.environment.env.begin(write=True, parent=txn) as part:
                        result = self._apply(part, each, rows)
                except Unavailable:
                    raise
                except MillpondError as error:
                    _log.error("Operation %s (%s) was not applied: %s", each.sequence, each.kind, error)
                    result = error.to_dict()
                self._put(txn, _SEQUENCE, _NUMBER.pack(each.sequence))
                self._put(txn, _LAST, each.id.encode())
                records.count_to(self.environment, txn, b"position", each.last)
                kept = result if each.meta.get("origin") == self.origin else {}
                self._put(txn, _RESULT + _NUMBER.pack(each.sequence), json.dumps({**kept, "id": each.id}).encode())
            self._drop_results(txn, prepared[-1][0].sequence - _RESULTS if prepared else 0)

    def result(self, sequence: int) -> dict[str, Any]:
        """What applying an operation of this server gave.

        Raises:
            MillpondError: It could not be applied.
        """
        found: dict[str, Any] = json.loads(self._get(_RESULT + _NUMBER.pack(sequence)) or "{}")
        if "error" in found:
            raise getattr(errors, found["error"])(found["what"], where=found["where"], hint=found["hint"])
        found.pop("id", None)
        return found

    def id_of(self, sequence: int) -> str:
        """Id of an operation that was applied; "" where that was long ago, or was never."""
        return str(json.loads(self._get(_RESULT + _NUMBER.pack(sequence)) or "{}").get("id", ""))

    def taken_over(self, view: str, operation: int) -> None:
        """Note that the state of a view that an operation put in place is here."""
        with self.environment.write() as txn:
            self._put(txn, _STAGED + view.encode(), _NUMBER.pack(operation))
            name = bytes.fromhex(view)
            for each in records.awaited(self.environment, txn):
                if each.name == name and each.operation <= operation:
                    records.drop_awaited(self.environment, txn, name)

    def drop(self, view: str) -> None:
        """Delete what is held of a view that the original holds no more."""
        with self.environment.write() as txn:
            self._drop(txn, view)

    def begin_again(self, epoch: str, sequence: int, landed: dict[str, tuple[int, int, int]],
                    views: Sequence[Awaited]) -> None:  # fmt: skip
        """Become a replica of an original from the beginning of its log on, with states still to be taken over.

        What is held of its views stays readable until then; all else goes.

        Args:
            epoch: The original.
            sequence: The operation before the first of its log.
            landed: Of each table: `landed`, what it was before, and up to where events have left the log.
            views: The views that it holds.
        """
        environment = self.environment
        with environment.write() as txn:
            for name, record in records.tables(environment, txn).items():
                clear(txn, environment.seen, record.prefix)
                clear(txn, environment.log, record.prefix)
                records.put_table(environment, txn, name, records.TableRecord(record.id, record.key))
            for name, (position, before, gone) in landed.items():
                record = records.ensure_table(environment, txn, name, ())
                changed = records.TableRecord(record.id, record.key, position, min(before, position), gone)
                records.put_table(environment, txn, name, changed)
            for each in records.awaited(environment, txn):
                records.drop_awaited(environment, txn, each.name)
            held = {each.name for each in views}
            for view, _ in records.heads(environment, txn):
                if view not in held:
                    self._drop(txn, view.hex())
                txn.delete(_STAGED + view.hex().encode(), db=environment.meta)
            for each in views:
                records.put_awaited(environment, txn, each)
            clear(txn, environment.meta, _RESULT)
            self._put(txn, _EPOCH, epoch.encode())
            self._put(txn, _SEQUENCE, _NUMBER.pack(sequence))
            self._put(txn, _LAST, b"")

    def _prepare(self, operation: Received) -> Any:
        """What can be done before the transaction."""
        if operation.kind == "events" and operation.payload is not None:
            rows = from_bytes(operation.payload)
            meta = operation.meta
            positions = (rows.schema.metadata or {}).get(b"positions")
            first = operation.last - meta["events"] + 1
            numbers = json.loads(positions) if positions else range(first, operation.last + 1)
            try:
                return rows, pushes.tell(meta["table"], meta["key"], rows), list(numbers)
            except MillpondError:
                return rows, None, []
        return None

    def _apply(self, txn: Any, operation: Received, rows: Any) -> dict[str, Any]:
        meta = operation.meta
        return _APPLY[operation.kind](self, txn, operation, meta, rows) or {}

    def _events(self, txn: Any, operation: Received, meta: dict[str, Any], prepared: Any) -> dict[str, Any]:
        if prepared is None:  # forgotten, or landed and trimmed
            return Pushed(operation.last, 0, meta["events"])._asdict()
        rows, told, positions = prepared
        if told is None:
            told = pushes.tell(meta["table"], meta["key"], rows)  # raises
        key, digests = told
        return pushes.apply(self.environment, txn, self.rules, meta["table"], key, rows, digests, positions)._asdict()

    def _land(self, txn: Any, _: Received, meta: dict[str, Any], __: Any) -> None:
        log.land(self.environment, txn, meta["table"], meta["position"])
        log.purge(self.environment, txn, meta["table"], needed(self.environment, txn, meta["table"]))

    def _making(self, txn: Any, _: Received, meta: dict[str, Any], __: Any) -> None:
        awaited = Awaited(meta["token"].encode(), 0, meta["table"], meta["position"])
        records.put_awaited(self.environment, txn, awaited)

    def _unmade(self, txn: Any, _: Received, meta: dict[str, Any], __: Any) -> None:
        records.drop_awaited(self.environment, txn, meta["token"].encode())

    def _state(self, txn: Any, operation: Received, meta: dict[str, Any], __: Any) -> None:
        records.drop_awaited(self.environment, txn, meta["token"].encode())
        awaited = Awaited(bytes.fromhex(meta["view"]), operation.sequence, meta["table"], meta["position"])
        if self._number(txn, _STAGED + meta["view"].encode()) < operation.sequence:
            records.put_awaited(self.environment, txn, awaited)

    def _forget(self, txn: Any, _: Received, meta: dict[str, Any], __: Any) -> dict[str, Any]:
        key = entity_key(bytes.fromhex(meta["key"]))
        return {"count": Forgetting(self.environment, txn, self.rules).forget(meta["entity"], key)}

    def _drop_view(self, txn: Any, operation: Received, meta: dict[str, Any], _: Any) -> None:
        if self._number(txn, _STAGED + meta["view"].encode()) < operation.sequence:
            self._drop(txn, meta["view"])

    def _drop(self, txn: Any, view: str) -> None:
        name = bytes.fromhex(view)
        if txn.get(name, db=self.environment.views) is not None:
            drop(self.environment, txn, records.view_of(self.environment, txn, name))
        records.drop_awaited(self.environment, txn, name)
        txn.delete(_STAGED + view.encode(), db=self.environment.meta)

    def _drop_results(self, txn: Any, before: int) -> None:
        cursor = txn.cursor(self.environment.meta)
        found = cursor.set_range(_RESULT)
        while found and cursor.key().startswith(_RESULT) and _NUMBER.unpack(cursor.key()[len(_RESULT) :])[0] < before:
            found = cursor.delete()

    def _get(self, name: bytes) -> bytes:
        with self.environment.look() as txn:
            return self._in(txn, name)

    def _in(self, txn: Any, name: bytes) -> bytes:
        found: bytes | None = txn.get(name, db=self.environment.meta)
        return found or b""

    def _number(self, txn: Any, name: bytes) -> int:
        found = self._in(txn, name)
        return int(_NUMBER.unpack(found)[0]) if found else 0

    def _put(self, txn: Any, name: bytes, value: bytes, *, overwrite: bool = True) -> None:
        txn.put(name, value, overwrite=overwrite, db=self.environment.meta)


_APPLY: dict[str, Callable[..., dict[str, Any] | None]] = {
    "events": Replica._events,
    "land": Replica._land,
    "making": Replica._making,
    "unmade": Replica._unmade,
    "state": Replica._state,
    "forget": Replica._forget,
    "drop": Replica._drop_view,
}


def key_bytes(key: EntityKey) -> bytes:
    """An entity's key with its types."""
    import pyarrow as pa

    return to_bytes(pa.table({f"k{index}": [value] for index, value in enumerate(key)}))


def entity_key(data: bytes) -> EntityKey:
    """The key that `key_bytes` wrote."""
    return tuple(from_bytes(data).to_pylist()[0].values())


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
