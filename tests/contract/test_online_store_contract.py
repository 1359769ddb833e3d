"""What every online store must do: one suite, run against each adapter of the port."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

import millpond as mp
from millpond.core.errors import Conflict, DataError, NotFound, SchemaMismatch, StoreMismatch
from millpond.core.time import to_microseconds
from millpond.features.online.lmdb import LmdbStore
from millpond.features.online.ports import OnlineStore, OnlineView
from millpond.features.plan import plan_views
from millpond.features.ports import PinnedView
from millpond.lake.ports import Column, Snapshot

T0 = datetime(2020, 1, 1, tzinfo=UTC)
INSTANT = pa.timestamp("us", tz="UTC")
EVENTS = pa.schema(
    [("id", pa.int64()), ("shop", pa.string()), ("ts", INSTANT), ("known", INSTANT), ("amount", pa.int64())]
)
TYPES = {"id": "long", "shop": "string", "ts": "timestamptz", "known": "timestamptz", "amount": "long"}
KEY = ("id",)

sales = mp.Table("sales", key="id", time="ts", known="known")
shop = mp.Entity("shop", key="shop")
RECENT = mp.Features(
    "recent", entity=shop, source=sales, n=mp.count(over="1h"), total=mp.sum("amount"), last=mp.latest("amount")
)
HOURLY = mp.Features("hourly", entity=shop, source=sales, every="1h", n=mp.count(over="1h"), top=mp.max("amount"))


def online_view(view, types=TYPES):
    columns = tuple(Column(name, type) for name, type in types.items())
    snapshot = Snapshot(view.source.name, 1, T0, 0, columns)
    return OnlineView.of(plan_views([PinnedView(view, snapshot)])[0])


LIVE, GRID = online_view(RECENT), online_view(HOURLY)


@dataclass
class Adapter:
    """How to open a store of one kind at one place: here, and (as Python text that sets `store`) in other processes."""

    open: Callable[[], OnlineStore]
    source: str


@pytest.fixture(params=["lmdb", "redis"])
def adapter(request, tmp_path):
    folder = tmp_path / "online"
    if request.param == "redis":
        return redis_adapter(folder, request.getfixturevalue("shared_redis").url)
    return Adapter(
        lambda: LmdbStore(folder),
        "from pathlib import Path\nfrom millpond.features.online.lmdb import LmdbStore\n"
        f"store = LmdbStore(Path({str(folder)!r}))\n",
    )


def redis_adapter(folder, url):
    from millpond.features.online.redis import RedisStore

    project = uuid.uuid4().hex
    return Adapter(
        lambda: RedisStore(url, LmdbStore(folder), project=project),
        "from pathlib import Path\nfrom millpond.features.online.lmdb import LmdbStore\n"
        "from millpond.features.online.redis import RedisStore\n"
        f"store = RedisStore({url!r}, LmdbStore(Path({str(folder)!r})), project={project!r})\n",
    )


@pytest.fixture
def store(adapter):
    store = adapter.open()
    yield store
    store.close()


@pytest.fixture
def start(adapter):
    """Start another process that has opened the store; it is killed in the end."""
    started = []

    def start(code):
        text = f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        text += f"import {__name__.rpartition('.')[2]} as contract\n{adapter.source}{textwrap.dedent(code)}"
        process = subprocess.Popen([sys.executable, "-u", "-c", text], stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def at(minutes):
    return T0 + timedelta(minutes=minutes)


def event(id, shop, minutes, amount, known=None):
    return {
        "id": id,
        "shop": shop,
        "ts": None if minutes is None else at(minutes),
        "known": at(minutes if known is None else known) if minutes is not None else None,
        "amount": amount,
    }


def events(*rows):
    return pa.Table.from_pylist([event(*row) for row in rows], schema=EVENTS)


def reader(table, rows=2):
    return pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=rows))


def load(store, *rows, position=0, since=None):
    ordered = events(*rows).sort_by([("shop", "ascending"), ("ts", "ascending")])
    return store.load(LIVE, 7, since, position, reader(ordered))


def live(store, shop, minutes, view=LIVE):
    with store.read() as reading:
        return reading.live(view, [(shop,)], [to_microseconds(at(minutes))])[0]


def computed(*rows):
    """Values of the view with a refresh grid: shop, n, top."""
    return pa.table(
        {
            "shop": pa.array([row[0] for row in rows], pa.string()),
            "hourly__n": pa.array([row[1] for row in rows], pa.int64()),
            "hourly__top": pa.array([row[2] for row in rows], pa.int64()),
        }
    )


def publish(store, *rows, full=True, hour=1):
    return store.publish(GRID, 7, at(60 * hour), reader(computed(*rows)), full=full)


def values(store, *shops):
    with store.read() as reading:
        return reading.values(GRID, [(each,) for each in shops])


class TestPush:
    def test_the_next_lookup_sees_a_push(self, store):
        load(store, (1, "a", 0, 5), (2, "b", 1, 7))
        assert live(store, "a", 10) == (1, 5, 5)
        assert store.push("sales", KEY, events((3, "a", 5, 11), (4, "c", 5, 1))) == (2, 2, 0)
        assert live(store, "a", 10) == (2, 16, 11)
        assert live(store, "c", 10) == (1, 1, 1)
        assert live(store, "b", 10) == (1, 7, 7)
        assert live(store, "unknown", 10) is None
        assert store.states()[0].entities == 3
        assert store.states()[0].position == 2

    def test_what_is_not_known_yet_is_not_seen(self, store):
        load(store)
        store.push("sales", KEY, events((1, "a", 0, 5, 30)))
        assert live(store, "a", 30) == (0, None, None)
        assert live(store, "a", 31) == (1, 5, 5)

    def test_the_same_event_again_does_nothing(self, store):
        load(store)
        both = events((1, "a", 0, 5), (2, "a", 1, 6))
        assert store.push("sales", KEY, both) == (2, 2, 0)
        assert store.push("sales", KEY, both) == (2, 0, 2)
        assert store.push("sales", KEY, both.select(["amount", "known", "ts", "shop", "id"])) == (2, 0, 2)
        assert store.push("sales", KEY, events((2, "a", 1, 6), (3, "a", 2, 7), (3, "a", 2, 7))) == (3, 1, 2)
        assert store.pending("sales").rows["id"].to_pylist() == [1, 2, 3]
        assert live(store, "a", 10) == (3, 18, 7)

    def test_the_same_event_after_it_landed_does_nothing(self, store):
        load(store)
        store.push("sales", KEY, events((1, "a", 0, 5)))
        for position in (1, 1):
            store.land("sales", position)
        assert store.push("sales", KEY, events((1, "a", 0, 5))) == (1, 0, 1)
        assert store.pending("sales") is None

    def test_another_row_of_the_same_key_takes_its_place(self, store):
        load(store, (1, "a", 0, 5))
        assert store.push("sales", KEY, events((1, "a", 3, 50))) == (1, 1, 0)
        assert live(store, "a", 2) == (0, None, None)
        assert live(store, "a", 10) == (1, 50, 50)
        store.push("sales", KEY, events((1, "b", 3, 50)))
        assert live(store, "a", 10) is None
        assert live(store, "b", 10) == (1, 50, 50)
        assert store.states()[0].entities == 1

    def test_a_row_that_nobody_can_see_takes_the_place_of_one_that_was_seen(self, store):
        load(store, (1, "a", 0, 5), (2, "a", 0, 1))
        store.push("sales", KEY, events((1, "a", None, 9), (2, None, 0, 9)))
        assert live(store, "a", 10) is None
        store.push("sales", KEY, events((1, "a", 1, 9)))
        assert live(store, "a", 10) == (1, 9, 9)

    def test_states_of_a_row_in_one_push_are_applied_in_order(self, store):
        load(store)
        assert store.push("sales", KEY, events((1, "a", 0, 1), (1, "a", 0, 2), (1, "a", 0, 1))).applied == 3
        assert live(store, "a", 10) == (1, 1, 1)
        assert store.pending("sales").rows["amount"].to_pylist() == [1, 2, 1]

    def test_events_of_a_table_without_a_live_view_are_kept_and_told_apart(self, store):
        assert store.push("other", ("k",), pa.table({"k": ["x", "y"]})) == (2, 2, 0)
        assert store.push("other", ("k",), pa.table({"k": ["x"]})) == (1, 0, 1)
        assert store.pending("other").rows.to_pydict() == {"k": ["x", "y"]}

    def test_no_events(self, store):
        assert store.push("sales", KEY, events()) == (0, 0, 0)

    def test_a_column_that_an_event_has_not_is_null(self, store):
        load(store)
        store.push("sales", KEY, events((1, "a", 0, 5)).drop(["amount"]))
        assert live(store, "a", 10) == (1, None, None)

    def test_a_table_without_key_is_refused(self, store):
        with pytest.raises(DataError, match="no key") as error:
            store.push("sales", (), events((1, "a", 0, 5)))
        assert "key=" in error.value.hint

    def test_half_a_key_is_refused(self, store):
        with pytest.raises(DataError, match="Event 2 .* null"):
            store.push("sales", KEY, events((1, "a", 0, 5), (None, "a", 0, 5)))
        with pytest.raises(SchemaMismatch, match="'id'"):
            store.push("sales", KEY, events((1, "a", 0, 5)).drop(["id"]))
        assert store.pending("sales") is None

    def test_a_column_of_another_type_is_refused_whole(self, store):
        load(store)
        with pytest.raises(SchemaMismatch, match="amount"):
            store.push("sales", KEY, pa.table({**events((1, "a", 0, 5)).to_pydict(), "amount": ["many"]}))
        assert store.pending("sales") is None
        assert live(store, "a", 10) is None

    def test_threads(self, store):
        load(store)
        failures = []

        def push(number):
            try:
                for each in range(20):
                    store.push("sales", KEY, events((100 * number + each, "a", number, 1)))
                    assert live(store, "a", 100)[1] > each
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=push, args=(number,)) for number in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert not failures
        assert live(store, "a", 100)[1] == 80


class TestLog:
    def test_pending_gives_what_has_not_landed(self, store):
        assert store.pending("sales") is None
        assert store.landed("sales") == 0
        store.push("sales", KEY, events((1, "a", 0, 1), (2, "a", 0, 2)))
        store.push("other", ("k",), pa.table({"k": [1]}))
        store.push("sales", KEY, events((3, "a", 0, 3)))
        found = store.pending("sales")
        assert (found.first, found.last) == (1, 4)
        assert found.rows.equals(events((1, "a", 0, 1), (2, "a", 0, 2), (3, "a", 0, 3)))
        found = store.pending("sales", limit=1)
        assert (found.first, found.last, found.rows.num_rows) == (1, 1, 1)
        store.land("sales", 1)
        assert store.landed("sales") == 1
        found = store.pending("sales")
        assert (found.first, found.last, found.rows["id"].to_pylist()) == (2, 4, [2, 3])
        store.land("sales", 4)
        assert store.pending("sales") is None
        assert store.landed("other") == 0
        assert store.pending("other").first == 3

    def test_landing_never_goes_back(self, store):
        store.push("sales", KEY, events((1, "a", 0, 1), (2, "a", 0, 2)))
        store.land("sales", 2)
        store.land("sales", 1)
        assert store.landed("sales") == 2

    def test_positions_go_on_after_all_has_landed_and_the_store_was_closed(self, store, adapter):
        store.push("sales", KEY, events((1, "a", 0, 1)))
        for _ in range(3):
            store.land("sales", 1)
        store.close()
        again = adapter.open()
        assert again.push("sales", KEY, events((2, "a", 0, 1))).position == 2
        again.close()

    def test_columns_may_come_and_widen(self, store):
        store.push("t", ("k",), pa.table({"k": [1], "v": pa.array([1], pa.int32())}))
        store.push("t", ("k",), pa.table({"k": [2], "v": [2], "new": ["x"]}))
        assert store.pending("t").rows.to_pylist() == [{"k": 1, "v": 1, "new": None}, {"k": 2, "v": 2, "new": "x"}]

    def test_events_whose_columns_do_not_go_together_come_one_after_the_other(self, store):
        store.push("t", ("k",), pa.table({"k": [1], "v": [1]}))
        store.push("t", ("k",), pa.table({"k": [2], "v": ["x"]}))
        assert store.pending("t").last == 1
        store.land("t", 1)
        assert store.pending("t").rows["v"].to_pylist() == ["x"]


class TestLoad:
    def test_a_load_tells_its_state(self, store):
        before = datetime.now(UTC)
        state = load(store, (1, "a", 0, 5), (2, "a", 0, 5), (3, "b", 0, 5), since=T0)
        assert (state.view, state.source, state.position, state.entities) == (LIVE, 7, 0, 2)
        assert (state.since, state.grid) == (T0, None)
        assert before <= state.refreshed_at <= datetime.now(UTC)
        assert store.states() == [state]
        with store.read() as reading:
            assert reading.state(LIVE) == state
            assert reading.state(GRID) is None

    def test_a_load_replaces_all(self, store):
        load(store, (1, "a", 0, 5), (2, "b", 0, 5))
        state = load(store, (3, "b", 0, 6))
        assert state.entities == 1
        assert live(store, "a", 10) is None
        assert live(store, "b", 10) == (1, 6, 6)

    def test_events_after_the_snapshot_are_applied_on_top(self, store):
        store.push("sales", KEY, events((1, "a", 0, 1), (2, "a", 0, 2)))
        store.push("sales", KEY, events((3, "a", 0, 3)))
        store.push("sales", KEY, events((2, "a", 0, 20), (3, "b", 0, 30)))
        store.land("sales", 3)
        state = load(store, (1, "a", 0, 1), (2, "a", 0, 2), (3, "a", 0, 3), position=3)
        assert (state.position, state.entities) == (5, 2)
        assert live(store, "a", 10)[:2] == (2, 21)
        assert live(store, "b", 10) == (1, 30, 30)

    def test_events_that_the_snapshot_has_already_are_not_doubled(self, store):
        store.push("sales", KEY, events((1, "a", 0, 1), (2, "a", 0, 2)))
        load(store, (1, "a", 0, 1), (2, "a", 0, 2), position=1)
        assert live(store, "a", 10)[:2] == (2, 3)

    def test_pushes_during_a_load_are_in_it_and_stay_in_the_log(self, store):
        store.push("sales", KEY, events((1, "a", 0, 1)))
        store.land("sales", 1)

        def batches():
            yield from events((1, "a", 0, 1)).to_batches()
            store.push("sales", KEY, events((1, "a", 0, 10), (9, "b", 0, 9)))
            for _ in range(3):
                store.land("sales", 3)
            yield from events((2, "c", 0, 2)).to_batches()

        state = store.load(LIVE, 1, None, 1, pa.RecordBatchReader.from_batches(EVENTS, batches()))
        assert (state.position, state.entities) == (3, 3)
        assert [live(store, each, 10)[1] for each in "abc"] == [10, 9, 2]

    def test_a_load_whose_events_are_gone_is_refused(self, store):
        store.push("sales", KEY, events((1, "a", 0, 1)))
        store.push("sales", KEY, events((2, "a", 0, 1)))
        for position in (1, 2, 2):
            store.land("sales", position)
        with pytest.raises(Conflict, match="after the snapshot"):
            load(store, position=0)

    def test_a_load_that_fails_changes_nothing(self, store):
        load(store, (1, "a", 0, 5))

        def batches():
            yield from events((1, "a", 0, 6)).to_batches()
            raise DataError("broken")

        with pytest.raises(DataError, match="broken"):
            store.load(LIVE, 8, None, 0, pa.RecordBatchReader.from_batches(EVENTS, batches()))
        assert live(store, "a", 10) == (1, 5, 5)
        assert store.states()[0].source == 7
        assert load(store, (1, "a", 0, 7)).entities == 1

    def test_the_second_of_two_at_once_is_refused_and_pushes_go_on(self, store, adapter):
        other = adapter.open()

        def batches():
            for each in (store, other):
                with pytest.raises(Conflict, match="recent"):
                    load(each, (1, "a", 0, 5))
                with pytest.raises(Conflict, match="recent"):
                    each.drop(LIVE)
            publish(other, ("a", 1, 1))
            other.push("sales", KEY, events((2, "a", 0, 2)))
            yield from events((1, "a", 0, 1)).to_batches()

        store.load(LIVE, 1, None, 0, pa.RecordBatchReader.from_batches(EVENTS, batches()))
        other.close()
        assert live(store, "a", 10)[:2] == (2, 3)

    def test_pushing_all_equals_loading_all(self, store):
        chance = random.Random(5)
        rows = {}
        initial = {id: (id, chance.choice("abc"), chance.randrange(100), chance.randrange(9)) for id in range(80)}
        load(store, *initial.values())
        rows.update(initial)
        for _ in range(40):
            some = [
                (chance.randrange(200), chance.choice("abcde"), chance.randrange(100), chance.randrange(9))
                for _ in range(chance.randrange(6))
            ]
            store.push("sales", KEY, events(*some))
            rows.update({row[0]: row for row in some})
        pushed = [live(store, each, minutes) for each in "abcdef" for minutes in range(0, 130, 7)]
        counted = store.states()[0].entities
        assert load(store, *rows.values(), position=10**6).entities == counted
        assert [live(store, each, minutes) for each in "abcdef" for minutes in range(0, 130, 7)] == pushed


class TestPublish:
    def test_values_are_put_in_place(self, store):
        state = publish(store, ("a", 1, 10), ("b", 0, None))
        assert (state.view, state.grid, state.since, state.entities) == (GRID, at(60), None, 2)
        assert values(store, "b", "x", "a") == [(0, None), None, (1, 10)]

    def test_columns_of_many(self, store):
        publish(store, ("a", 1, 10), ("b", 0, None))
        with store.read() as reading:
            found = reading.columns(GRID, [("b",), ("x",), ("a",), ("a",)])
            assert [each.to_pylist() for each in found] == [[0, None, 1, 1], [None, None, 10, 10]]
            assert [each.type for each in found] == [pa.int64(), pa.int64()]
            assert [len(each) for each in reading.columns(GRID, [])] == [0, 0]

    def test_all_replace_all(self, store):
        publish(store, ("a", 1, 10), ("b", 2, 20))
        assert publish(store, ("a", 3, 30), hour=2).entities == 1
        assert values(store, "a", "b") == [(3, 30), None]

    def test_some_leave_the_others(self, store):
        publish(store, ("a", 1, 10), ("b", 2, 20))
        state = publish(store, ("b", 3, 30), ("c", 4, 40), full=False, hour=2)
        assert (state.entities, state.grid) == (3, at(120))
        assert values(store, "a", "b", "c") == [(1, 10), (3, 30), (4, 40)]

    def test_some_of_an_earlier_grid_point_are_refused(self, store):
        publish(store, ("a", 1, 10), hour=2)
        with pytest.raises(Conflict, match="later grid point"):
            publish(store, ("a", 2, 20), full=False, hour=1)
        assert values(store, "a") == [(1, 10)]

    def test_many_changes_at_once(self, store, monkeypatch):
        import millpond.features.online.loads as loads

        monkeypatch.setattr(loads, "_IN_MEMORY_BYTES", 100)
        publish(store, *((f"s{n}", n, n) for n in range(50)))
        state = publish(store, *((f"s{n}", n, 2 * n) for n in range(40, 60)), full=False, hour=2)
        assert state.entities == 60
        assert values(store, "s3", "s45", "s59") == [(3, 3), (45, 90), (59, 118)]

    def test_a_reader_keeps_what_it_began_with(self, store):
        publish(store, ("a", 1, 10))
        with store.read() as reading:
            publish(store, ("a", 2, 20), hour=2)
            publish(store, ("a", 3, 30), hour=3)
            assert reading.values(GRID, [("a",)]) == [(1, 10)]
            assert reading.state(GRID).grid == at(60)
        assert values(store, "a") == [(3, 30)]

    @pytest.mark.parametrize("full", [True, False])
    def test_one_that_fails_changes_nothing(self, store, full):
        publish(store, ("a", 1, 10))
        wrong = computed(("a", 2, 20)).rename_columns(["shop", "hourly__n", "other"])
        with pytest.raises(DataError, match="hourly__top"):
            store.publish(GRID, 8, at(120), reader(wrong), full=full)
        assert values(store, "a") == [(1, 10)]

    def test_every_type(self, store):
        types = {
            "k": "long",
            "ts": "timestamptz",
            "f": "float",
            "s": "string",
            "d": "date",
            "b": "boolean",
            "m": "decimal(20, 3)",
            "raw": "binary",
        }
        table = mp.Table("types", key="k", time="ts")
        view = mp.Features(
            "v", entity=mp.Entity("thing", key="k"), source=table, every="1h",
            **{name: mp.latest(name) for name in types if name != "k"},
        )  # fmt: skip
        view = online_view(view, types)
        row = (at(1), 0.5, "ü\0x", date(1969, 7, 20), False, Decimal("-12345678901234567.125"), b"\0\xff")
        arrow = [INSTANT, pa.float32(), pa.string(), pa.date32(), pa.bool_(), pa.decimal128(20, 3), pa.binary()]
        names = [each.name for each in view.features]
        columns = {
            name: pa.array([value, None, value], type) for name, value, type in zip(names, row, arrow, strict=True)
        }
        store.publish(view, 1, at(0), reader(pa.table({"k": [1, 2, -3], **columns})), full=True)
        with store.read() as reading:
            assert reading.values(view, [(1,), (2,), (-3,), (4,)]) == [row, (None,) * 7, row, None]

    def test_a_key_of_another_type_is_refused(self, store):
        publish(store, ("a", 1, 10))
        with store.read() as reading, pytest.raises(DataError, match="no key of"):
            reading.values(GRID, [(5,)])
        with pytest.raises(DataError, match="null in the key"):
            publish(store, (None, 1, 10))
        assert values(store, "a") == [(1, 10)]

    def test_long_keys(self, store):
        long = "x" * 10_000
        publish(store, (long, 1, 10), (long + "y", 2, 20))
        assert values(store, long + "y", long, long[1:]) == [(2, 20), (1, 10), None]


class TestOtherSchema:
    def test_a_view_that_was_never_held(self, store):
        with store.read() as reading:
            assert reading.state(LIVE) is None
            with pytest.raises(NotFound, match="recent"):
                reading.live(LIVE, [("a",)], [0])
            with pytest.raises(NotFound, match="hourly"):
                reading.values(GRID, [("a",)])

    def test_another_meaning_or_type_is_never_read_as_this_one(self, store):
        publish(store, ("a", 1, 10))
        load(store, (1, "a", 0, 5))
        wider = online_view(HOURLY, {**TYPES, "amount": "double"})
        other = mp.Features("recent", entity=shop, source=sales, n=mp.count(over="2h"))
        with store.read() as reading:
            assert reading.state(wider) is None
            with pytest.raises(StoreMismatch, match="another definition") as error:
                reading.values(wider, [("a",)])
            assert "--full" in error.value.hint
            with pytest.raises(StoreMismatch):
                reading.live(online_view(other), [("a",)], [0])

    def test_two_meanings_of_a_view_are_held_side_by_side(self, store):
        other = online_view(mp.Features("recent", entity=shop, source=sales, n=mp.count(over="2h")))
        load(store, (1, "a", 0, 5))
        store.load(other, 1, None, 0, reader(events((1, "a", 0, 5))))
        store.push("sales", KEY, events((2, "a", 1, 5)))
        assert live(store, "a", 90) == (0, 10, 5)
        assert live(store, "a", 90, other) == (2,)
        assert [each.view.name for each in store.states()] == ["recent", "recent"]
        store.drop(LIVE)
        assert [each.view for each in store.states()] == [other]
        assert live(store, "a", 90, other) == (2,)
        with pytest.raises(StoreMismatch):
            live(store, "a", 90)

    def test_events_under_another_key_than_the_view_was_loaded_under(self, store):
        load(store, (1, "a", 0, 5))
        with pytest.raises(StoreMismatch, match="key"):
            store.push("sales", ("id", "shop"), events((1, "a", 0, 5)))
        assert store.pending("sales") is None


class TestForget:
    def test_an_entity_is_deleted_everywhere(self, store):
        publish(store, ("a", 1, 10), ("b", 2, 20))
        load(store, (1, "a", 0, 5), (2, "b", 0, 6))
        store.push("sales", KEY, events((3, "b", 1, 1), (4, "a", 1, 2), (5, "b", 1, 3), (6, "a", 1, 2)))
        assert store.forget("shop", ("a",)) == 1 + 3 + 2
        assert values(store, "a", "b") == [None, (2, 20)]
        assert live(store, "a", 10) is None
        assert live(store, "b", 10) == (3, 10, 3)
        found = store.pending("sales")
        assert (found.first, found.last, found.rows["id"].to_pylist()) == (1, 3, [3, 5])
        assert [each.entities for each in store.states()] == [1, 1]
        assert store.forget("shop", ("a",)) == 0
        assert store.forget("nobody", ("a",)) == 0

    def test_one_who_comes_back_is_new(self, store):
        load(store)
        first = events((1, "a", 1, 5))
        store.push("sales", KEY, first)
        store.forget("shop", ("a",))
        assert store.push("sales", KEY, first).applied == 1
        for position in (2, 2, 2):
            store.land("sales", position)
        store.push("sales", KEY, events((2, "b", 1, 5)))
        store.land("sales", 3)
        store.forget("shop", ("a",))
        assert store.push("sales", KEY, first).applied == 1
        assert live(store, "a", 10) == (1, 5, 5)

    def test_one_who_is_forgotten_during_a_load_does_not_come_back_by_it(self, store):
        load(store, (1, "a", 0, 5), (2, "b", 0, 5))

        def batches():
            yield from events((1, "a", 0, 5)).to_batches()
            store.push("sales", KEY, events((3, "a", 0, 7), (4, "b", 0, 7)))
            store.forget("shop", ("a",))
            store.push("sales", KEY, events((5, "a", 1, 9)))
            yield from events((2, "b", 0, 5)).to_batches()

        store.load(LIVE, 1, None, 0, pa.RecordBatchReader.from_batches(EVENTS, batches()))
        assert live(store, "a", 10) == (1, 9, 9)
        assert live(store, "b", 10) == (2, 12, 7)

    def test_one_who_is_forgotten_during_a_publication_does_not_come_back_by_it(self, store):
        def batches():
            yield from computed(("a", 1, 10)).to_batches()
            store.forget("shop", ("a",))
            yield from computed(("b", 1, 10)).to_batches()

        rows = pa.RecordBatchReader.from_batches(computed().schema, batches())
        assert store.publish(GRID, 1, at(0), rows, full=True).entities == 1
        assert values(store, "a", "b") == [None, (1, 10)]


class TestProcesses:
    """Other processes write, read and are killed."""

    pytestmark = pytest.mark.slow

    def test_readers_see_whole_states_while_another_process_writes(self, store, start):
        publish(store, *((f"s{n}", 0, 0) for n in range(200)))
        load(store, (0, "a", 0, 0))
        readers = [
            start("""
            import time
            until, seen = time.monotonic() + 2, set()
            while time.monotonic() < until:
                with store.read() as reading:
                    found = set(reading.values(contract.GRID, [(f"s{n}",) for n in range(200)]))
                    state = reading.state(contract.LIVE)
                    n, total, last = reading.live(contract.LIVE, [("a",)], [10**16])[0]
                assert len(found) == 1, found
                assert (total or 0) == state.position, (total, state)
                seen |= found
            print(len(seen))
            """)
            for _ in range(3)
        ]
        count = 0
        while any(each.poll() is None for each in readers):
            count += 1
            publish(store, *((f"s{n}", count, count) for n in range(200)), full=bool(count % 2), hour=count)
            store.push("sales", KEY, events((count, "a", 1, 1)))
        for each in readers:
            assert int(each.communicate(timeout=30)[0]) > 1
            assert each.returncode == 0

    @pytest.mark.parametrize("what", ["load", "publish", "changes"])
    def test_a_killed_one_leaves_the_old_state_whole(self, store, start, what):
        publish(store, ("a", 1, 10))
        load(store, (1, "a", 0, 5))
        process = start(f"""
        import time
        import millpond.features.online.bulk as bulk
        import millpond.features.online.loads as loads
        bulk._ENTRIES, loads._IN_MEMORY_BYTES = 10, 100
        import pyarrow as pa

        def batches(table):
            for _ in range(20):
                yield from table.to_batches()
            print("half", flush=True)
            time.sleep(60)

        what = {what!r}
        if what == "load":
            table = contract.events((1, "a", 0, 6), (2, "z", 0, 6))
            rows = pa.RecordBatchReader.from_batches(table.schema, batches(table))
            store.load(contract.LIVE, 8, None, 0, rows)
        else:
            table = contract.computed(("a", 2, 20), ("b", 2, 20))
            rows = pa.RecordBatchReader.from_batches(table.schema, batches(table))
            store.publish(contract.GRID, 8, contract.at(120), rows, full=what == "publish")
        """)
        assert process.stdout.readline() == "half\n"
        with pytest.raises(Conflict):
            load(store) if what == "load" else publish(store, hour=2, full=what == "publish")
        kill(process)
        assert values(store, "a", "b") == [(1, 10), None]
        assert live(store, "a", 10) == (1, 5, 5)
        assert {each.source for each in store.states()} == {7}
        assert load(store, (1, "a", 0, 7)).entities == 1
        assert publish(store, ("b", 3, 30), full=False, hour=2).entities == 2
        assert publish(store, ("b", 3, 30), hour=2).entities == 1

    def test_a_killed_load_keeps_no_events_in_the_log(self, store, start):
        store.push("sales", KEY, events((1, "a", 0, 5)))
        process = start("""
        import time
        import pyarrow as pa

        def batches():
            yield from contract.events((1, "a", 0, 6)).to_batches()
            print("half", flush=True)
            time.sleep(60)

        store.load(contract.LIVE, 8, None, 0, pa.RecordBatchReader.from_batches(contract.EVENTS, batches()))
        """)
        assert process.stdout.readline() == "half\n"
        for _ in range(3):
            store.land("sales", 1)
        kill(process)
        store.land("sales", 1)
        with pytest.raises(Conflict, match="after the snapshot"):
            load(store)
        assert load(store, (1, "a", 0, 5), position=1).entities == 1

    def test_what_was_acknowledged_outlives_a_kill(self, store, start):
        load(store)
        for number in range(4):
            process = start(f"""
            for id in range({1000 * number}, {1000 * number + 1000}):
                store.push("sales", contract.KEY, contract.events((id, "a", 1, 1), (id + 500_000, "b", 1, 1)))
                print(id, flush=True)
            """)
            for _ in range(5 + 7 * number):
                acknowledged = int(process.stdout.readline())
            kill(process)
            acknowledged = max(acknowledged, *map(int, process.stdout.read().splitlines()), 0)
            found = store.pending("sales").rows["id"].to_pylist()
            assert {*range(1000 * number, acknowledged + 1)} <= set(found)
            assert len(found) == len(set(found))
            a, b = live(store, "a", 10), live(store, "b", 10)
            assert a == b
            assert a[1] == len(found) // 2

    def test_a_reader_that_was_killed_keeps_nothing(self, store, start):
        publish(store, ("a", 1, 10))
        process = start("""
        import time
        with store.read() as reading:
            print(reading.values(contract.GRID, [("a",)]), flush=True)
            time.sleep(60)
        """)
        assert process.stdout.readline() == "[(1, 10)]\n"
        publish(store, ("a", 2, 20), hour=2)
        kill(process)
        publish(store, ("a", 3, 30), hour=3)
        assert values(store, "a") == [(3, 30)]
