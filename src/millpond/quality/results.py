"""What checks found: the noun, its table, and the refusal when a blocking check found violations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from millpond.core.errors import CheckFailed
from millpond.core.fingerprints import fingerprint
from millpond.definitions.checks import Check, ForeignKey, Fresh, Severity
from millpond.definitions.tables import Table
from millpond.lake.ports import Engine, Lake, Snapshot, TableWriter
from millpond.lake.sql_text import sql_text

if TYPE_CHECKING:
    import pyarrow as pa

#: The table that keeps results.
TABLE = "millpond.check_results"


@dataclass(frozen=True)
class CheckResult:
    """The result of one check on one snapshot.

    Attributes:
        table: The table's name.
        snapshot_id: The snapshot that was checked.
        check: The check's name, such as "not_null(origin)".
        severity: "block" or "warn".
        passed: Whether the violations are within what the check tolerates.
        violations: Rows that violate a row-wise check; for other checks 1 or 0.
        rows: Rows of the table.
        detail: What was found, in a few words; empty where the check passed with nothing to say.
        examples: Up to five offending rows, by key where the table has one, with the offending values.
        checked_at: When; UTC.
        declared_at: File and line of the check.
        fingerprint: Of what the check means; see `meaning`.
    """

    table: str
    snapshot_id: int
    check: str
    severity: Severity
    passed: bool
    violations: int
    rows: int
    detail: str
    examples: tuple[str, ...]
    checked_at: datetime
    declared_at: str
    fingerprint: str

    @property
    def blocks(self) -> bool:
        return not self.passed and self.severity == "block"

    def __str__(self) -> str:
        text = f"{self.table}: {self.check}: {self.detail or 'passed'}"
        return f"{text}; such as {'; '.join(self.examples)}" if self.examples else text


def require(results: Sequence[CheckResult]) -> None:
    """Stop the walk where a blocking check found violations.

    Raises:
        CheckFailed: Lists every blocking failure with its count and example rows.
    """
    failed = [result for result in results if result.blocks]
    if not failed:
        return
    tables = ", ".join(dict.fromkeys(f'"{result.table}"' for result in failed))
    count = f"{len(failed)} blocking checks fail" if len(failed) > 1 else "A blocking check fails"
    raise CheckFailed(
        "\n".join([f"{count} on {tables}:", *(f"  {result}" for result in failed)]),
        where=", ".join(dict.fromkeys(result.declared_at for result in failed)),
        hint='mend the data, let the check tolerate a share of the rows, or declare it severity="warn"',
    )


def store_results(lake: TableWriter, results: Sequence[CheckResult]) -> Snapshot | None:
    """Append results to the table `millpond.check_results`; the new snapshot, or None where there are none."""
    return lake.append(TABLE, to_arrow(results)) if results else None


def meaning(check: Check, targets: Mapping[str, Snapshot]) -> str:
    """The fingerprint of what a check means: its declaration, and the snapshot that a foreign key points to."""
    target = check.target.name if isinstance(check, ForeignKey) and check.target is not None else None
    return fingerprint([check.describe(), targets[target].id if target is not None and target in targets else None])


def passed_before(
    lake: Lake, engine: Engine, table: Table, snapshot: Snapshot, targets: Mapping[str, Snapshot]
) -> bool:
    """Whether every check of the table, as it is declared now, has been run on this snapshot and does not block.

    Freshness depends on the hour, so a table with such a check never counts as checked.
    """
    if any(isinstance(check, Fresh) for check in table.checks) or not lake.exists(TABLE):
        return False
    relation, text = engine.scan(lake.snapshot(TABLE)), sql_text(engine.dialect)
    query = (
        f"SELECT DISTINCT fingerprint FROM {relation} WHERE snapshot_id = {snapshot.id}"
        f" AND {text.name('table')} = {text.text(table.name)} AND (passed OR severity <> 'block')"
    )
    return {meaning(check, targets) for check in table.checks} <= {row[0] for row in engine.rows(query)}


def to_arrow(results: Sequence[CheckResult]) -> pa.Table:
    """Results as rows: checked_at, table, snapshot_id, check, severity, passed, violations, rows, detail, examples."""
    import pyarrow as pa

    fields: list[tuple[str, pa.DataType]] = [
        ("checked_at", pa.timestamp("us", "UTC")),
        ("table", pa.string()),
        ("snapshot_id", pa.int64()),
        ("check", pa.string()),
        ("severity", pa.string()),
        ("passed", pa.bool_()),
        ("violations", pa.int64()),
        ("rows", pa.int64()),
        ("detail", pa.string()),
        ("examples", pa.string()),
        ("fingerprint", pa.string()),
    ]
    schema = pa.schema(fields)
    rows = [
        {name: getattr(result, name) for name in schema.names} | {"examples": "; ".join(result.examples)}
        for result in results
    ]
    return pa.Table.from_pylist(rows, schema=schema)
