"""Live views answer what the oracle says, whatever the order in which rows came."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import lmdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.features.online.live import LiveView, bulk, tree
from millpond.features.online.ports import OnlineView, Row
from millpond.features.plan import plan_views
from millpond.features.ports import PinnedView
from millpond.lake.ports import Column, Snapshot

pytestmark = pytest.mark.timeout(7200)  # the full profile takes its time

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PREFIX = b"view/"
TYPES = {
    pa.string(): "string",
    pa.int64(): "long",
    pa.int32(): "int",
    pa.float64(): "double",
    pa.bool_(): "boolean",
    pa.date32(): "date",
    pa.timestamp("us", tz="UTC"): "timestamptz",
}


class Transaction:
    """A writing LMDB transaction as `KeyValueWrites`."""

    def __init__(self, transaction: lmdb.Transaction) -> None:
        self._transaction = transaction

    def get(self, key: bytes) -> bytes | None:
        return self._transaction.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self._transaction.put(key, value)

    def delete(self, key: bytes) -> None:
        assert self._transaction.delete(key)

    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        with self._transaction.cursor() as cursor:
            if cursor.set_range(start):
                for key, value in cursor:
                    if key >= stop:
                        return
                    yield key, value


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lmdb.Environment]:
    with lmdb.open(str(tmp_path_factory.mktemp("live")), map_size=1 << 28, sync=False) as environment:
        yield environment


@pytest.fixture(scope="module")
def kv(environment: lmdb.Environment) -> Iterator[Any]:
    """A transaction that is undone; every example begins with `clear`."""
    transaction = environment.begin(write=True)
    yield Transaction(transaction)
    transaction.abort()


def clear(kv: Any) -> None:
    for key, _ in list(kv.scan(b"", b"\xff")):
        kv.delete(key)


@pytest.fixture(scope="module", autouse=True, params=[3, 64], ids=["narrow", "wide"])
def nodes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Nodes so small that few rows make high trees, and the real ones."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param < tree.MOST_ROWS:
            for module in (tree, bulk):
                patch.setattr(module, "MOST_ROWS", request.param)
                patch.setattr(module, "MOST_CHILDREN", request.param)
        yield


def online_view(world: Any, schema: pa.Schema) -> OnlineView:
    columns = tuple(
        Column(each.name, TYPES.get(each.type) or f"decimal({each.type.precision}, {each.type.scale})")
        for each in schema
    )
    snapshot = Snapshot("events", 1, datetime.now(UTC), len(world.rows), columns)
    return OnlineView.of(plan_views([PinnedView(world.view, snapshot)])[0])


def entity_of(values: tuple[Any, ...]) -> bytes:
    return repr(values).encode() + b"\x00"


def entity(view: OnlineView, row: Mapping[str, Any]) -> bytes | None:
    values = tuple(row[name] for name in view.entity_keys)
    return None if None in values else entity_of(values)


def microseconds(instant: datetime) -> int:
    delta = instant - EPOCH
    return (delta.days * 86400 + delta.seconds) * 1_000_000 + delta.microseconds


def live_row(view: OnlineView, row: Mapping[str, Any]) -> Row | None:
    """The row as a store hands it on; None where it can never be visible."""
    instants = [row[name] for name in (view.time, view.known) if name]
    if None in instants or entity(view, row) is None:
        return None
    found = [microseconds(each) for each in instants] or [0]
    return Row(
        found[0], found[-1], tuple(row[name] for name in view.row_keys), tuple(row[each.name] for each in view.columns)
    )


def insert(live: LiveView, kv: Any, row: Mapping[str, Any]) -> None:
    made = live_row(live.view, row)
    if made is not None:
        live.insert(kv, PREFIX, entity(live.view, row), made)


def remove(live: LiveView, kv: Any, row: Mapping[str, Any]) -> None:
    made = live_row(live.view, row)
    if made is not None:
        live.remove(kv, PREFIX, entity(live.view, row), made)


def load(live: LiveView, kv: Any, rows: list[dict[str, Any]], schema: pa.Schema, batch: int) -> None:
    """Through `build`, in batches of a few rows."""
    view = live.view
    order = [*view.entity_keys, *([view.time] if view.time else [])]
    table = pa.Table.from_pylist(rows, schema=schema).select(sorted(view.types))
    table = table.sort_by([(name, "ascending") for name in order])
    reader = pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=batch))
    previous = b""
    for key, value in live.build(reader, entity_of):
        same_entity = previous.split(b"\x00")[0] == key.split(b"\x00")[0]
        assert not same_entity or previous < key
        kv.put(PREFIX + key, value)
        previous = key


def answers(live: LiveView, kv: Any, world: Any) -> list[dict[str, Any] | None]:
    """The features of each example, at its point of the grid; None where there can be no answer."""
    found: list[dict[str, Any] | None] = []
    for example in world.spine:
        key = entity(live.view, example)
        at = 0 if example["at"] is None else microseconds(example["at"])
        at = at if live.view.every is None else at // live.view.every * live.view.every
        refused = key is None or (live.view.time is not None and example["at"] is None)
        values = None if refused else live.compute(kv, PREFIX, key, at)
        names = [each.name for each in live.view.features]
        found.append(None if values is None else dict(zip(names, values, strict=True)))
    return found


def same(found: Any, expected: Any, scale: float) -> bool:
    if isinstance(expected, Fraction) and isinstance(found, float):
        return abs(Fraction(found) - expected) <= Fraction(1e-9) * Fraction(max(scale, abs(float(expected))))
    if isinstance(expected, float) and isinstance(found, float):
        return math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-9 * scale)
    return found == expected and (type(found) is type(expected) or isinstance(expected, Fraction))


def check(live: LiveView, kv: Any, world: Any, rows: list[dict[str, Any]], oracle: Any) -> None:
    """The answers are the oracle's over `rows`."""
    held = {entity(live.view, row) for row in rows if live_row(live.view, row)}
    for example, found in zip(world.spine, answers(live, kv, world), strict=True):
        wanted = oracle.features_at(world.view, rows, example, example["at"])
        key = entity(live.view, example)
        if found is None:
            assert key not in held or (live.view.time is not None and example["at"] is None)
            assert all(value in (None, 0) for value in wanted.values())
            continue
        assert key in held
        for name, feature in world.view.features.items():
            full = f"{world.view.name}__{name}"
            values = [row[feature.column] for row in rows if feature.column and row[feature.column]]
            inexact = isinstance(wanted[full], (Fraction, float))
            scale = max((abs(float(each)) for each in values), default=0) if inexact else 0
            assert same(found[full], wanted[full], scale), (example, str(feature), found[full], wanted[full])


def order_of(world: Any, order: str, data: st.DataObject) -> list[dict[str, Any]]:
    if order == "shuffled":
        return data.draw(st.permutations(world.rows))
    known = world.view.known_time or "time"
    return sorted(world.rows, key=lambda row: (row[known] is not None, row[known] or EPOCH))


@given(data=st.data())
def test_pushed_rows_give_what_the_oracle_says(data: st.DataObject, kv: Any, oracle: Any, worlds: Any) -> None:
    clear(kv)
    world = data.draw(worlds.worlds())
    live = LiveView(online_view(world, worlds.SCHEMA))
    for row in order_of(world, data.draw(st.sampled_from(["known", "shuffled"])), data):
        insert(live, kv, row)
    check(live, kv, world, world.rows, oracle)


@given(data=st.data())
@settings(max_examples=settings().max_examples // 2)
def test_updates_and_deletions(data: st.DataObject, kv: Any, oracle: Any, worlds: Any) -> None:
    """Some rows are loaded, the rest inserted; then some are replaced and some removed."""
    clear(kv)
    world = data.draw(worlds.worlds())
    live = LiveView(online_view(world, worlds.SCHEMA))
    rows = list(world.rows)
    loaded = data.draw(st.integers(0, len(rows)))
    load(live, kv, rows[:loaded], worlds.SCHEMA, data.draw(st.sampled_from([1, 2, 5, 1000])))
    check(live, kv, world, rows[:loaded], oracle)
    for row in rows[loaded:]:
        insert(live, kv, row)
    check(live, kv, world, rows, oracle)
    for _ in range(data.draw(st.integers(0, 12)) if rows else 0):
        place = data.draw(st.integers(0, len(rows) - 1))
        remove(live, kv, rows[place])
        rows[place] = data.draw(worlds.rows(rows[place]["id"]))
        insert(live, kv, rows[place])
    check(live, kv, world, rows, oracle)
    while rows:
        remove(live, kv, rows.pop(data.draw(st.integers(0, len(rows) - 1))))
        if data.draw(st.integers(0, 5)) == 0:
            check(live, kv, world, rows, oracle)
    assert list(kv.scan(b"", b"\xff")) == []


@given(seed=st.integers(0, 2**32), data=st.data())
@settings(max_examples=settings().max_examples // 2)
def test_crowded_worlds(seed: int, data: st.DataObject, kv: Any, oracle: Any, worlds: Any) -> None:
    """Many rows of few entities, in any order, some of them loaded; forgetting leaves nothing."""
    clear(kv)
    world = worlds.crowded_world(seed)
    live = LiveView(online_view(world, worlds.SCHEMA))
    rows = order_of(world, data.draw(st.sampled_from(["known", "shuffled"])), data)
    loaded = data.draw(st.sampled_from([0, len(rows) // 2, len(rows)]))
    load(live, kv, rows[:loaded], worlds.SCHEMA, data.draw(st.sampled_from([7, 1000])))
    for row in rows[loaded:]:
        insert(live, kv, row)
    check(live, kv, world, rows, oracle)
    for key in {entity(live.view, row) for row in rows}:
        assert live.forget(kv, PREFIX, key) == sum(entity(live.view, row) == key for row in rows)
    assert list(kv.scan(b"", b"\xff")) == []


@given(seed=st.integers(0, 2**32), data=st.data())
@settings(max_examples=settings().max_examples // 4)
def test_the_order_of_insertion_does_not_matter(seed: int, data: st.DataObject, kv: Any, worlds: Any) -> None:
    world = worlds.crowded_world(seed)
    live = LiveView(online_view(world, worlds.SCHEMA))
    found = []
    for _ in range(2):
        clear(kv)
        for row in data.draw(st.permutations(world.rows)):
            insert(live, kv, row)
        found.append(answers(live, kv, world))
    for one, other in zip(*found, strict=True):
        assert (one is None) == (other is None)
        for name, value in (one or {}).items():
            left, right = value, other[name]
            assert left == right or math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-6)
