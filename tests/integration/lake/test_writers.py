"""Several processes write at once; processes are killed while they write."""

import multiprocessing
import os
import signal
import textwrap
import time
from datetime import timedelta

import pyarrow as pa
import pytest

from millpond.lake.duckdb import DuckDBEngine
from millpond.lake.iceberg import IcebergLake

pytestmark = pytest.mark.slow

HEAD = """
from pathlib import Path
import pyarrow as pa  # noqa: TID253
from millpond.lake.iceberg import IcebergLake
lake = IcebergLake(Path(root))
"""
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["pyiceberg.catalog.sql", "pyiceberg.io.pyarrow", "duckdb", "millpond.lake.iceberg"])


def start(root, body, number=0):
    """A process that runs `body`, with `lake`, its `number`, and `say` to tell its parent something."""
    heard, spoken = SERVER.Pipe(duplex=False)
    values = {"root": str(root), "number": number, "say": spoken.send}
    process = SERVER.Process(target=exec, args=(HEAD + textwrap.dedent(body), values))
    process.start()
    spoken.close()
    return process, heard


def finish(started):
    for process, heard in started:
        process.join(timeout=120)
        heard.close()
        assert process.exitcode == 0


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.join(timeout=30)


def said(heard):
    """All that a dead process had said."""
    found = []
    try:
        while True:
            found.append(heard.recv())
    except EOFError:
        return found


def rows(root, sql):
    lake = IcebergLake(root)
    engine = DuckDBEngine(lake, threads=1)
    try:
        return engine.rows(sql.format(engine.scan(lake.snapshot("t"))))
    finally:
        engine.close()


def test_appends_of_processes_all_arrive_once(tmp_path):
    body = """
        for i in range(5):
            rows = pa.table({"w": [number] * 10, "i": [i] * 10, f"own_{number}": [i] * 10})
            lake.append("t", rows, token=f"{number}-{i}")
    """
    finish([start(tmp_path, body, number) for number in range(3)])
    assert rows(tmp_path, "SELECT count(*), count(DISTINCT (w, i)) FROM {}") == [(150, 15)]
    for number in range(3):  # each added a column of its own at the same time as the others
        own = f"own_{number}"
        query = f"SELECT count({own}), sum(abs({own} - i)), count(DISTINCT w) FROM {{}} WHERE {own} IS NOT NULL"
        assert rows(tmp_path, query) == [(50, 0, 1)]
    assert len(IcebergLake(tmp_path).history("t")) == 15


def test_upserts_of_the_same_keys_leave_one_row_a_key(tmp_path):
    body = """
        for i in range(5):
            keys = list(range(i * 10, i * 10 + 20))
            lake.upsert("t", pa.table({"k": keys, "w": [number] * 20, "i": [i] * 20}), ["k"])
    """
    finish([start(tmp_path, body, number) for number in range(3)])
    assert rows(tmp_path, "SELECT count(*), count(DISTINCT k), min(k), max(k) FROM {}") == [(60, 60, 0, 59)]
    history = IcebergLake(tmp_path).history("t")
    assert [each.rows for each in history] == sorted(each.rows for each in history)
    assert len(history) == 15


def test_a_writer_killed_while_it_commits_loses_and_breaks_nothing(tmp_path):
    body = """
        for i in range(10_000):
            lake.upsert("t", pa.table({"k": list(range(100)), "i": [i] * 100}), ["k"])
            say(i)
    """
    for delay in (0.0, 0.013, 0.04):
        process, heard = start(tmp_path, body)
        acknowledged = [heard.recv() for _ in range(3)]
        time.sleep(delay)
        kill(process)
        last = (acknowledged + said(heard))[-1]
        [(count, keys, low, high)] = rows(tmp_path, "SELECT count(*), count(DISTINCT k), min(i), max(i) FROM {}")
        assert (count, keys) == (100, 100)
        assert low == high
        assert high in (last, last + 1)


def test_a_writer_killed_mid_stream_leaves_only_files_to_collect(tmp_path):
    body = """
        import time
        def batches():
            for i in range(10_000):
                yield pa.record_batch({"i": list(range(50_000))})
                if i == 20:
                    say("streaming")
                    time.sleep(60)
        lake.append("t", pa.table({"i": [1]}), token="first")
        schema = pa.schema([("i", pa.int64())])
        lake.append("t", pa.RecordBatchReader.from_batches(schema, batches()))
    """
    process, heard = start(tmp_path, body)
    assert heard.recv() == "streaming"
    kill(process)
    lake = IcebergLake(tmp_path)
    assert len(list(lake.warehouse.glob("main/t/data/*"))) == 2
    assert rows(tmp_path, "SELECT * FROM {}") == [(1,)]
    assert lake.append("t", pa.table({"i": [2]})).rows == 2
    for path in lake.warehouse.rglob("*.*"):
        os.utime(path, (0, 0))
    assert lake.collect_garbage(timedelta(hours=1)).files == 1
    assert rows(tmp_path, "SELECT i FROM {} ORDER BY 1") == [(1,), (2,)]


def test_two_processes_open_a_new_lake_at_once(tmp_path):
    body = """
        lake.append("t", pa.table({"w": [number]}))
    """
    finish([start(tmp_path / "new", body, number) for number in range(3)])
    assert rows(tmp_path / "new", "SELECT w FROM {} ORDER BY 1") == [(0,), (1,), (2,)]


def test_a_stream_is_written_in_bounded_memory(tmp_path):
    body = """
        import resource
        import numpy as np
        schema = pa.schema([("i", pa.int64()), ("x", pa.float64()), ("y", pa.float64())])
        def batches(count):
            for k in range(count):
                x = np.random.default_rng(k).random(65_536)
                yield pa.record_batch([pa.array(np.arange(65_536)), pa.array(x), pa.array(x)], schema=schema)
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        lake.append("t", pa.RecordBatchReader.from_batches(schema, batches(20)))
        small = peak()
        lake.append("t", pa.RecordBatchReader.from_batches(schema, batches(100)))
        say((small, peak()))
    """
    process, heard = start(tmp_path, body)
    small, large = heard.recv()
    process.join(timeout=30)
    assert large - small < 60, "150 MiB of rows were written"
