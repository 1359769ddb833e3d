"""What is shown of tables."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from millpond.platform.read_models.references import Reference

CheckState = Literal["none", "passed", "warning", "failed"]


@dataclass(frozen=True)
class CheckView:
    """The latest result of one check on a table.

    Attributes:
        name: Such as "not_null(origin)".
        severity: "block" or "warn".
        passed: Whether it holds.
        violations: Rows that break it; 0 or 1 for a check on the table as a whole.
        rows: Rows looked at.
        examples: Keys of up to 5 offending rows, as text.
        checked_at: UTC.
    """

    name: str
    severity: str
    passed: bool
    violations: int
    rows: int
    examples: tuple[str, ...]
    checked_at: datetime


@dataclass(frozen=True)
class TableSummary:
    """A table in one line.

    Attributes:
        name: The table's name.
        description: As declared.
        rows: Rows at the current snapshot; None before the first.
        snapshot_id: The current snapshot; None before the first.
        changed_at: When it was committed; UTC.
        checks: "none" where none is declared or none has run, "failed" where a blocking one failed, "warning" where
            another did.
        inputs: Tables that it is derived from; empty for an ingested one.
    """

    name: str
    description: str
    rows: int | None
    snapshot_id: int | None
    changed_at: datetime | None
    checks: CheckState
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class ColumnView:
    """A column of a table.

    Attributes:
        name: Its present name.
        type: As users name types: "int", "float", "string", "instant" ...
        role: "key", "time", "known", or "".
    """

    name: str
    type: str
    role: str = ""


@dataclass(frozen=True)
class SnapshotView:
    """One committed state of a table; `note` says what the writer did, such as "ingested flights.csv"."""

    id: int
    committed_at: datetime
    operation: str
    rows: int
    note: str = ""


@dataclass(frozen=True)
class SnapshotRef:
    """A snapshot that something was computed from; `rows` None where it is not recorded."""

    table: str
    snapshot_id: int
    committed_at: datetime | None = None
    rows: int | None = None


@dataclass(frozen=True)
class TablePage:
    """All about a table.

    Attributes:
        summary: As in the overview.
        columns: At the current snapshot, in order.
        snapshots: Newest first, at most 50.
        checks: Latest results, failed ones first.
        sample: Up to 20 rows of the current snapshot, values in the order of `columns`.
        read_by: Feature views, models and tables that read it.
    """

    summary: TableSummary
    columns: tuple[ColumnView, ...]
    snapshots: tuple[SnapshotView, ...]
    checks: tuple[CheckView, ...]
    sample: tuple[tuple[Any, ...], ...]
    read_by: tuple[Reference, ...] = ()
