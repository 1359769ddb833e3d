"""Loading a live view, and publishing the values of a view with a refresh grid."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from millpond.core.errors import Conflict, DataError
from millpond.core.time import now, to_microseconds
from millpond.features.online import log, records
from millpond.features.online.applying import LiveRules
from millpond.features.online.bulk import Generation, alone, generation
from millpond.features.online.environment import Environment
from millpond.features.online.keys import KeyCodec
from millpond.features.online.packing import Packing
from millpond.features.online.ports import OnlineView, ViewState
from millpond.features.online.records import Head

if TYPE_CHECKING:
    import pyarrow as pa

#: Events replayed before the last transaction of a load until no more than this are left for it.
_REPLAY = 2_000
#: Packed values that an incremental publication holds in memory; more of them are staged in the store.
_IN_MEMORY_BYTES = 16 << 20


class CountedEntries(Protocol):
    """Entries of a live view's new state. Attribute `entities`: how many entities those had that were given."""

    entities: int

    def entries(self) -> Iterator[tuple[Any, bytes, bytes]]:
        """Maps, keys without prefix, and values; once."""
        ...


def load(
    environment: Environment,
    rules: LiveRules,
    source: int,
    since: datetime | None,
    position: int,
    rows: pa.RecordBatchReader,
) -> ViewState:
    """As `OnlineStore.load`."""
    built = LiveEntries(rules, environment, rows)
    return load_entries(environment, rules, source, since, position, built)


def load_entries(
    environment: Environment,
    rules: LiveRules,
    source: int,
    since: datetime | None,
    position: int,
    built: CountedEntries,
) -> ViewState:
    """Put a live view's entries in place, and replay the log after `position` on top of them."""
    view = rules.view
    with generation(environment, view, position) as new:
        new.write(built.entries())
        done, grown = position, 0
        while True:
            with environment.write() as txn:
                _forget_again(new, txn, rules)
                events = _next_events(environment, txn, view.table, done)
                for entry, each in events:
                    grown += rules.apply(environment, txn, new.prefix, each)
                    done = entry.last
                if sum(each.num_rows for _, each in events) < _REPLAY:
                    head = Head(
                        prefix=new.prefix,
                        table=_table_id(environment, txn, view),
                        live=True,
                        position=done,
                        source=source,
                        refreshed_at=to_microseconds(now()),
                        grid=None,
                        since=None if since is None else to_microseconds(since),
                        entities=built.entities + grown,
                    )
                    return _make_current(new, txn, view, head)


def publish(
    environment: Environment,
    schema: Packing,
    source: int,
    grid: datetime,
    rows: pa.RecordBatchReader,
    *,
    full: bool,
) -> ViewState:
    """As `OnlineStore.publish`."""
    return publish_packed(environment, schema.view, source, grid, packed_entries(schema, rows), full=full)


def publish_packed(
    environment: Environment,
    view: OnlineView,
    source: int,
    grid: datetime,
    packed: Iterator[tuple[bytes, bytes]],
    *,
    full: bool,
) -> ViewState:
    """As `publish`, of entities' keys and packed values; of a key that comes twice the later value counts."""
    return (_publish_full if full else _publish_changes)(environment, view, source, grid, packed)


def _publish_full(
    environment: Environment, view: OnlineView, source: int, grid: datetime, packed: Iterator[tuple[bytes, bytes]]
) -> ViewState:
    with generation(environment, view, None) as new:
        count = new.write((environment.values, *each) for each in packed)
        with environment.write() as txn:
            for entity in records.forgotten(environment, txn, new.intent.view):
                count -= txn.delete(new.prefix + entity, db=environment.values)
            return _make_current(new, txn, view, _published(environment, txn, view, new.prefix, source, grid, count))


def _publish_changes(
    environment: Environment, view: OnlineView, source: int, grid: datetime, packed: Iterator[tuple[bytes, bytes]]
) -> ViewState:
    """Few changes go into the current generation in one transaction; many are staged as a generation before."""
    changes: list[tuple[bytes, bytes]] = []
    size = 0
    for key, value in packed:
        changes.append((key, value))
        size += len(key) + len(value)
        if size > _IN_MEMORY_BYTES:
            with generation(environment, view, None) as staged:
                staged.write((environment.values, *each) for each in changes)
                staged.write((environment.values, *each) for each in packed)
                with environment.write() as txn:
                    for entity in records.forgotten(environment, txn, staged.intent.view):
                        txn.delete(staged.prefix + entity, db=environment.values)
                    state = _change(environment, txn, view, source, grid, _read(environment, txn, staged.prefix))
                    staged.done(txn, staged.prefix)
                    return state
    with alone(environment.folder, view), environment.write() as txn:
        records.ensure_table(environment, txn, view.table, view.row_keys)
        return _change(environment, txn, view, source, grid, iter(changes))


def _change(
    environment: Environment,
    txn: Any,
    view: OnlineView,
    source: int,
    grid: datetime,
    changes: Iterator[tuple[bytes, bytes]],
) -> ViewState:
    view_id = records.view_id(view)
    before = records.head_of(environment, txn, view_id)
    if before is not None and before.grid is not None and before.grid > to_microseconds(grid):
        raise Conflict(
            f"View {view.name!r} already has the values of a later grid point than {grid.isoformat()}",
            hint="compute them again at the newest grid point, or publish all of them",
        )
    prefix = before.prefix if before else records.new_prefix(environment, txn)
    held = txn.stat(environment.values)["entries"]
    for key, value in changes:
        txn.put(prefix + key, value, db=environment.values)
    count = (before.entities if before else 0) + txn.stat(environment.values)["entries"] - held
    head = _published(environment, txn, view, prefix, source, grid, count)
    records.put_view(environment, txn, view)
    records.put_head(environment, txn, view_id, head)
    return head.state(view)


def _read(environment: Environment, txn: Any, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The values of a generation; what is written meanwhile has another prefix."""
    key = prefix
    while True:
        chunk: list[tuple[bytes, bytes]] = []
        cursor = txn.cursor(environment.values)
        if cursor.set_range(key):
            for found, value in cursor.iternext():
                if not found.startswith(prefix) or len(chunk) >= 10_000:
                    break
                chunk.append((found[len(prefix) :], value))
        if not chunk:
            return
        key = prefix + chunk[-1][0] + b"\0"
        yield from chunk


def packed_entries(schema: Packing, rows: pa.RecordBatchReader) -> Iterator[tuple[bytes, bytes]]:
    keys = KeyCodec(schema.view.entity_keys, schema.view.types)
    for batch in rows:
        for key, value in zip(keys.encode_columns(batch), schema.pack(batch), strict=True):
            if key is None:
                raise DataError(
                    f"Values of view {schema.view.name!r} come with null in the key of entity {schema.view.entity!r}"
                )
            yield key, value


class LiveEntries:
    """The entries of a live view's new state, made of rows in one pass; counts entities on the way."""

    def __init__(self, rules: LiveRules, environment: Environment, rows: pa.RecordBatchReader) -> None:
        self.entities = 0
        self._rules = rules
        self._environment = environment
        self._rows = rows
        self._last = b""
        self._places: list[tuple[Any, bytes, bytes]] = []

    def entries(self) -> Iterator[tuple[Any, bytes, bytes]]:
        import pyarrow as pa

        schema = self._rules.rows.take(self._rows.schema.empty_table()).schema
        rows = pa.RecordBatchReader.from_batches(schema, self._pass_on())
        for key, value in self._rules.live.build(rows, self._entity):
            yield self._environment.live, key, value
            if self._places:
                places, self._places = self._places, []
                yield from places
        yield from self._places

    def _entity(self, key: tuple[Any, ...]) -> bytes:
        encoded = self._rules.rows.entities.encode(key)
        if encoded != self._last:  # rows come entity by entity
            self.entities += 1
            self._last = encoded
        return encoded

    def _pass_on(self) -> Iterator[pa.RecordBatch]:
        rules = self._rules.rows
        for batch in self._rows:
            taken = rules.take(batch)
            if rules.view.row_keys:
                for key, place in zip(rules.keys.encode_columns(taken), rules.places(taken), strict=True):
                    if key is not None and place is not None:
                        self._places.append((self._environment.places, key, place.to_bytes()))
            yield from taken.to_batches()


def _next_events(environment: Environment, txn: Any, table: str, done: int) -> list[tuple[log.Entry, pa.Table]]:
    found: list[tuple[log.Entry, pa.Table]] = []
    record = records.table_of(environment, txn, table)
    if record is not None:
        count = 0
        for entry in log.entries(environment, txn, record.prefix, done):
            found.append((entry, entry.rows(done)))
            count += found[-1][1].num_rows
            if count >= _REPLAY:
                break
    return found


def _forget_again(new: Generation, txn: Any, rules: LiveRules) -> None:
    """Delete from the new state the entities that were deleted since it was begun."""
    from millpond.features.online.forgetting import forget_live

    for entity in records.forgotten(new.environment, txn, new.intent.view):
        forget_live(new.environment, txn, rules, new.prefix, entity)
        records.unmark_forgotten(new.environment, txn, new.intent.view, entity)


def _table_id(environment: Environment, txn: Any, view: OnlineView) -> int:
    return records.ensure_table(environment, txn, view.table, view.row_keys).id


def _published(
    environment: Environment, txn: Any, view: OnlineView, prefix: bytes, source: int, grid: datetime, count: int
) -> Head:
    return Head(
        prefix=prefix,
        table=_table_id(environment, txn, view),
        live=False,
        position=0,
        source=source,
        refreshed_at=to_microseconds(now()),
        grid=to_microseconds(grid),
        since=None,
        entities=count,
    )


def _make_current(new: Generation, txn: Any, view: OnlineView, head: Head) -> ViewState:
    before = records.head_of(new.environment, txn, new.intent.view)
    records.put_view(new.environment, txn, view)
    records.put_head(new.environment, txn, new.intent.view, head)
    new.done(txn, before.prefix if before else None)
    return head.state(view)
