"""What a table's rows must satisfy. Declared on the table, computed in the engine by the `quality` room."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from millpond.core.time import DURATION_RULE, Duration
from millpond.definitions.expressions import expression_text, is_expression, root_columns
from millpond.definitions.place import Place, Problem, caller

if TYPE_CHECKING:
    import narwhals as nw

    from millpond.definitions.tables import Table

Severity = Literal["block", "warn"]
Scalar = str | int | float | bool | date | datetime


@dataclass(frozen=True, eq=False)
class Check:
    """Base of the checks.

    Attributes:
        severity: "block" stops the walk before anything downstream is written; "warn" only records.
        tolerate: Share of the table's rows (0.0 to 1.0) that may violate the check. Row-wise checks only.
    """

    kind: ClassVar[str] = "check"
    row_wise: ClassVar[bool] = True

    _: KW_ONLY
    severity: Severity = "block"
    tolerate: float = 0.0
    declared_at: Place = field(default_factory=caller, repr=False)

    @property
    def name(self) -> str:
        """Identifies the check within its table, such as "not_null(origin)"."""
        return f"{self.kind}({', '.join(self.columns)})"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the table that the check reads."""
        return ()

    def describe(self) -> dict[str, Any]:
        """The check as plain data; what is fingerprinted."""
        return {"check": self.name, "severity": self.severity, "tolerate": self.tolerate}

    def problems(self, subject: str) -> Iterator[Problem]:
        where = f"checks: {self.name}"
        if self.severity not in ("block", "warn"):
            yield Problem(
                self.declared_at, subject, where, f"severity is {self.severity!r}", 'allowed: "block", "warn"'
            )
        if not 0.0 <= self.tolerate <= 1.0:
            yield Problem(self.declared_at, subject, where, f"tolerate is {self.tolerate!r}", "a share from 0.0 to 1.0")


@dataclass(frozen=True, eq=False)
class NotNull(Check):
    kind: ClassVar[str] = "not_null"
    names: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        return self.names


@dataclass(frozen=True, eq=False)
class InRange(Check):
    """Bounds are inclusive; null passes."""

    kind: ClassVar[str] = "in_range"
    column: str = ""
    min: Scalar | None = None
    max: Scalar | None = None

    @property
    def name(self) -> str:
        return f"in_range({self.column}, {self.min}..{self.max})"

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def problems(self, subject: str) -> Iterator[Problem]:
        yield from super().problems(subject)
        if self.min is None and self.max is None:
            yield Problem(self.declared_at, subject, f"checks: {self.name}", "has no bound", "give min=, max= or both")


@dataclass(frozen=True, eq=False)
class AcceptedValues(Check):
    """Null passes; combine with `not_null` where it must not."""

    kind: ClassVar[str] = "accepted_values"
    column: str = ""
    values: tuple[Scalar, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "values": [repr(value) for value in self.values]}


@dataclass(frozen=True, eq=False)
class Unique(Check):
    """No two rows agree in all of the columns; rows with a null in any of them are left out. Counts surplus rows."""

    kind: ClassVar[str] = "unique"
    names: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        return self.names


@dataclass(frozen=True, eq=False)
class Fresh(Check):
    """The newest value of the time column is at most `within` old. `column` None means the table's `time`."""

    kind: ClassVar[str] = "fresh"
    row_wise: ClassVar[bool] = False
    within: str = ""
    column: str | None = None

    @property
    def name(self) -> str:
        return f"fresh({self.column or 'time'}, within {self.within})"

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,) if self.column else ()

    @property
    def limit(self) -> Duration:
        return Duration.parse(self.within)

    def problems(self, subject: str) -> Iterator[Problem]:
        yield from super().problems(subject)
        try:
            Duration.parse(self.within)
        except ValueError as error:
            yield Problem(self.declared_at, subject, f"checks: {self.name}", str(error), DURATION_RULE)


@dataclass(frozen=True, eq=False)
class RowCount(Check):
    kind: ClassVar[str] = "row_count"
    row_wise: ClassVar[bool] = False
    min: int | None = None
    max: int | None = None

    @property
    def name(self) -> str:
        return f"row_count({self.min}..{self.max})"


@dataclass(frozen=True, eq=False)
class ForeignKey(Check):
    """Every non-null value of `column` is a value of `target_column` of `target`."""

    kind: ClassVar[str] = "foreign_key"
    column: str = ""
    target: Table | None = None
    target_column: str = ""

    @property
    def name(self) -> str:
        target = self.target.name if self.target is not None else "?"
        return f"foreign_key({self.column} -> {target}.{self.target_column})"

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)


@dataclass(frozen=True, eq=False)
class Satisfies(Check):
    """A row expression that must be true; null counts as a violation."""

    kind: ClassVar[str] = "satisfies"
    label: str = ""
    expression: Any = None

    @property
    def name(self) -> str:
        return self.label

    @property
    def columns(self) -> tuple[str, ...]:
        return root_columns(self.expression)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "expression": expression_text(self.expression)}

    def problems(self, subject: str) -> Iterator[Problem]:
        yield from super().problems(subject)
        if not is_expression(self.expression):
            found = f"is {type(self.expression).__name__}, not an expression"
            hint = 'write it with mp.col, such as mp.col("arr_delay") >= -120'
            yield Problem(self.declared_at, subject, f"checks: {self.label}", found, hint)


def not_null(*columns: str, severity: Severity = "block", tolerate: float = 0.0) -> Check:
    """No null in any of the columns. A row with several nulls counts once."""
    return NotNull(columns, severity=severity, tolerate=tolerate)


def in_range(
    column: str,
    min: Scalar | None = None,
    max: Scalar | None = None,
    *,
    severity: Severity = "block",
    tolerate: float = 0.0,
) -> Check:
    """`min <= value <= max`; a missing bound does not bind; null passes."""
    return InRange(column, min, max, severity=severity, tolerate=tolerate)


def accepted_values(
    column: str, values: Sequence[Scalar], *, severity: Severity = "block", tolerate: float = 0.0
) -> Check:
    """Every non-null value is one of `values`."""
    return AcceptedValues(column, tuple(values), severity=severity, tolerate=tolerate)


def unique(*columns: str, severity: Severity = "block", tolerate: float = 0.0) -> Check:
    """No two rows agree in all of the columns (rows with a null among them are left out)."""
    return Unique(columns, severity=severity, tolerate=tolerate)


def fresh(within: str, column: str | None = None, *, severity: Severity = "block") -> Check:
    """The newest time is at most `within` ("36h", "7d") before now; an empty table is not fresh."""
    return Fresh(within, column, severity=severity)


def row_count(min: int | None = None, max: int | None = None, *, severity: Severity = "block") -> Check:
    """The table has from `min` to `max` rows, both inclusive."""
    return RowCount(min, max, severity=severity)


def foreign_key(
    column: str, target: Table, target_column: str, *, severity: Severity = "block", tolerate: float = 0.0
) -> Check:
    """Every non-null value of `column` occurs in `target_column` of `target`."""
    return ForeignKey(column, target, target_column, severity=severity, tolerate=tolerate)


def check(name: str, expression: nw.Expr, *, severity: Severity = "block", tolerate: float = 0.0) -> Check:
    """A custom condition on each row, such as `mp.check("lands after it leaves", mp.col("air_time") > 0)`."""
    return Satisfies(name, expression, severity=severity, tolerate=tolerate)
