"""Running a table's checks over one snapshot, in as few passes over the data as there can be.

All row-wise conditions, the newest time and the row count are one aggregate query. Uniqueness and foreign keys are
a query each, over their columns only. Offending rows are looked for only where a check fails.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from millpond.core.errors import DataError, DefinitionError, NotFound
from millpond.core.names import did_you_mean
from millpond.core.time import format_instant
from millpond.definitions.checks import (
    AcceptedValues,
    Check,
    ForeignKey,
    Fresh,
    InRange,
    NotNull,
    RowCount,
    Satisfies,
    Unique,
)
from millpond.definitions.tables import Table
from millpond.lake.duckdb_errors import explain_expression
from millpond.lake.keys import key_text
from millpond.lake.ports import Engine, Snapshot
from millpond.lake.schema import column_hint
from millpond.lake.sql_text import sql_text
from millpond.quality.results import CheckResult, meaning

_EXAMPLES = 5


@dataclass(frozen=True)
class _Violations:
    """A row-wise check in SQL.

    Attributes:
        check: The check.
        columns: What examples show beside the key.
        condition: Holds for a violating row of the base relation; empty where `relation` is given.
        relation: The violating rows themselves, with a column `surplus` that says how many each stands for.
    """

    check: Check
    columns: tuple[str, ...]
    condition: str = ""
    relation: str = ""


def run_checks(
    engine: Engine, table: Table, snapshot: Snapshot, *, targets: Mapping[str, Snapshot], now: datetime
) -> list[CheckResult]:
    """Run all checks that a table declares.

    Args:
        engine: Where they run.
        table: The declaration.
        snapshot: The snapshot to judge.
        targets: Snapshots of the tables that foreign keys point to, by name.
        now: The instant that freshness is measured from.

    Returns:
        One result a check, in the order of declaration.

    Raises:
        DataError: A check names a column that the snapshot does not have, or compares what cannot be compared.
        NotFound: No snapshot is given for the target of a foreign key.
    """
    if not table.checks:
        return []
    for check in table.checks:
        _refuse_unknown_columns(table, check, snapshot)
        _refuse_text_for_numbers(table, check, snapshot, targets)
    with engine.session():
        return _Run(engine, table, snapshot, targets, now).results()


def _refuse_unknown_columns(table: Table, check: Check, snapshot: Snapshot) -> None:
    for name in check.columns:
        if name not in snapshot.column_names:
            raise DataError(
                f'Check {check.name} names column "{name}", which table "{table.name}" does not have',
                where=str(check.declared_at),
                hint=column_hint(name, snapshot.column_names),
            )


def _refuse_text_for_numbers(table: Table, check: Check, snapshot: Snapshot, targets: Mapping[str, Snapshot]) -> None:
    """Refuse to compare text with what is no text: engines differ in what they make of it."""
    if isinstance(check, ForeignKey) and check.target is not None and check.target.name in targets:
        others = [
            column.type == "string"
            for column in targets[check.target.name].columns
            if column.name == check.target_column
        ]
    elif isinstance(check, InRange):
        others = [isinstance(bound, str) for bound in (check.min, check.max) if bound is not None]
    elif isinstance(check, AcceptedValues):
        others = [isinstance(value, str) for value in check.values]
    else:
        return
    [type] = [column.type for column in snapshot.columns if column.name == check.columns[0]]
    if type == "string" and not all(others):
        raise _incomparable(table, check, snapshot)


def _incomparable(table: Table, check: Check, snapshot: Snapshot) -> DataError:
    types = {column.name: column.type for column in snapshot.columns}
    named = ", ".join(f'column "{name}" is {types[name]}' for name in check.columns)
    return DataError(
        f'Check {check.name} of table "{table.name}" cannot be computed: {named}',
        where=str(check.declared_at),
        hint="mend the check, or declare the column's type in types= and ingest the table again",
    )


class _Run:
    def __init__(
        self, engine: Engine, table: Table, snapshot: Snapshot, targets: Mapping[str, Snapshot], now: datetime
    ) -> None:
        self.engine, self.table, self.snapshot, self.targets, self.now = engine, table, snapshot, targets, now
        self.text = sql_text(engine.dialect)
        self.base = self._base()

    def _base(self) -> str:
        """The rows, with a column for each custom condition."""
        relation = self.engine.scan(self.snapshot)
        custom = {
            f"__check_{position}": check.expression
            for position, check in enumerate(self.table.checks)
            if isinstance(check, Satisfies)
        }
        if not custom:
            return relation
        frame = self.engine.lazy(relation)
        for name, expression in custom.items():
            check = self.table.checks[int(name.removeprefix("__check_"))]
            try:
                frame = frame.with_columns(expression.alias(name))
                kind = str(frame.collect_schema()[name])
            except Exception as error:
                what, hint = explain_expression(error, self.snapshot.column_names)
                raise DataError(
                    f'Check "{check.name}" cannot be computed: {what}', where=str(check.declared_at), hint=hint
                ) from error
            if kind != "Boolean":
                raise DataError(
                    f'Check "{check.name}" gives {kind}, not true or false',
                    where=str(check.declared_at),
                    hint='write a condition, such as mp.col("air_time") > 0',
                )
        return self.engine.to_sql(frame)

    def results(self) -> list[CheckResult]:
        found = {id(each.check): each for each in map(self._violations, self.table.checks) if each is not None}
        counted = [each for each in found.values() if each.condition]
        fresh = [check for check in self.table.checks if isinstance(check, Fresh)]
        parts = ["count(*)"]
        parts += [f"count(*) FILTER (WHERE {each.condition})" for each in counted]
        parts += [f"max({self.text.name(self._time(check))})" for check in fresh]
        try:
            row = self.engine.rows(f"SELECT {', '.join(parts)} FROM {self.base} AS base")[0]
        except DataError:
            self._refuse_incomparable(counted)
            raise
        rows = int(row[0])
        counts = {id(each.check): int(n) for each, n in zip(counted, row[1:], strict=False)}
        newest = {id(check): value for check, value in zip(fresh, row[1 + len(counted) :], strict=True)}
        results = []
        for check in self.table.checks:
            if isinstance(check, Fresh):
                results.append(self._fresh(check, newest[id(check)], rows))
            elif isinstance(check, RowCount):
                results.append(self._row_count(check, rows))
            else:
                each = found[id(check)]
                results.append(self._row_wise(each, counts.get(id(check)), rows))
        return results

    def _refuse_incomparable(self, counted: Sequence[_Violations]) -> None:
        """Say which check it is that does not fit the types of its columns."""
        for each in counted:
            try:
                self.engine.rows(f"SELECT count(*) FROM {self.base} AS base WHERE {each.condition}")
            except DataError as error:
                raise _incomparable(self.table, each.check, self.snapshot) from error

    def _violations(self, check: Check) -> _Violations | None:
        if isinstance(check, NotNull):
            condition = " OR ".join(f"{self.text.name(name)} IS NULL" for name in check.names)
            return _Violations(check, check.columns, f"({condition})")
        if isinstance(check, InRange):
            bounds = [("<", check.min), (">", check.max)]
            tests = [
                f"{self.text.name(check.column)} {sign} {self.text.value(bound)}"
                for sign, bound in bounds
                if bound is not None
            ]
            return _Violations(check, check.columns, f"({' OR '.join(tests)})")
        if isinstance(check, AcceptedValues):
            values = ", ".join(self.text.value(value) for value in check.values)
            column = self.text.name(check.column)
            condition = f"{column} NOT IN ({values})" if values else f"{column} IS NOT NULL"
            return _Violations(check, check.columns, f"({condition})")
        if isinstance(check, Satisfies):
            position = next(at for at, each in enumerate(self.table.checks) if each is check)
            return _Violations(check, check.columns, f"(__check_{position} IS NOT TRUE)")
        if isinstance(check, Unique):
            names = self.text.names(check.names)
            filled = " AND ".join(f"{self.text.name(name)} IS NOT NULL" for name in check.names)
            relation = (
                f"(SELECT {names}, count(*) - 1 AS surplus FROM {self.base} AS base WHERE {filled}"
                f" GROUP BY {names} HAVING count(*) > 1)"
            )
            return _Violations(check, check.names, relation=relation)
        if isinstance(check, ForeignKey):
            return _Violations(check, check.columns, relation=self._orphans(check))
        if isinstance(check, (Fresh, RowCount)):
            return None
        raise DefinitionError(f"{type(check).__name__} is no check that can be run", where=str(check.declared_at))

    def _orphans(self, check: ForeignKey) -> str:
        assert check.target is not None
        target = self.targets.get(check.target.name)
        if target is None:
            raise NotFound(
                f'Check {check.name} needs table "{check.target.name}", and no snapshot of it is given',
                where=str(check.declared_at),
                hint=did_you_mean(check.target.name, self.targets, noun="tables"),
            )
        if check.target_column not in target.column_names:
            raise DataError(
                f'Check {check.name} names column "{check.target_column}", which "{target.table}" does not have',
                where=str(check.declared_at),
                hint=column_hint(check.target_column, target.column_names),
            )
        column = self.text.name(check.column)
        known = f"(SELECT {self.text.name(check.target_column)} AS __value FROM {self.engine.scan(target)})"
        return (
            f"(SELECT {column}, count(*) AS surplus FROM {self.base} AS base ANTI JOIN {known} AS known"
            f" ON {column} = __value WHERE {column} IS NOT NULL GROUP BY {column})"
        )

    def _row_wise(self, each: _Violations, counted: int | None, rows: int) -> CheckResult:
        check, violations = each.check, counted
        if violations is None:
            sums = f"SELECT coalesce(sum(surplus), 0) FROM {each.relation} AS violating"
            violations = int(self.engine.rows(sums)[0][0])
        passed = violations <= check.tolerate * rows
        detail = f"{violations:,} of {rows:,} rows" if violations else ""
        if violations and check.tolerate:
            detail += f" ({violations / rows:.4%}, tolerated {check.tolerate:.4%})"
        examples = () if passed else self._examples(each)
        return self._result(check, passed, violations, rows, detail, examples=examples)

    def _examples(self, each: _Violations) -> tuple[str, ...]:
        key = tuple(name for name in self.table.keys if name in self.snapshot.column_names)
        shown = tuple(dict.fromkeys((*(() if each.relation else key), *each.columns)))
        if not shown:
            return ()
        names = self.text.names(shown)
        source = f"{each.relation} AS violating" if each.relation else f"{self.base} AS base WHERE {each.condition}"
        counted = ", surplus" if each.relation else ""
        order = "surplus DESC, " if each.relation else ""
        order += ", ".join(f"{self.text.name(name)} NULLS LAST" for name in shown)
        found = self.engine.rows(f"SELECT DISTINCT {names}{counted} FROM {source} ORDER BY {order} LIMIT {_EXAMPLES}")
        if not each.relation:
            return tuple(key_text(shown, row) for row in found)
        extra = isinstance(each.check, Unique)
        return tuple(f"{key_text(shown, row[:-1])} ({row[-1] + extra} times)" for row in found)

    def _time(self, check: Fresh) -> str:
        name = check.column or self.table.time
        if name is None:
            raise DefinitionError(
                f'Check {check.name} needs a time, and table "{self.table.name}" declares none',
                where=str(check.declared_at),
                hint='name a column: mp.fresh("36h", "updated_at")',
            )
        if name not in self.snapshot.column_names:
            raise DataError(
                f'Check {check.name} names column "{name}", which table "{self.table.name}" does not have',
                where=str(check.declared_at),
                hint=column_hint(name, self.snapshot.column_names),
            )
        return name

    def _fresh(self, check: Fresh, newest: Any, rows: int) -> CheckResult:
        if newest is None:
            return self._result(check, False, 1, rows, "there is no time to judge by")
        if not isinstance(newest, datetime):
            raise DataError(
                f'Check {check.name} judges column "{self._time(check)}", which holds no instants',
                where=str(check.declared_at),
                hint="name a column of instants",
            )
        passed = self.now - newest <= check.limit.delta
        detail = "" if passed else f"the newest is of {format_instant(newest)}, {_age(self.now - newest)} old"
        return self._result(check, passed, int(not passed), rows, detail)

    def _row_count(self, check: RowCount, rows: int) -> CheckResult:
        passed = (check.min is None or rows >= check.min) and (check.max is None or rows <= check.max)
        return self._result(check, passed, int(not passed), rows, "" if passed else f"there are {rows:,} rows")

    def _result(
        self, check: Check, passed: bool, violations: int, rows: int, detail: str, *, examples: Sequence[str] = ()
    ) -> CheckResult:
        return CheckResult(
            table=self.table.name,
            snapshot_id=self.snapshot.id,
            check=check.name,
            severity=check.severity,
            passed=passed,
            violations=violations,
            rows=rows,
            detail=detail,
            examples=tuple(examples),
            checked_at=self.now,
            declared_at=str(check.declared_at),
            fingerprint=meaning(check, self.targets),
        )


def _age(age: Any) -> str:
    hours = age.total_seconds() / 3600
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.1f} days"
