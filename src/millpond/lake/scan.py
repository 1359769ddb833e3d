"""Reading a snapshot: its files, and which field of them is which column.

Columns are found by field id, never by name: a file written before a rename still has the old name in it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from millpond.lake.ports import Column, Snapshot
from millpond.lake.schema import duckdb_type, literal, quoted

if TYPE_CHECKING:
    from pyiceberg.types import IcebergType


@dataclass(frozen=True)
class ScanPlan:
    """What to read.

    Attributes:
        files: Absolute paths of Parquet files.
        columns: Columns with their field ids, in order.
        types: Iceberg type of each column, by name, with the field ids of what is nested in it.
        rows: Number of rows in all files.
        renamed: Columns whose name, in some file, is that of another column, or that have another name in some file.
    """

    files: tuple[str, ...]
    columns: tuple[Column, ...]
    types: Mapping[str, IcebergType]
    rows: int
    renamed: frozenset[str] = frozenset()

    def only(self, names: Collection[str]) -> ScanPlan:
        """The same rows with some of the columns."""
        return replace(self, columns=tuple(column for column in self.columns if column.name in names))


class Scannable(Protocol):
    """A lake whose snapshots can be read as files."""

    def plan(self, snapshot: Snapshot) -> ScanPlan:
        """What to read for a snapshot."""
        ...


def scan_sql(plan: ScanPlan, *, filename: bool = False, row_number: bool = False) -> str:
    """A relation, for use after FROM, in DuckDB's dialect.

    Args:
        filename: Whether there is a column `filename` with the path of each row's file.
        row_number: Whether there is a column `file_row_number`, counted from 0 in each file; there must be a file.
    """
    types = {column.name: duckdb_type(plan.types[column.name]) for column in plan.columns}
    if not plan.files:
        empty = ", ".join(f"NULL::{types[column.name]} AS {quoted(column.name)}" for column in plan.columns)
        extra = ", NULL::VARCHAR AS filename" if filename else ""
        return f"(SELECT {empty}{extra} WHERE false)"
    files = ", ".join(literal(file) for file in plan.files)
    fields = ", ".join(
        f"{column.field_id}: {{name: {literal(column.name)}, type: {literal(types[column.name])}, default_value: NULL}}"
        for column in plan.columns
    )
    extra = (", filename=true" if filename else "") + (", file_row_number=true" if row_number else "")
    return f"read_parquet([{files}], schema=MAP {{{fields}}}{extra})"
