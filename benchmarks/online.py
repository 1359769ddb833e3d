"""Looking features up online, in process: 50 floats of 1 and of 100 entities, live windows, and a pushed event.

Peers hold the same values: Feast on SQLite and on Redis, a bare LMDB `get` and a bare Redis `MGET` of the bytes that
Millpond packs. Feast is asked for a dictionary (`to_dict`), a bare read for a numpy array. Redis is `redis-server` on
a free loopback port, for the time of the benchmark. Every way runs in a fresh process and checks what it reads.
`python -m benchmarks online`
"""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import millpond as mp
from benchmarks import processes
from benchmarks.training_set import FileEngine, different_values

ENTITIES, FEATURES = 20_000, 50
ROUNDS = {1: 5_000, 100: 500}  # entities in a lookup, and how many lookups are timed
WARM = 50
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
AIRPORTS, DAYS, ROWS_A_DAY = 3, 3, 400
LIVE_LOOKUPS, PUSHES = 2_000, 300
GOAL_FEAST, GOAL_BARE = 100, 3


def generate(folder: Path) -> None:
    """`values.parquet`, one row an entity."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    floats = np.random.default_rng(11).random((FEATURES, ENTITIES))
    columns = {f"f{index}": values for index, values in enumerate(floats)}
    at = pa.array([NOW - timedelta(hours=1)] * ENTITIES, pa.timestamp("us", tz="UTC"))
    pq.write_table(pa.table({"account": np.arange(ENTITIES), "ts": at, **columns}), folder / "values.parquet")


def online_view(view: mp.Features, rows: Any) -> Any:
    """The view as an online store knows it, over a table with the columns of some Arrow rows."""
    from millpond.features.online.ports import OnlineView
    from millpond.features.plan import plan_view
    from millpond.features.ports import PinnedView
    from millpond.lake.ports import Column, Snapshot

    types = {"int64": "long", "double": "double", "timestamp[us, tz=UTC]": "timestamptz"}
    columns = tuple(Column(field.name, types[str(field.type)]) for field in rows.schema)
    return OnlineView.of(plan_view(PinnedView(view, Snapshot(view.source.name, 1, NOW, rows.num_rows, columns))))


def timed(look: Callable[[Any], Any], calls: Sequence[Any]) -> tuple[float, float]:
    """Median and 99th percentile of the calls, in microseconds, after some that are not counted."""
    taken = []
    for number, each in enumerate(calls):
        began = time.perf_counter_ns()
        look(each)
        if number >= WARM:
            taken.append((time.perf_counter_ns() - began) / 1e9)
    return processes.percentiles(taken)


def lookups(number: int) -> list[list[tuple[int]]]:
    """The same random keys for every way."""
    chance = random.Random(number)
    return [[(chance.randrange(ENTITIES),) for _ in range(number)] for _ in range(ROUNDS[number] + WARM)]


def by_millpond(folder: Path, _: str) -> dict[str, Any]:
    """Opening a read, the values as Python floats, closing it; and the same as Arrow columns."""
    import pyarrow.parquet as pq

    from millpond.features.online.lmdb import LmdbStore

    rows = pq.read_table(folder / "values.parquet")
    names = [f"f{index}" for index in range(FEATURES)]
    table = mp.Table("values", key="account", time="ts")
    view = mp.Features(
        "v",
        entity=mp.Entity("account", key="account"),
        source=table,
        every="1h",
        **{name: mp.latest(name) for name in names},
    )
    online, store = online_view(view, rows), LmdbStore(folder / "store")
    packed = rows.drop_columns(["ts"]).rename_columns(["account", *(f"v__{name}" for name in names)])
    store.publish(online, 1, NOW, packed.to_reader(), full=True)

    def values(keys: list[tuple[int]]) -> Any:
        with store.read() as reader:
            return reader.values(online, keys)

    def columns(keys: list[tuple[int]]) -> Any:
        with store.read() as reader:
            return reader.columns(online, keys)

    expected = list(zip(*(rows[name].to_pylist() for name in names), strict=True))
    for keys in lookups(100)[:20]:
        if values(keys) != [expected[key] for (key,) in keys]:
            raise SystemExit("Millpond answers with other values than it was given")
    figures: dict[str, Any] = {str(number): timed(values, lookups(number)) for number in ROUNDS}
    figures["columns"] = timed(columns, lookups(100))
    store.close()
    return figures


def packed_values(folder: Path) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values as a bare store holds them: as many bytes as Millpond packs."""
    import numpy as np
    import pyarrow.parquet as pq

    rows = pq.read_table(folder / "values.parquet")
    floats = np.stack([rows[f"f{index}"].to_numpy() for index in range(FEATURES)], axis=1)
    head = bytes(8 + -(-FEATURES // 8))
    for account, each in enumerate(floats):
        yield account.to_bytes(8, "big"), head + each.tobytes()


def unpacked(found: list[bytes]) -> Any:
    """The floats of some entities, one row each."""
    import numpy as np

    head = 8 + -(-FEATURES // 8)
    if len(found) == 1:
        return np.frombuffer(found[0], "<f8", offset=head)
    return np.frombuffer(b"".join(found), np.dtype([("head", f"V{head}"), ("values", "<f8", (FEATURES,))]))["values"]


def by_lmdb(folder: Path, _: str) -> dict[str, Any]:
    """A transaction, `get`, and `numpy.frombuffer`."""
    import lmdb

    expected = dict(packed_values(folder))
    environment = lmdb.open(str(folder / "bare"), map_size=1 << 30)
    with environment.begin(write=True) as writing:
        for key, value in expected.items():
            writing.put(key, value)

    def look(keys: list[tuple[int]]) -> Any:
        with environment.begin() as reading:
            return unpacked([reading.get(key.to_bytes(8, "big")) for (key,) in keys])

    _check_bare(look, expected)
    figures: dict[str, Any] = {str(number): timed(look, lookups(number)) for number in ROUNDS}
    figures["commit"] = timed(lambda key: _put(environment, key), [bytes([index % 256]) for index in range(PUSHES)])
    return figures


def _put(environment: Any, key: bytes) -> None:
    with environment.begin(write=True) as writing:
        writing.put(key, bytes(100))


def by_redis(folder: Path, address: str) -> dict[str, Any]:
    """`MGET` over loopback, and `numpy.frombuffer`."""
    import redis

    host, _, port = address.partition(":")
    expected = dict(packed_values(folder))
    client = redis.Redis(host, int(port))
    client.mset({b"bare:" + key: value for key, value in expected.items()})

    def look(keys: list[tuple[int]]) -> Any:
        return unpacked(client.mget([b"bare:" + key.to_bytes(8, "big") for (key,) in keys]))

    _check_bare(look, expected)
    return {str(number): timed(look, lookups(number)) for number in ROUNDS}


def _check_bare(look: Callable[[list[tuple[int]]], Any], expected: dict[bytes, bytes]) -> None:
    for keys in lookups(100)[:20]:
        if not (look(keys) == unpacked([expected[key.to_bytes(8, "big")] for (key,) in keys])).all():
            raise SystemExit("A bare store answers with other values than it was given")


def by_live(folder: Path, _: str) -> dict[str, Any]:
    """Six windows over the departures of airports, at instants of the last day, and one pushed event at a time."""
    import pyarrow as pa

    from millpond.features.online.lmdb import LmdbStore

    rows = flights()
    view = mp.Features(
        "traffic",
        entity=mp.Entity("airport", key="airport"),
        source=mp.Table("flights", key="id", time="departed"),
        mean_1h=mp.mean("delay", over="1h"),
        mean_3h=mp.mean("delay", over="3h"),
        mean_24h=mp.mean("delay", over="24h"),
        worst_3h=mp.max("delay", over="3h"),
        departures_1h=mp.count(over="1h"),
        departures_3h=mp.count(over="3h"),
    )
    online, store = online_view(view, rows), LmdbStore(folder / "live")
    since = NOW - timedelta(days=1)
    store.load(online, 1, since, 0, rows.sort_by([("airport", "ascending"), ("departed", "ascending")]).to_reader())
    chance = random.Random(5)
    start, day = int(since.timestamp() * 1_000_000), 86_400_000_000
    asked = [((chance.randrange(AIRPORTS),), start + chance.randrange(day)) for _ in range(LIVE_LOOKUPS + WARM)]

    def look(one: tuple[tuple[int], int]) -> Any:
        with store.read() as reader:
            return reader.live(online, [one[0]], [one[1]])

    figures: dict[str, Any] = {
        "live": timed(look, asked),
        "live hundred": timed(_hundred(store, online), [asked[:100]] * 100),
    }
    wrong = _live_differences(folder, view, rows, asked, [look(one)[0] for one in asked])
    pushed = [pa.Table.from_pylist([one], schema=rows.schema) for one in _events(rows.num_rows, PUSHES + WARM, NOW)]
    figures["push"] = timed(lambda event: store.push("flights", ("id",), event), pushed)
    with store.read() as reader:
        instant = int((NOW + timedelta(hours=1)).timestamp() * 1_000_000)
        counted = sum(
            one[4] for one in reader.live(online, [(each,) for each in range(AIRPORTS)], [instant] * AIRPORTS)
        )
    if counted != PUSHES + WARM:
        raise SystemExit(f"{PUSHES + WARM} events were pushed, and {counted} are in the window")
    store.close()
    return {**figures, "wrong": wrong}


def _hundred(store: Any, online: Any) -> Callable[[list[tuple[tuple[int], int]]], Any]:
    def look(asked: list[tuple[tuple[int], int]]) -> Any:
        with store.read() as reader:
            return reader.live(online, [key for key, _ in asked], [at for _, at in asked])

    return look


def flights() -> Any:
    """Departures of a few days up to now."""
    import pyarrow as pa

    number = AIRPORTS * DAYS * ROWS_A_DAY
    schema = pa.schema(
        {"id": pa.int64(), "airport": pa.int64(), "departed": pa.timestamp("us", tz="UTC"), "delay": pa.float64()}
    )
    return pa.Table.from_pylist(list(_events(0, number, NOW - timedelta(days=DAYS))), schema=schema)


def _events(first: int, number: int, start: datetime) -> Iterator[dict[str, Any]]:
    """Departures one after another, evenly over the days, or over half an hour for those pushed."""
    chance = random.Random(first)
    step = timedelta(days=DAYS) / number if first == 0 else timedelta(minutes=30) / number
    for index in range(number):
        delay = None if chance.random() < 0.02 else float(chance.randrange(-10, 200))
        airport = chance.randrange(AIRPORTS)
        yield {"id": first + index, "airport": airport, "departed": start + index * step, "delay": delay}


def _live_differences(folder: Path, view: mp.Features, rows: Any, asked: list[Any], found: list[Any]) -> int:
    """Values in which the store's answers differ from the offline join's at the same instants."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from millpond.features.point_in_time import join_features
    from millpond.features.ports import PinnedView
    from millpond.lake.ports import Column, Snapshot

    types = {"id": "long", "airport": "long", "departed": "timestamptz", "delay": "double"}
    snapshot = Snapshot("flights", 1, NOW, rows.num_rows, tuple(Column(name, each) for name, each in types.items()))
    examples = pa.table(
        {
            "example": list(range(len(asked))),
            "airport": [key for (key,), _ in asked],
            "asked": pa.array([at for _, at in asked], pa.timestamp("us", tz="UTC")),
        }
    )
    answers = {name: [one[index] for one in found] for index, name in enumerate(view.columns)}
    pq.write_table(rows, folder / "flights.parquet")
    pq.write_table(examples, folder / "asked.parquet")
    pq.write_table(pa.table({"example": examples["example"], **answers}), folder / "answers.parquet")
    engine = FileEngine(folder)
    with engine.session():
        spine = f"read_parquet('{folder / 'asked.parquet'}')"
        relation = join_features(engine, spine, "asked", [PinnedView(view, snapshot)])
        answered = f"read_parquet('{folder / 'answers.parquet'}')"
        return different_values(engine, view.columns, relation, answered, len(asked))


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """A Redis of our own on a free loopback port, without persistence; its address."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        raise SystemExit("The benchmark needs redis-server on the PATH, and there is none")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(processes.kept(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        else:
            raise SystemExit("redis-server did not answer within 5 s")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=10)


WAYS = {"millpond": by_millpond, "lmdb": by_lmdb, "redis": by_redis, "live": by_live}


def run() -> list[dict[str, Any]]:
    """Measure every way, and the ratios of the medians and of the 99th percentiles."""
    feast = processes.peer("feast")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        processes.child("benchmarks.online", "generate", name)
        with redis_server(folder) as address:
            taken = {way: processes.child("benchmarks.online", way, name, address) for way in WAYS}
            for kind in ("sqlite", "redis"):
                taken[f"Feast on {kind}"] = processes.child(
                    "benchmarks.store_feast", "online", name, kind, address, python=feast
                )
    return [*_lookup_rows(taken), *_live_rows(taken)]


def _lookup_rows(taken: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for number in map(str, ROUNDS):
        title = f"online, {FEATURES} features of {number} " + ("entity" if number == "1" else "entities")
        for index, percentile in enumerate(("p50", "p99")):
            times = {way: figures[number][index] for way, figures in taken.items() if number in figures}
            rivals = {way: us for way, us in times.items() if way.startswith("Feast")}
            yield {
                "name": f"{title}, {percentile}: against Feast",
                "value": min(rivals.values()) / times["millpond"],
                "goal": GOAL_FEAST,
                "at_most": False,
                "unit": f"x faster than {min(rivals, key=lambda way: rivals[way])}",
                "note": ", ".join(f"{way} {us:,.1f} µs" for way, us in times.items()),
            }
            yield {
                "name": f"{title}, {percentile}: against a bare read",
                "value": times["millpond"] / times["lmdb"],
                "goal": GOAL_BARE,
                "unit": "x LMDB get and frombuffer",
                "note": f"{times['millpond'] / times['redis']:.2f} x Redis MGET and frombuffer",
            }
    columns, bare = taken["millpond"]["columns"], taken["lmdb"]["100"]
    yield {
        "name": f"online, {FEATURES} features of 100 entities, as Arrow columns",
        "value": columns[0] / bare[0],
        "goal": None,
        "unit": "x LMDB get and frombuffer",
        "note": f"p50 {columns[0]:.1f} µs, p99 {columns[1]:.1f} µs",
    }
    yield {
        "name": "online: memory",
        "value": taken["millpond"]["MiB"] / taken["Feast on sqlite"]["MiB"],
        "goal": None,
        "unit": "x Feast on sqlite",
        "note": "peak MiB: " + ", ".join(f"{way} {figures['MiB']:,.0f}" for way, figures in taken.items()),
    }


def _live_rows(taken: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    found, commit = taken["live"], taken["lmdb"]["commit"]
    shape = f"6 windows up to a day, {ROWS_A_DAY} rows a day and entity"
    for key, title in (("live", "online, live windows of 1 entity"), ("live hundred", "online, live windows of 100")):
        yield {
            "name": f"{title}, p50",
            "value": found[key][0],
            "goal": None,
            "unit": "µs",
            "note": f"p99 {found[key][1]:.1f} µs; {shape}",
        }
    yield {
        "name": "online, live windows: differences",
        "value": found["wrong"],
        "goal": 0,
        "unit": "values",
        "note": f"from the offline join at {LIVE_LOOKUPS + WARM:,} instants; floating means to a relative 1e-9",
    }
    yield {
        "name": "online, one pushed event, p50",
        "value": found["push"][0] / 1000,
        "goal": None,
        "unit": "ms",
        "note": f"durable and in the next lookup; p99 {found['push'][1] / 1000:.2f} ms; "
        f"a bare durable LMDB commit {commit[0] / 1000:.2f} ms, p99 {commit[1] / 1000:.2f} ms",
    }


def main() -> None:
    what, folder = sys.argv[1], Path(sys.argv[2])
    processes.keep_to_cores()
    if what == "generate":
        generate(folder)
        processes.tell()
        return
    figures = WAYS[what](folder, sys.argv[3])
    processes.tell(**figures, MiB=processes.peak())


if __name__ == "__main__":
    main()
