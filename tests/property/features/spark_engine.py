"""Spark over tables given as Arrow data, as `memory_engine` has DuckDB over them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from millpond.lake.ports import Column, Snapshot
from millpond.lake.spark import SparkEngine, quoted


class SparkMemoryEngine(SparkEngine):
    def __init__(self, folder: Path) -> None:
        conf = {"spark.sql.shuffle.partitions": "2", "spark.driver.memory": "2g", "spark.default.parallelism": "2"}
        super().__init__(None, master="local[2]", conf=conf, temp_directory=folder)
        self._last = 0

    def add(self, name: str, rows: pa.Table, columns: tuple[Column, ...]) -> Snapshot:
        """Make a table of one snapshot."""
        self._last += 1
        self.register(f"{name}@{self._last}", rows)
        return Snapshot(name, self._last, datetime.now(UTC), rows.num_rows, columns)

    def drop(self, snapshot: Snapshot) -> None:
        self.execute(f"DROP VIEW {self.scan(snapshot)}")

    def scan(self, snapshot: Snapshot) -> str:
        return quoted(f"{snapshot.table}@{snapshot.id}")

    def table(self, sql: str) -> pa.Table:
        return self._spark.sql(sql).toArrow()
