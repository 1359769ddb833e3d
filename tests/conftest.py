"""What tests of several rooms share: engines, and real servers on free ports of loopback, stopped by process id.

A test process starts one Java process at most, of at most 2 GB.
"""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from millpond.lake.duckdb import DuckDBEngine

SPARK = {
    "spark.driver.memory": "1g",
    "spark.sql.shuffle.partitions": "2",
    "spark.default.parallelism": "2",
}


@pytest.fixture(scope="session")
def spark_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("spark")


@pytest.fixture(scope="session")
def spark_options(spark_folder):
    """Of every engine of a test process: one Java process has one set of settings."""
    conf = {**SPARK, "spark.local.dir": str(spark_folder)}
    return {"master": "local[2]", "conf": conf, "temp_directory": spark_folder / "queries"}


@pytest.fixture
def new_engine(spark_options):
    """Make an engine ("duckdb" or "spark") over a lake; closed after the test."""
    made = []

    def make(dialect, lake, **options):
        if dialect == "duckdb":
            engine = DuckDBEngine(lake, **{"threads": 1, **options})
        else:
            from millpond.lake.spark import SparkEngine

            engine = SparkEngine(lake, **{**spark_options, **options})
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.close()


class RedisServer:
    """A Redis that keeps what it acknowledged. It can be killed and started again, on the same files or on none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self, *options: str) -> None:
        self.folder.mkdir(exist_ok=True)
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--logfile", "redis.log", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 20
        while not self._answers():
            assert self.process.poll() is None, (self.folder / "redis.log").read_text()
            assert time.monotonic() < until
            time.sleep(0.01)

    def kill(self) -> None:
        """As `kill -9` does."""
        if self.process is not None:
            os.kill(self.process.pid, signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    def freeze(self) -> None:
        """It keeps its connections and answers nothing."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


@pytest.fixture
def redis_server(tmp_path):
    """A Redis of this test alone."""
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory):
    """A Redis that many tests share, each under a project of its own."""
    server = RedisServer(tmp_path_factory.mktemp("shared") / "redis")
    server.start()
    yield server
    server.kill()
