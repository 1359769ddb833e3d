"""Spark over tables given as Arrow data, as `memory_engine` has DuckDB over them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from millpond.lake.ports import Column, Snapshot
from millpond.lake.spark import SparkEngine, quoted


class SparkMemoryEngine(SparkEngine):
    def __init__(self, columns_of: Callable[[pa.Schema], tuple[Column, ...]], **options: Any) -> None:
        super().__init__(None, **options)
        self._last, self._columns_of = 0, columns_of

    def add(self, name: str, rows: pa.Table) -> Snapshot:
        """Make a table of one snapshot."""
        self._last += 1
        self.register(f"{name}@{self._last}", rows)
        return Snapshot(name, self._last, datetime.now(UTC), rows.num_rows, self._columns_of(rows.schema))

    def drop(self, snapshot: Snapshot) -> None:
        self.execute(f"DROP VIEW {self.scan(snapshot)}")

    def scan(self, snapshot: Snapshot) -> str:
        return quoted(f"{snapshot.table}@{snapshot.id}")

    def table(self, sql: str) -> pa.Table:
        return self._spark.sql(sql).toArrow()
