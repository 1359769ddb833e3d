"""The catalog: which metadata file is each table's current one. SQLite in WAL mode, safe across processes."""

from __future__ import annotations

import fcntl
import os
import random
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millpond.lake.files import WAREHOUSE_PATH

if TYPE_CHECKING:
    from pyiceberg.catalog.sql import SqlCatalog

_BUSY_SECONDS = 60
_LOCK_SECONDS = 60.0
_CACHED_TABLES = 64
_FILE_IO = "millpond.lake.file_io.LakeFileIO"
_NAME = "millpond"

NAMESPACE = "main"
SEPARATOR = "."


def open_catalog(root: Path) -> SqlCatalog:
    """The catalog in `root`, made where it is not there yet."""
    from pyiceberg.catalog.sql import SqlCatalog
    from pyiceberg.table import Table

    class Catalog(SqlCatalog):  # type: ignore[misc]
        """Keeps parsed metadata: a metadata file never changes, and reading one costs more as snapshots gather."""

        def __init__(self, name: str, **properties: str) -> None:
            self._parsed: OrderedDict[str, Any] = OrderedDict()
            super().__init__(name, **properties)

        def _convert_orm_to_iceberg(self, orm_table: Any) -> Table:
            location = orm_table.metadata_location
            metadata = self._parsed.get(location)
            if metadata is None:
                table = super()._convert_orm_to_iceberg(orm_table)
                self._parsed[location] = table.metadata
                while len(self._parsed) > _CACHED_TABLES:
                    self._parsed.popitem(last=False)
                return table
            return Table(
                identifier=(*self.identifier_to_tuple(orm_table.table_namespace), orm_table.table_name),
                metadata=metadata,
                metadata_location=location,
                io=self._load_file_io(metadata.properties, location),
                catalog=self,
            )

    warehouse = root / "warehouse"
    warehouse.mkdir(parents=True, exist_ok=True)
    database = root / "catalog.db"
    with file_lock(root / "locks" / "catalog.lock"):
        connection = sqlite3.connect(database, timeout=_BUSY_SECONDS)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS millpond_tokens"
                " (table_uuid TEXT, token TEXT, snapshot_id INTEGER, PRIMARY KEY (table_uuid, token))"
            )
            connection.commit()
        finally:
            connection.close()
        return Catalog(
            _NAME,
            **{
                "uri": f"sqlite:///{database}?timeout={_BUSY_SECONDS}",
                "warehouse": warehouse.as_uri(),
                "py-io-impl": _FILE_IO,
                WAREHOUSE_PATH: str(warehouse),
            },
        )


def read_catalog(root: Path) -> sqlite3.Connection:
    """The database of the catalog in `root`, for reading; for one thread at a time.

    Raises:
        sqlite3.Error: There is none, or it is damaged.
    """
    address = f"{(root / 'catalog.db').resolve().as_uri()}?mode=ro"
    return sqlite3.connect(address, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)


def metadata_location(connection: sqlite3.Connection, table: str) -> str | None:
    """The location of a table's current metadata file, as PyIceberg's catalog keeps it; None where there is none.

    Raises:
        sqlite3.Error: The database cannot be read.
    """
    query = (
        "SELECT metadata_location FROM iceberg_tables WHERE catalog_name = ? AND table_namespace = ? AND table_name = ?"
    )
    found: tuple[str | None] | None = connection.execute(query, (_NAME, *identifier(table))).fetchone()
    return found[0] if found is not None else None


@contextmanager
def file_lock(path: Path, *, seconds: float = _LOCK_SECONDS) -> Iterator[bool]:
    """Hold an exclusive lock between threads and processes; the kernel frees it when its holder dies.

    A courtesy that spares writers from conflicts, not what keeps tables whole: after `seconds` the block is entered
    without it. Gives whether the lock is held.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield _acquire(descriptor, time.monotonic() + seconds)
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, until: float) -> bool:
    wait = 0.001
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - spreads waiters, guards nothing
            wait = min(wait * 1.5, 0.05)
        else:
            return True


def identifier(table: str) -> tuple[str, str]:
    """Namespace and name of a table."""
    namespace, dot, name = table.rpartition(SEPARATOR)
    return (namespace, name) if dot else (NAMESPACE, table)


def table_name(identifier: tuple[str, ...]) -> str:
    """The name that users write."""
    return identifier[-1] if identifier[0] == NAMESPACE else SEPARATOR.join(identifier)
