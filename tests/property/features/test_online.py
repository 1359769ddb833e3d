"""Live views answer what the oracle says, whatever the order in which rows came."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import lmdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.features.online.live import LiveView, bulk, tree
from millpond.features.online.lmdb import LmdbStore
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


@contextmanager
def nodes(most: int) -> Iterator[None]:
    """Nodes of at most so many rows or children: the smaller, the higher are the trees of few rows."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (tree, bulk):
            patch.setattr(module, "MOST_ROWS", most)
            patch.setattr(module, "MOST_CHILDREN", most)
        yield


SIZES = st.sampled_from([2, 3, 7, tree.MOST_ROWS])


def online_view(world: Any, schema: pa.Schema) -> OnlineView:
    columns = tuple(
        Column(each.name, TYPES.get(each.type) or f"decimal({each.type.precision}, {each.type.scale})")
        for each in schema
    )
    snapshot = Snapshot(world.view.source.name, 1, datetime.now(UTC), len(world.rows), columns)
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


def scale_of(rows: list[dict[str, Any]], feature: Any) -> float:
    """The largest number that went into a feature."""
    return max((abs(float(row[feature.column])) for row in rows if feature.column and row[feature.column]), default=0)


def check(live: LiveView, kv: Any, world: Any, rows: list[dict[str, Any]], oracle: Any, cases: Any) -> None:
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
            scale = scale_of(rows, feature) if isinstance(wanted[full], (Fraction, float)) else 0
            assert cases.same(found[full], wanted[full], scale), (example, str(feature), found[full], wanted[full])


def shuffled(rows: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    found = list(rows)
    Random(seed).shuffle(found)
    return found


ORDERS = st.none() | st.integers(0, 2**32)  # of `known`, or shuffled with a seed


def order_of(world: Any, seed: int | None) -> list[dict[str, Any]]:
    if seed is not None:
        return shuffled(world.rows, seed)
    known = world.view.known_time or "time"
    return sorted(world.rows, key=lambda row: (row[known] is not None, row[known] or EPOCH))


@given(data=st.data())
def test_pushed_rows_give_what_the_oracle_says(
    data: st.DataObject, kv: Any, oracle: Any, worlds: Any, cases: Any
) -> None:
    clear(kv)
    world = data.draw(worlds.cases())
    live = LiveView(online_view(world, worlds.SCHEMA))
    with nodes(data.draw(SIZES)):
        for row in order_of(world, data.draw(ORDERS)):
            insert(live, kv, row)
    check(live, kv, world, world.rows, oracle, cases)


@given(data=st.data())
@settings(max_examples=settings().max_examples // 2)
def test_updates_and_deletions(data: st.DataObject, kv: Any, oracle: Any, worlds: Any, cases: Any) -> None:
    """Some rows are loaded, the rest inserted; then some are replaced, and in the end all are removed."""
    clear(kv)
    world = data.draw(worlds.cases())
    live = LiveView(online_view(world, worlds.SCHEMA))
    rows = list(world.rows)
    loaded = data.draw(st.integers(0, len(rows)))
    with nodes(data.draw(SIZES)):
        load(live, kv, rows[:loaded], worlds.SCHEMA, data.draw(st.sampled_from([1, 2, 5, 1000])))
        check(live, kv, world, rows[:loaded], oracle, cases)
        for row in rows[loaded:]:
            insert(live, kv, row)
        for _ in range(data.draw(st.integers(0, 12)) if rows else 0):
            place = data.draw(st.integers(0, len(rows) - 1))
            remove(live, kv, rows[place])
            rows[place] = data.draw(worlds.rows(rows[place]["id"]))
            insert(live, kv, rows[place])
        check(live, kv, world, rows, oracle, cases)
        while rows:
            remove(live, kv, rows.pop(data.draw(st.integers(0, len(rows) - 1))))
            if data.draw(st.integers(0, 5)) == 0:
                check(live, kv, world, rows, oracle, cases)
    assert list(kv.scan(b"", b"\xff")) == []


@given(seed=st.integers(0, 2**32), data=st.data())
@settings(max_examples=settings().max_examples // 2)
def test_crowded_worlds(seed: int, data: st.DataObject, kv: Any, oracle: Any, worlds: Any, cases: Any) -> None:
    """Many rows of few entities, in any order, some of them loaded; forgetting leaves nothing."""
    clear(kv)
    world = worlds.crowded_case(seed)
    live = LiveView(online_view(world, worlds.SCHEMA))
    rows = order_of(world, data.draw(ORDERS))
    loaded = data.draw(st.sampled_from([0, len(rows) // 2, len(rows)]))
    with nodes(data.draw(SIZES)):
        load(live, kv, rows[:loaded], worlds.SCHEMA, data.draw(st.sampled_from([7, 1000])))
        for row in rows[loaded:]:
            insert(live, kv, row)
    check(live, kv, world, rows, oracle, cases)
    for key in {entity(live.view, row) for row in rows}:
        assert live.forget(kv, PREFIX, key) == sum(entity(live.view, row) == key for row in rows)
    assert list(kv.scan(b"", b"\xff")) == []


@given(seed=st.integers(0, 2**32), data=st.data())
@settings(max_examples=settings().max_examples // 4)
def test_the_order_of_insertion_does_not_matter(seed: int, data: st.DataObject, kv: Any, worlds: Any) -> None:
    world = worlds.crowded_case(seed)
    live = LiveView(online_view(world, worlds.SCHEMA))
    found = []
    for order in range(2):
        clear(kv)
        with nodes(data.draw(SIZES)):
            for row in shuffled(world.rows, seed + order):
                insert(live, kv, row)
        found.append(answers(live, kv, world))
    for one, other in zip(*found, strict=True):
        assert (one is None) == (other is None)
        for name, feature in world.view.features.items() if one else ():
            left, right = one[f"{world.view.name}__{name}"], other[f"{world.view.name}__{name}"]
            scale = scale_of(world.rows, feature) if isinstance(left, float) else 0
            assert left == right or math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-9 * scale)


@given(data=st.data())
@settings(max_examples=settings().max_examples // 4)
def test_a_store_answers_what_duckdb_joins(
    data: st.DataObject, engine: Any, oracle: Any, worlds: Any, cases: Any
) -> None:
    """Rows are loaded, pushed, pushed again, and replaced; the last state of each is what a join would read."""
    world = data.draw(worlds.cases())
    view = replace(online_view(world, worlds.SCHEMA), every=None)
    rows = list(world.rows)
    loaded = data.draw(st.integers(0, len(rows))) if view.row_keys else len(rows)  # without a key nothing is pushed
    with TemporaryDirectory() as folder, closing(LmdbStore(Path(folder), map_size=1 << 26)) as store:
        order = [*view.entity_keys, *([view.time] if view.time else [])]
        table = pa.Table.from_pylist(rows[:loaded], schema=worlds.SCHEMA).select(sorted(view.types))
        table = table.sort_by([(name, "ascending") for name in order])
        store.load(view, 1, None, store.landed(view.table), table.to_reader(max_chunksize=4))
        at = loaded
        while at < len(rows):
            stop = data.draw(st.integers(at + 1, len(rows)))
            pushed = pa.Table.from_pylist(rows[at:stop], schema=worlds.SCHEMA)
            store.push(view.table, view.row_keys, pushed)
            if data.draw(st.booleans()):
                assert store.push(view.table, view.row_keys, pushed).duplicates == stop - at
            at = stop
        for _ in range(data.draw(st.integers(0, 4)) if rows and view.row_keys else 0):
            place = data.draw(st.integers(0, len(rows) - 1))
            rows[place] = {**data.draw(worlds.rows(rows[place]["id"])), "name": rows[place]["name"]}
            store.push(view.table, view.row_keys, pa.Table.from_pylist([rows[place]], schema=worlds.SCHEMA))
        changed = replace(world, sources=(replace(world.sources[0], rows=rows),))
        found = stored(store, view, changed)
    joined = cases.by_engine(changed, engine)
    for example, values, wanted in zip(world.spine, found, joined, strict=True):
        exact = oracle.features_at(world.view, rows, example, example["at"])
        for name, feature in world.view.features.items():
            full = f"{world.view.name}__{name}"
            value = values[full] if values else (0 if feature.kind in ("count", "nunique") else None)
            scale = scale_of(rows, feature) if isinstance(exact[full], (Fraction, float)) else 0
            assert cases.same(value, exact[full], scale), (example, str(feature), value, exact[full])
            assert cases.same(value, wanted[full], scale), (example, str(feature), value, wanted[full])


def stored(store: LmdbStore, view: OnlineView, world: Any) -> list[dict[str, Any] | None]:
    """What the store answers to each example, at its point of the grid."""
    found: list[dict[str, Any] | None] = []
    step = world.view.grid.microseconds if world.view.grid and view.time else None
    with store.read() as reader:
        for example in world.spine:
            key = tuple(example[name] for name in view.entity_keys)
            if None in key or (view.time is not None and example["at"] is None):
                found.append(None)
                continue
            at = 0 if example["at"] is None else microseconds(example["at"])
            (values,) = reader.live(view, [key], [at if step is None else at // step * step])
            names = [each.name for each in view.features]
            found.append(None if values is None else dict(zip(names, values, strict=True)))
    return found
