"""What is LMDB's own: its files, their limits, and processes that end or fork."""

import os
import re
import signal
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import lmdb
import pyarrow as pa
import pytest

from millpond.core.errors import StoreMismatch, Unavailable
from millpond.features.online import records
from millpond.features.online.lmdb import LmdbStore
from millpond.features.online.ports import OnlineView
from millpond.features.plan import Feature, SourceColumn

T0 = datetime(2020, 1, 1, tzinfo=UTC)
V = SourceColumn("v", "double", "c0")
TYPES = {"k": "string", "id": "long", "ts": "timestamptz", "v": "double"}
SHOWS = ("e", ("k",), "t", ("id",), "ts", None)
GRID = OnlineView("grid", *SHOWS, 1, (V,), (Feature("f", "max", V, None, None),), TYPES)
LIVE = OnlineView("live", *SHOWS, None, (V,), (Feature("g", "max", V, None, None),), TYPES)


def publish(store, count, value, size=1):
    rows = pa.table({"k": [f"{n}".zfill(size) for n in range(count)], "f": [value] * count})
    return store.publish(GRID, 1, T0, rows.to_reader(1000), full=True)


def events(*ids, text=""):
    instants = pa.array([0] * len(ids), pa.timestamp("us", tz="UTC"))
    return pa.table(
        {"id": ids, "k": ["a"] * len(ids), "ts": instants, "v": [float(each) for each in ids], "x": [text] * len(ids)}
    )


def value(store, size=1):
    with store.read() as reading:
        return reading.values(GRID, [("0".zfill(size),)])[0]


def run(code, folder, **more):
    """Run Python text in another process; it may use this module as `here`, and `folder`."""
    head = f"""
    import sys
    from pathlib import Path
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    import test_lmdb_store as here
    folder = Path({str(folder)!r})
    """
    text = textwrap.dedent(head) + textwrap.dedent(code)
    return subprocess.Popen([sys.executable, "-u", "-c", text], stdout=subprocess.PIPE, text=True, **more)


def finish(process):
    out, _ = process.communicate(timeout=100)
    assert process.returncode == 0
    return out


class TestFiles:
    def test_a_store_of_another_format_is_refused(self, tmp_path):
        LmdbStore(tmp_path).close()
        with lmdb.open(str(tmp_path), max_dbs=16) as env, env.begin(write=True) as txn:
            txn.put(b"format", b"0", db=env.open_db(b"meta", txn=txn))
        with pytest.raises(StoreMismatch, match="format 0") as error:
            LmdbStore(tmp_path)
        assert "millpond feature refresh --full" in error.value.hint
        with pytest.raises(StoreMismatch):
            LmdbStore(tmp_path)

    def test_files_of_something_else_are_refused(self, tmp_path):
        with lmdb.open(str(tmp_path / "a")) as env, env.begin(write=True) as txn:
            txn.put(b"something", b"else")
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "data.mdb").write_bytes(b"no database" * 1000)
        for name in "ab":
            with pytest.raises(StoreMismatch):
                LmdbStore(tmp_path / name)

    def test_values_of_another_schema_in_the_place_of_this_one_are_refused(self, tmp_path):
        store = LmdbStore(tmp_path)
        publish(store, 1, 1.0)
        environment = store._environment
        with environment.write() as txn:
            key, packed = next(iter(txn.cursor(environment.values)))
            txn.put(key, b"otherone" + packed[8:], db=environment.values)
        with pytest.raises(StoreMismatch, match="schema"):
            value(store)
        store.close()

    def test_a_folder_is_opened_once_and_shared(self, tmp_path):
        one, other = LmdbStore(tmp_path / "s"), LmdbStore(tmp_path / "x" / ".." / "s")
        publish(one, 1, 1.0)
        assert value(other) == (1.0,)
        one.close()
        one.close()
        assert value(other) == (1.0,)
        other.close()
        again = LmdbStore(tmp_path / "s")
        assert value(again) == (1.0,)
        again.close()

    def test_a_map_that_is_full_leaves_all_as_it_was(self, tmp_path):
        store = LmdbStore(tmp_path, map_size=1 << 20)
        publish(store, 10, 1.0)
        for _ in range(3):
            with pytest.raises(Unavailable, match="greatest size"):
                publish(store, 100_000, 2.0)
        assert value(store) == (1.0,)
        publish(store, 10, 3.0)
        assert value(store) == (3.0,)
        store.close()

    def test_waste_of_failed_and_replaced_states_is_deleted(self, tmp_path):
        store = LmdbStore(tmp_path)
        environment = store._environment

        def broken():
            yield from events(*range(30_000)).select(["id", "k", "ts", "v"]).to_batches(10_000)
            raise ValueError("broken")

        for _ in range(2):
            publish(store, 100, 1.0)
            store.load(LIVE, 1, None, 0, events(1, 2).to_reader())
            schema = events(1).select(["id", "k", "ts", "v"]).schema
            with pytest.raises(ValueError, match="broken"):
                store.load(LIVE, 1, None, 0, pa.RecordBatchReader.from_batches(schema, broken()))
        with environment.look() as txn:
            assert records.garbage(environment, txn) == []
            assert records.intents(environment, txn) == []
            prefixes = {head.prefix for _, head in records.heads(environment, txn)}
            assert len(prefixes) == 2
            for map_ in (environment.values, environment.live, environment.places):
                assert {key[: records.PREFIX] for key, _ in txn.cursor(map_)} <= prefixes
            assert txn.stat(environment.values)["entries"] == 100
            assert txn.stat(environment.places)["entries"] == 2
        store.close()


@pytest.mark.slow
class TestProcesses:
    def test_a_full_disk_leaves_all_as_it_was_and_work_goes_on_when_there_is_space(self, tmp_path):
        process = run(
            """
            import resource
            from millpond.core.errors import Unavailable
            store = here.LmdbStore(folder)
            here.publish(store, 10, 1.0)
            store.load(here.LIVE, 1, None, 0, here.events(0).to_reader())
            limits = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
            pushed = 0
            try:
                while True:
                    store.push("t", ("id",), here.events(pushed + 1, text="x" * 20_000))
                    pushed += 1
            except Unavailable as error:
                print(error.what)
            try:
                here.publish(store, 100_000, 2.0)
            except Unavailable as error:
                print(error.what)
            assert here.value(store) == (1.0,)
            assert store.pending("t").rows.num_rows == pushed > 3
            with store.read() as reading:
                assert reading.live(here.LIVE, [("a",)], [10]) == [(float(pushed),)]
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            assert store.push("t", ("id",), here.events(pushed + 1)) == (pushed + 1, 1, 0)
            assert here.publish(store, 100_000, 2.0).entities == 100_000
            """,
            tmp_path,
        )
        told = finish(process).splitlines()
        assert len(told) == 2
        assert all(re.match(r"There is no space left|The disk did not take", each) for each in told)
        store = LmdbStore(tmp_path)
        assert value(store) == (2.0,)
        store.close()

    def test_an_address_space_with_a_limit(self, tmp_path):
        process = run(
            """
            import resource
            resource.setrlimit(resource.RLIMIT_AS, (64 << 30, 64 << 30))
            store = here.LmdbStore(folder)
            here.publish(store, 10, 1.0)
            print(here.value(store))
            """,
            tmp_path,
        )
        assert finish(process) == "(1.0,)\n"

    def test_many_processes_make_one_store(self, tmp_path):
        processes = [
            run(
                f"""
                store = here.LmdbStore(folder)
                for n in range(10):
                    store.push("t", ("id",), here.events({each} * 10 + n))
                print("done")
                """,
                tmp_path,
            )
            for each in range(2)
        ]
        assert [finish(each) for each in processes] == ["done\n"] * 2
        store = LmdbStore(tmp_path)
        assert sorted(store.pending("t").rows["id"].to_pylist()) == [*range(20)]
        store.close()

    def test_a_forked_process_is_refused_and_its_parent_goes_on(self, tmp_path):
        process = run(
            """
            import os
            from millpond.core.errors import Unavailable
            store = here.LmdbStore(folder)
            here.publish(store, 10, 1.0)
            with store.read() as reading:
                child = os.fork()
                if child == 0:
                    for use in (lambda: here.value(store), lambda: here.LmdbStore(folder), store.states):
                        try:
                            use()
                        except Unavailable as error:
                            print(error.hint)
                    store.close()
                    sys.exit(0)
                os.waitpid(child, 0)
                assert len(store._environment.env.readers().splitlines()) == 2
                assert reading.values(here.GRID, [("0",)]) == [(1.0,)]
            here.publish(store, 10, 2.0)
            print(here.value(store))
            """,
            tmp_path,
        )
        assert (
            finish(process)
            == "start worker processes by spawn, or open the store after the fork only\n" * 3 + "(2.0,)\n"
        )

    def test_a_killed_reader_does_not_keep_old_pages(self, tmp_path):
        store = LmdbStore(tmp_path)
        publish(store, 10, 1.0)
        process = run(
            """
            import time
            store = here.LmdbStore(folder)
            with store.read():
                print("reading", flush=True)
                time.sleep(60)
            """,
            tmp_path,
        )
        assert process.stdout.readline() == "reading\n"
        assert str(process.pid) in store._environment.env.readers()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        publish(store, 10, 2.0)
        assert str(process.pid) not in store._environment.env.readers()
        size = (tmp_path / "data.mdb").stat().st_size
        for number in range(50):
            publish(store, 1000, float(number))
        assert (tmp_path / "data.mdb").stat().st_size < size + 3_000_000
        store.close()
