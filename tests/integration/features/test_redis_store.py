"""The shared online store on a real Redis: servers that come, go and are killed, and a Redis that does."""

import importlib
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
import redis

import millpond as mp
from millpond.core.errors import Conflict, MillpondError, MissingExtra, SettingsError, Unavailable
from millpond.core.time import to_microseconds
from millpond.features.online.lmdb import LmdbStore
from millpond.features.online.ports import OnlineView
from millpond.features.online.redis import RedisStore
from millpond.features.plan import plan_views
from millpond.features.ports import PinnedView
from millpond.lake.ports import Column, Snapshot

T0 = datetime(2020, 1, 1, tzinfo=UTC)
EVENTS = pa.schema(
    [("id", pa.int64()), ("shop", pa.string()), ("ts", pa.timestamp("us", tz="UTC")), ("amount", pa.int64())]
)
KEY = ("id",)
sales = mp.Table("sales", key="id", time="ts")
shop = mp.Entity("shop", key="shop")


def online_view(view):
    types = {"id": "long", "shop": "string", "ts": "timestamptz", "amount": "long"}
    snapshot = Snapshot("sales", 1, T0, 0, tuple(Column(name, type) for name, type in types.items()))
    return OnlineView.of(plan_views([PinnedView(view, snapshot)])[0])


LIVE = online_view(mp.Features("recent", entity=shop, source=sales, n=mp.count(), total=mp.sum("amount")))
GRID = online_view(mp.Features("hourly", entity=shop, source=sales, every="1h", n=mp.count(over="1h")))


def events(*rows):
    """Rows of id, shop, amount."""
    each = [{"id": id, "shop": shop, "ts": T0, "amount": amount} for id, shop, amount in rows]
    return pa.Table.from_pylist(each, schema=EVENTS)


def reader(table):
    return pa.RecordBatchReader.from_batches(table.schema, table.to_batches())


def load(store, *rows, position=0):
    return store.load(LIVE, 7, None, position, reader(events(*rows).sort_by("shop")))


def publish(store, values, hour=1, full=True):
    table = pa.table({"shop": pa.array(values, pa.string()), "hourly__n": pa.array(values.values(), pa.int64())})
    return store.publish(GRID, 7, T0 + timedelta(hours=hour), reader(table), full=full)


def live(store, shop):
    return live_of(store, shop)[0]


def live_of(store, *shops):
    """The values of several shops, of one moment."""
    with store.read() as reading:
        return reading.live(LIVE, [(each,) for each in shops], [to_microseconds(T0 + timedelta(days=1))] * len(shops))


def values(store, *shops):
    with store.read() as reading:
        return [each and each[0] for each in reading.values(GRID, [(each,) for each in shops])]


def until(condition, seconds=30):
    """Wait until something is so, on a machine that may be busy."""
    end = time.monotonic() + seconds
    while True:
        try:
            found = condition()
        except MillpondError:
            found = False
        if found:
            return
        assert time.monotonic() < end
        time.sleep(0.02)


def again(action, seconds=30):
    """Do something until Redis is there."""
    end = time.monotonic() + seconds
    while True:
        try:
            return action()
        except (Unavailable, Conflict):
            assert time.monotonic() < end
            time.sleep(0.05)


@pytest.fixture
def server(tmp_path, redis_server):
    """Open the store as a server with a folder of its own does."""
    opened = []

    def server(name, **options):
        store = RedisStore(redis_server.url, LmdbStore(tmp_path / name), project="shop", **options)
        opened.append(store)
        return store

    yield server
    for each in opened:
        each.close()


@pytest.fixture
def start(tmp_path, redis_server):
    """Start another process that has opened the store as a server; it is killed in the end."""
    started = []

    def start(name, code):
        text = f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        text += f"import {__name__.rpartition('.')[2]} as t\nfrom pathlib import Path\n"
        text += f"store = t.RedisStore({redis_server.url!r}, t.LmdbStore(Path({str(tmp_path / name)!r})), "
        text += f"project='shop')\n{textwrap.dedent(code)}"
        process = subprocess.Popen([sys.executable, "-u", "-c", text], stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


class TestServers:
    def test_one_sees_what_another_writes(self, server):
        one, two = server("one"), server("two")
        load(one, (1, "a", 5))
        publish(one, {"a": 1, "b": 2})
        one.push("sales", KEY, events((2, "a", 6)))
        two.push("sales", KEY, events((3, "a", 7)))
        assert live(two, "a") == (3, 18)
        until(lambda: live(one, "a") == (3, 18))
        publish(two, {"b": 3}, hour=2, full=False)
        until(lambda: values(one, "a", "b") == [1, 3])
        assert one.synced_at() is two.synced_at() is None
        two.drop(GRID)
        until(lambda: [each.view for each in one.states()] == [LIVE])

    def test_the_same_event_at_two_servers_is_applied_once(self, server):
        one, two = server("one"), server("two")
        load(one)
        both = [threading.Thread(target=each.push, args=("sales", KEY, events((1, "a", 5)))) for each in (one, two)]
        for each in both:
            each.start()
        for each in both:
            each.join()
        one.push("sales", KEY, events((2, "b", 1)))
        two.push("sales", KEY, events((3, "b", 1)))
        for each in (one, two):
            until(lambda each=each: live(each, "b") == (2, 2))
            assert live(each, "a") == (1, 5)
            assert each.pending("sales").rows["id"].to_pylist() == [1, 2, 3] if each is one else True

    def test_of_two_refreshes_at_once_one_is_refused(self, server):
        one, two = server("one"), server("two")
        publish(one, {"a": 1})
        until(lambda: values(two, "a") == [1])

        def batches():
            table = pa.table({"shop": ["a"], "hourly__n": [2]})
            yield from table.to_batches()
            with pytest.raises(Conflict, match="publishing view 'hourly'"):
                publish(two, {"a": 3})
            assert values(one, "a") == values(two, "a") == [1]

        schema = pa.schema([("shop", pa.string()), ("hourly__n", pa.int64())])
        one.publish(GRID, 7, T0, pa.RecordBatchReader.from_batches(schema, batches()), full=True)
        publish(two, {"a": 4})
        until(lambda: values(one, "a") == [4])

    def test_one_server_at_a_time_lands(self, server, monkeypatch):
        from millpond.features.online import redis_landing

        monkeypatch.setattr(redis_landing, "_PATIENCE_SECONDS", 0.5)
        one, two = server("one"), server("two")
        one.push("sales", KEY, events((1, "a", 5)))
        until(lambda: two.landed("sales") == 0 and two._local.pending("sales"))
        assert one.pending("sales").last == 1
        with pytest.raises(Conflict, match="landing"):
            two.pending("sales")
        with pytest.raises(Conflict, match="landing"):
            two.land("sales", 1)
        one.land("sales", 1)
        until(lambda: two.landed("sales") == 1)
        assert two.pending("sales") is None

    def test_an_entity_is_forgotten_everywhere(self, server, redis_server):
        one, two = server("one"), server("two")
        load(one, (1, "secret-shop", 5), (2, "b", 5))
        publish(one, {"secret-shop": 1, "b": 2})
        publish(one, {"secret-shop": 2}, hour=2, full=False)
        two.push("sales", KEY, events((3, "secret-shop", 6), (4, "b", 6)))
        assert two.forget("shop", ("secret-shop",)) == 1 + 2 + 1
        assert live(two, "b") == (2, 11)
        for each in (one, two):
            until(lambda each=each: live(each, "secret-shop") is None and values(each, "secret-shop", "b") == [None, 2])
        with redis.Redis.from_url(redis_server.url) as client:
            for name in client.scan_iter("*generation*"):
                assert not any(b"secret-shop" in chunk for chunk in client.hvals(name))
            assert not any(b"secret-shop" in each for each in client.hvals("millpond:{shop}:payloads"))
        three = server("three")
        until(lambda: live(three, "b") == (2, 11) and values(three, "b") == [2])
        assert live(three, "secret-shop") is None
        assert values(three, "secret-shop") == [None]
        assert three._local.pending("sales").rows["id"].to_pylist() == [4]

    def test_projects_in_one_redis_do_not_meet(self, tmp_path, shared_redis):
        stores = [
            RedisStore(shared_redis.url, LmdbStore(tmp_path / each), project=f"{each}-{tmp_path.name}")
            for each in ("one", "two")
        ]
        publish(stores[0], {"a": 1})
        assert stores[1].states() == []
        for each in stores:
            each.close()


class TestReplicas:
    def test_a_new_one_gets_everything(self, server, tmp_path):
        one = server("one")
        load(one, (1, "a", 5))
        publish(one, {"a": 1, "b": 2})
        for hour in range(2, 14):  # more changes than are kept apart
            publish(one, {"b": 10 * hour}, hour=hour, full=False)
        one.push("sales", KEY, events((2, "a", 6)))
        two = server("two")
        until(lambda: live(two, "a") == (2, 11) and values(two, "a", "b") == [1, 130])
        two.close()
        shutil.rmtree(tmp_path / "two")
        one.push("sales", KEY, events((3, "a", 7)))
        again = server("two")
        until(lambda: live(again, "a") == (3, 18) and values(again, "a", "b") == [1, 130])
        assert sorted(each.entities for each in again.states()) == [1, 2]
        assert again._local.pending("sales").rows["id"].to_pylist() == [2, 3]

    def test_operations_leave_redis_and_replicas_still_begin_and_catch_up(self, server, redis_server):
        one, behind = server("one", retention=timedelta(0)), server("behind")
        load(one, (1, "a", 5))
        publish(one, {"a": 1})
        until(lambda: live(behind, "a") == (1, 5) and values(behind, "a") == [1])
        behind.close()
        for id in range(2, 6):
            one.push("sales", KEY, events((id, "a", 1)))
            one.land("sales", one.pending("sales").last)
        one.push("sales", KEY, events((6, "b", 1)))
        with redis.Redis.from_url(redis_server.url) as client:
            assert client.xlen("millpond:{shop}:log") < 4
            assert client.hlen("millpond:{shop}:payloads") < 4
        for name in ("new", "behind"):
            store = server(name)
            until(lambda store=store: live(store, "a") == (5, 9) and live(store, "b") == (1, 1), 40)
            assert values(store, "a") == [1]
            assert store.landed("sales") == 4
            assert store._local.pending("sales").rows["id"].to_pylist() == [6]

    def test_a_folder_that_was_used_without_redis_brings_what_it_holds(self, server, tmp_path):
        alone = LmdbStore(tmp_path / "one")
        alone.load(LIVE, 7, None, 0, reader(events((1, "a", 5))))
        table = pa.table({"shop": ["a"], "hourly__n": [1]})
        alone.publish(GRID, 7, T0, reader(table), full=True)
        alone.push("sales", KEY, events((2, "a", 6), (3, "a", 7)))
        alone.land("sales", 1)
        alone.close()
        one, two = server("one"), server("two")
        for each in (one, two):
            until(lambda each=each: live(each, "a") == (3, 18) and values(each, "a") == [1])
            assert each._local.pending("sales").rows["id"].to_pylist() == [3]

    @pytest.mark.slow
    def test_processes_of_a_server_share_a_replica_and_one_takes_over_from_a_killed_one(self, server, start):
        load(server("elsewhere"))
        leader = start("one", "print('open', flush=True)\nt.time.sleep(60)")
        assert leader.stdout.readline() == "open\n"
        one = server("one")
        assert one.push("sales", KEY, events((1, "a", 5))) == (1, 1, 0)
        os.kill(leader.pid, signal.SIGKILL)
        leader.wait()
        assert again(lambda: one.push("sales", KEY, events((2, "a", 5)))).position == 2
        until(lambda: one.synced_at() is None)
        assert live(one, "a") == (2, 10)


class TestRedisGone:
    def test_requests_go_on_and_say_how_stale_they_are(self, server, redis_server):
        one, two = server("one"), server("two")
        load(one, (1, "a", 5))
        publish(one, {"a": 1})
        until(lambda: live(two, "a") == (1, 5))
        before = datetime.now(UTC)
        redis_server.kill()
        until(lambda: two.synced_at() is not None)
        assert abs(two.synced_at() - before) < timedelta(seconds=5)
        assert live(two, "a") == (1, 5)
        assert values(two, "a") == [1]
        for write in (
            lambda: two.push("sales", KEY, events((2, "a", 5))),
            lambda: publish(two, {"a": 2}),
            lambda: load(two),
            lambda: two.forget("shop", ("a",)),
            lambda: two.drop(LIVE),
            lambda: two.land("sales", 1),
        ):
            with pytest.raises(Unavailable) as error:
                write()
            assert error.value.retryable
        assert two.push("sales", KEY, events()) == (0, 0, 0)
        redis_server.start()
        again(lambda: two.push("sales", KEY, events((2, "a", 5))))
        until(lambda: live(one, "a") == live(two, "a") == (2, 10))
        until(lambda: one.synced_at() is None)
        assert values(one, "a") == [1]

    def test_a_server_starts_without_it(self, server, redis_server):
        one = server("one")
        publish(one, {"a": 1})
        one.close()
        redis_server.kill()
        one, new = server("one", patience=0.2), server("new", patience=0.2)
        assert values(one, "a") == [1]
        assert one.synced_at() is not None
        assert new.synced_at() is not None
        assert new.states() == []
        redis_server.start()
        until(lambda: values(new, "a") == [1] and one.synced_at() is new.synced_at() is None)

    def test_a_redis_that_hangs_is_as_good_as_gone(self, server, redis_server):
        one = server("one")
        publish(one, {"a": 1})
        redis_server.freeze()
        began = time.monotonic()
        while one.synced_at() is None:
            asked = time.perf_counter()
            assert values(one, "a") == [1]
            assert time.perf_counter() - asked < 0.5
            assert time.monotonic() - began < 10
            time.sleep(0.01)
        with pytest.raises(Unavailable):
            one.push("sales", KEY, events((1, "a", 5)))
        redis_server.thaw()
        again(lambda: one.push("sales", KEY, events((1, "a", 5))))
        assert one.pending("sales").rows["id"].to_pylist() == [1]
        until(lambda: one.synced_at() is None)

    @pytest.mark.slow
    def test_nothing_acknowledged_is_lost_when_it_is_killed_in_the_middle_of_pushes(self, server, start, redis_server):
        one = server("one")
        load(one)
        pushing = start(
            "two",
            """
            id = 0
            while True:
                id += 1
                try:
                    store.push("sales", t.KEY, t.events((id, "a", 1), (id + 1_000_000, "b", 1)))
                except t.Unavailable:
                    t.time.sleep(0.02)
                else:
                    print(id, flush=True)
            """,
        )
        acknowledged = []
        gathering = threading.Thread(target=lambda: acknowledged.extend(int(each) for each in pushing.stdout))
        gathering.start()
        for count in (20, 60, 100):
            until(lambda count=count: (live(one, "a") or (0,))[0] >= count)
            redis_server.kill()
            first, second = live_of(one, "a", "b")
            assert first == second
            redis_server.start()
        until(lambda: live(one, "a")[0] >= 140)
        os.kill(pushing.pid, signal.SIGKILL)
        gathering.join()
        assert len(acknowledged) > 100
        found = set()
        until(lambda: one.synced_at() is None)
        time.sleep(1)
        for each in one._local.pending("sales").rows["id"].to_pylist():
            assert each not in found
            found.add(each)
        assert set(acknowledged) <= found
        first, second = live_of(one, "a", "b")
        assert first[0] == second[0] == len(found) / 2


@pytest.mark.slow
def test_servers_agree_after_all_kinds_of_work_while_redis_is_killed(server, redis_server):
    """Two servers push the same kinds of rows, land them in a lake and load from it; operations leave Redis at once."""
    chance = random.Random(11)
    options = {"retention": timedelta(0)}
    stores = {name: server(name, **options) for name in "ab"}
    load(stores["a"])
    lake, acknowledged, failures = {}, {}, []
    lake_lock, over = threading.Lock(), threading.Event()

    def push(name, base):
        mine = random.Random(base)
        while not over.is_set():
            row = (base + mine.randrange(100), mine.choice("xyz"), mine.randrange(1000))
            acknowledged.pop(row[0], None)  # until it is known
            stores[name].push("sales", KEY, events(row))
            acknowledged[row[0]] = row[1:]

    def land():
        time.sleep(0.05)
        store = stores[chance.choice("ab")]
        found = store.pending("sales", chance.choice([3, 50, 1000]))
        if found is not None:
            with lake_lock:
                lake.update((row["id"], (row["shop"], row["amount"])) for row in found.rows.to_pylist())
            store.land("sales", found.last)

    def load_again():
        time.sleep(0.3)
        store = stores[chance.choice("ab")]
        position = store.landed("sales")
        with lake_lock:
            rows = [(id, *rest) for id, rest in lake.items()]
        load(store, *rows, position=position)

    def work(action, *arguments):
        while not over.is_set():
            try:
                action(*arguments)
            except (Unavailable, Conflict):
                pass
            except Exception as error:
                failures.append(error)

    actions = [(push, "a", 0), (push, "b", 1000), (land,), (load_again,)]
    threads = [threading.Thread(target=work, args=each) for each in actions]
    for each in threads:
        each.start()
    for _ in range(5):
        time.sleep(chance.uniform(1, 2))
        redis_server.kill()
        time.sleep(chance.uniform(0, 0.5))
        redis_server.start()
    over.set()
    for each in threads:
        each.join()
    assert not failures
    again(lambda: stores["a"].push("sales", KEY, events((5000, "end", 1))))
    stores["c"] = server("c")
    for each in stores.values():
        until(lambda each=each: live(each, "end") == (1, 1) and each.synced_at() is None)
    rows = dict(lake)
    for row in stores["a"]._local.pending("sales").rows.to_pylist():
        rows[row["id"]] = (row["shop"], row["amount"])
    assert len(acknowledged) > 20
    assert {id: rows.get(id) for id in acknowledged} == acknowledged
    for shop in "xyz":
        amounts = [amount for name, amount in rows.values() if name == shop]
        assert {live(each, shop) for each in stores.values()} == {(len(amounts), sum(amounts))}


class TestRedisThatLost:
    def test_one_that_comes_back_empty_gets_it_all_back(self, server, redis_server, caplog):
        one, two = server("one"), server("two")
        load(one, (1, "a", 5))
        publish(one, {"a": 1})
        one.push("sales", KEY, events((2, "a", 6)))
        until(lambda: live(two, "a") == (2, 11) and values(two, "a") == [1])
        redis_server.kill()
        shutil.rmtree(redis_server.folder)
        redis_server.start()
        again(lambda: two.push("sales", KEY, events((3, "a", 7))))
        for each in (one, two, server("three")):
            until(lambda each=each: live(each, "a") == (3, 18) and values(each, "a") == [1])
            until(lambda each=each: each.synced_at() is None)
            assert sorted(each._local.pending("sales").rows["id"].to_pylist()) == [2, 3]
        assert "lost everything" in caplog.text

    def test_one_that_comes_back_with_an_older_state_is_offered_what_it_lost(
        self, server, redis_server, tmp_path, caplog
    ):
        one, two = server("one"), server("two")
        load(one, (1, "a", 5))
        one.push("sales", KEY, events((2, "a", 6)))
        until(lambda: live(two, "a") == (2, 11))
        redis_server.kill()
        shutil.copytree(redis_server.folder, tmp_path / "backup")
        redis_server.start()
        again(lambda: one.push("sales", KEY, events((3, "a", 7), (4, "b", 8))))
        until(lambda: live(two, "a") == (3, 18))
        redis_server.kill()
        shutil.rmtree(redis_server.folder)
        shutil.move(tmp_path / "backup", redis_server.folder)
        redis_server.start()
        again(lambda: two.push("sales", KEY, events((5, "b", 9))))
        for each in (one, two, server("three")):
            until(lambda each=each: live(each, "a") == (3, 18) and live(each, "b") == (2, 17))
            assert sorted(each._local.pending("sales").rows["id"].to_pylist()) == [2, 3, 4, 5]
        assert "has lost operations" in caplog.text

    def test_what_was_done_since_stands_and_lost_states_of_views_come_back(self, server, redis_server, tmp_path):
        one = server("one")
        load(one, (1, "a", 5))
        one.push("sales", KEY, events((2, "a", 6)))
        publish(one, {"a": 1})
        redis_server.kill()
        shutil.copytree(redis_server.folder, tmp_path / "backup")
        redis_server.start()
        again(lambda: one.push("sales", KEY, events((2, "a", 7), (3, "a", 1), (4, "b", 1))))
        again(lambda: one.land("sales", 3))
        publish(one, {"a": 2}, hour=2)
        one.close()
        redis_server.kill()
        shutil.rmtree(redis_server.folder)
        shutil.move(tmp_path / "backup", redis_server.folder)
        redis_server.start()
        two = server("two")
        until(lambda: live(two, "a") == (2, 11))
        two.push("sales", KEY, events((3, "a", 100)))
        one = server("one")
        for each in (one, two, server("three")):
            until(lambda each=each: live(each, "a") == (3, 112) and live(each, "b") == (1, 1))
            until(lambda each=each: values(each, "a") == [2])
            until(lambda each=each: each.synced_at() is None)

    def test_an_empty_one_that_a_new_server_meets_first_gets_back_what_others_hold(self, server, redis_server):
        one = server("one")
        load(one, (1, "a", 5))
        publish(one, {"a": 1})
        one.push("sales", KEY, events((2, "a", 6)))
        one.close()
        redis_server.kill()
        shutil.rmtree(redis_server.folder)
        redis_server.start()
        two = server("two")
        assert two.states() == []
        one = server("one")
        for each in (one, two):
            until(lambda each=each: live(each, "a") == (2, 11) and values(each, "a") == [1])
            assert each._local.pending("sales").rows["id"].to_pylist() == [2]

    def test_one_that_may_lose_what_it_acknowledged_is_warned_of(self, server, redis_server, caplog):
        redis_server.kill()
        redis_server.start("--appendfsync", "everysec", "--maxmemory-policy", "allkeys-lru")
        with caplog.at_level(logging.WARNING):
            server("one")
        assert "appendfsync everysec" in caplog.text
        assert "maxmemory-policy allkeys-lru" in caplog.text


class TestUrl:
    def test_the_password_is_in_no_error(self, redis_server, tmp_path, caplog):
        redis_server.kill()
        redis_server.start("--requirepass", "right")
        address = f"127.0.0.1:{redis_server.port}"
        store = RedisStore(f"redis://:wrong-secret@{address}/0", LmdbStore(tmp_path / "a"), project="p", patience=0.2)
        with pytest.raises(Unavailable, match="refuses the user or the password") as error:
            store.push("sales", KEY, events((1, "a", 5)))
        store.close()
        assert "secret" not in str(error.value) + repr(error.value.__cause__) + caplog.text
        store = RedisStore(f"redis://:right@{address}/0", LmdbStore(tmp_path / "a"), project="p")
        assert store.push("sales", KEY, events((1, "a", 5))).position == 1
        store.close()

    @pytest.mark.parametrize("url", ["http://me:secret@host", "redis://me:secret@host:port/0", "secret"])
    def test_what_is_no_url_is_refused(self, url, tmp_path):
        replica = LmdbStore(tmp_path / "a")
        with pytest.raises(SettingsError, match="is no URL of Redis") as error:
            RedisStore(url, replica, project="p")
        assert "secret" not in str(error.value)
        replica.close()


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.delitem(sys.modules, "millpond.features.online.redis")
    with pytest.raises(MissingExtra) as error:
        importlib.import_module("millpond.features.online.redis")
    assert "millpond[redis]" in error.value.hint
