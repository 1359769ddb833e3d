"""Spark where it really runs: a standalone cluster, a server of Spark Connect, and a process that is killed."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import narwhals as nw
import pyarrow as pa
import pytest

import millpond as mp
from millpond.core.errors import DataError, SettingsError, Unavailable
from millpond.lake.derive import derive
from millpond.lake.duckdb import DuckDBEngine
from millpond.lake.iceberg import IcebergLake
from millpond.lake.spark import SparkEngine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

AT = datetime(2013, 1, 1, 10, tzinfo=UTC)
HERE = "127.0.0.1"
weather = mp.Table("weather", key=("origin", "seen"), time="seen")


@mp.table(weather, key="origin")
def warmest(sky):
    return sky.group_by("origin").agg(mp.col("temp").max(), seen=mp.col("seen").max())


hours = mp.sql_table(
    "hours",
    weather,
    engine="spark",
    key="hour",
    query="SELECT date_trunc('HOUR', seen) AS hour, count(*) AS n, collect_list(struct(temp)) AS temps"
    " FROM weather GROUP BY 1",
)


def free_port():
    with socket.socket() as found:
        found.bind((HERE, 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Start a Java program of Spark's; stopped, by its process id, after the module's tests."""
    import pyspark

    home = Path(pyspark.__file__).parent
    folder = tmp_path_factory.mktemp("spark-processes")
    environment = {
        **os.environ,
        "SPARK_HOME": str(home),
        "SPARK_DAEMON_MEMORY": "768m",
        "SPARK_LOCAL_IP": HERE,
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOG_DIR": str(folder),
    }
    started = []

    def run(program, *arguments):
        log = (folder / f"{len(started)}.log").open("wb")
        process = subprocess.Popen(
            [home / "bin" / program, *arguments], env=environment, cwd=folder, stdout=log, stderr=log
        )
        started.append(process)
        return process

    yield run
    for process in reversed(started):
        process.terminate()
    for process in started:
        process.wait(timeout=60)


def answers(port, process):
    for _ in range(600):
        assert process.poll() is None
        with socket.socket() as probe:
            if probe.connect_ex((HERE, port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError("it does not answer")


@pytest.fixture(scope="module")
def cluster(start, tmp_path_factory):
    port = free_port()
    master = f"spark://{HERE}:{port}"
    process = start(
        "spark-class",
        "org.apache.spark.deploy.master.Master",
        *("--host", HERE, "--port", str(port), "--webui-port", str(free_port())),
    )
    answers(port, process)
    for _ in range(2):
        start(
            "spark-class",
            "org.apache.spark.deploy.worker.Worker",
            *("--host", HERE, "--cores", "1", "--memory", "600m", "--webui-port", str(free_port())),
            *("--work-dir", str(tmp_path_factory.mktemp("worker")), master),
        )
    return master


@pytest.fixture(scope="module")
def server(start):
    port = free_port()
    process = start(
        "spark-submit",
        *("--class", "org.apache.spark.sql.connect.service.SparkConnectServer", "--master", "local[2]"),
        *("--conf", f"spark.connect.grpc.binding.port={port}", "--conf", f"spark.connect.grpc.binding.address={HERE}"),
        *("--conf", "spark.ui.enabled=false", "--conf", "spark.driver.memory=1g"),
        *("--conf", "spark.sql.shuffle.partitions=2", "spark-internal"),
    )
    answers(port, process)
    return f"sc://{HERE}:{port}"


@pytest.fixture
def lake(tmp_path):
    return IcebergLake(tmp_path / "lake")


@pytest.fixture(params=["cluster", "connect"])
def engine(request, lake):
    options = {"temp_directory": lake.root / "scratch" / "spill"}
    if request.param == "cluster":
        conf = {"spark.driver.memory": "512m", "spark.executor.memory": "512m", "spark.sql.shuffle.partitions": "4"}
        engine = SparkEngine(lake, master=request.getfixturevalue("cluster"), conf=conf, **options)
    else:
        engine = SparkEngine(lake, remote=request.getfixturevalue("server"), **options)
    yield engine
    engine.close()


def test_derived_and_committed(lake, engine):
    rows = {
        "origin": [("JFK", "LGA", "EWR")[n % 3] for n in range(3000)],
        "seen": [AT + timedelta(minutes=n) for n in range(3000)],
        "temp": [float(n) if n % 7 else None for n in range(3000)],
    }
    inputs = {"weather": lake.append("weather", pa.table(rows))}
    by_function = derive(lake, engine, warmest, inputs).snapshot
    by_sql = derive(lake, engine, hours, inputs).snapshot
    assert derive(lake, engine, hours, inputs).skipped
    judge = DuckDBEngine(lake, threads=1)
    assert judge.rows(f"SELECT * FROM {judge.scan(by_function)} ORDER BY 1") == [
        ("EWR", 2999.0, AT + timedelta(minutes=2999)),
        ("JFK", 2997.0, AT + timedelta(minutes=2997)),
        ("LGA", 2998.0, AT + timedelta(minutes=2998)),
    ]
    counts = f"SELECT count(*), sum(n), sum(len(temps)), min(hour) FROM {judge.scan(by_sql)}"
    assert judge.rows(counts) == [(50, 3000, 3000, AT)]
    judge.close()
    outside = lake.require("hours").scan().to_arrow()  # another reader of Iceberg, by the ids of nested fields
    assert outside.num_rows == 50
    assert sum(len(temps) for temps in outside.column("temps").to_pylist()) == 3000


def test_queries(lake, engine):
    snapshot = lake.append("t", pa.table({"i": range(1000), "s": ["x"] * 1000, "at": [AT] * 1000}))
    relation = engine.scan(snapshot)
    with engine.session():
        engine.materialize("kept", f"SELECT i, at FROM {relation} WHERE i % 2 = 0")
        engine.register("given", pa.table({"i": [2, 3]}))
        frame = engine.lazy(relation).filter(nw.col("i") < 4).with_columns(hour=nw.col("at").dt.hour())
        joined = f"SELECT i, hour, at FROM {engine.to_sql(frame)} JOIN kept USING (i, at) JOIN given USING (i)"
        assert engine.rows(joined) == [(2, 10, AT)]
        stream = engine.reader(f"SELECT i FROM {relation} ORDER BY i DESC")
        assert stream.read_all().column("i").to_pylist() == list(range(999, -1, -1))
    for sql, says in [
        ("SELECT * FROM kept", 'no table "kept"'),
        (f"SELECT ii FROM {relation}", 'no column "ii"'),
        (f"SELECT CAST(s AS INT) AS n FROM {relation}", "'x'"),
    ]:
        with pytest.raises(DataError, match=says) as caught:
            engine.rows(sql)
        assert len(str(caught.value).splitlines()) <= 3
    with pytest.raises(DataError, match="key"):
        lake.upsert("u", engine.output(f"SELECT 1 AS k FROM {relation}"), ["k"])
    assert not lake.exists("u")


def test_nobody_answers(lake):
    engine = SparkEngine(lake, remote=f"sc://{HERE}:{free_port()}/;token=secret")
    with pytest.raises(Unavailable, match="does not answer") as caught:
        engine.rows("SELECT 1")
    assert "secret" not in str(caught.value)
    engine.close()


def test_one_process_runs_one_spark(lake, new_engine):
    first = new_engine("spark", lake)
    assert first.rows("SELECT 1 AS n") == [(1,)]
    second = new_engine("spark", lake, master="local[1]")
    with pytest.raises(SettingsError, match=r"runs Spark on local\[2\] already"):
        second.rows("SELECT 1")
    assert first.rows("SELECT 1 AS n") == [(1,)]


def test_a_killed_write_leaves_files_that_are_collected(lake):
    before = lake.append("t", pa.table({"i": range(10)}))
    body = f"""
        from pathlib import Path
        from millpond.lake.iceberg import IcebergLake
        from millpond.lake.spark import SparkEngine
        lake = IcebergLake(Path({str(lake.root)!r}))
        engine = SparkEngine(lake, master="local[2]", conf={{"spark.driver.memory": "512m"}})
        lake.overwrite("t", engine.output("SELECT id AS i FROM range(0, 1000000000000, 1, 2)"))
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(body)])
    try:
        files = set(lake.warehouse.glob("*/t/data/*"))
        for _ in range(900):
            assert process.poll() is None
            left = set(lake.warehouse.glob("*/t/data/*")) - files
            if any(path.stat().st_size for path in left):
                break
            time.sleep(0.2)
        assert left
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    sizes = None
    for _ in range(300):  # Spark's own processes end when they find that their driver is gone
        now = {path: path.stat().st_size for path in lake.warehouse.glob("*/t/data/*")}
        if now == sizes:
            break
        sizes = now
        time.sleep(2)
    assert lake.snapshot("t") == before
    old = time.time() - 3 * 86400
    for path in left:
        os.utime(path, (old, old))
    assert lake.collect_garbage().files >= len(left)
    assert set(lake.warehouse.glob("*/t/data/*")) & left == set()
    assert files <= set(lake.warehouse.glob("*/t/data/*"))
