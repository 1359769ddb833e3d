"""The proof that a plan gives what its original gives, on real rows and on what could come instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from millpond.core.errors import MillpondError
from millpond.serving.plans.kernels import Floats
from millpond.serving.plans.mutations import arrow_schema, mutations
from millpond.serving.rows import Rows

if TYPE_CHECKING:
    import pyarrow as pa

    from millpond.serving.plans.plan import Plan

Original = Callable[["pa.Table"], Sequence[float]]

#: Rows of a batch that both refuse that are tried one by one.
REFUSED_ROWS = 12
#: Rows that are also scored one by one.
SINGLE_ROWS = 200


@dataclass(frozen=True)
class Verdict:
    """What a comparison found.

    Attributes:
        equal: Whether the plan may serve in place of the original.
        rows: Rows whose outputs were compared.
        largest_difference: The largest difference of two outputs, relative to the larger of them, or to the median
            output of the real rows where that is larger still; 0.0 where all are equal to the last bit.
        bit_equal: Share of the outputs that are equal to the last bit.
        tolerance: The largest difference allowed.
        reason: Why not equal, or what was compared.
        worst: Where they differ: inputs, the original's output, the plan's; empty where they do not.
    """

    equal: bool
    rows: int
    largest_difference: float
    bit_equal: float
    tolerance: float
    reason: str
    worst: Mapping[str, Any]


def verify_plan(plan: Plan, original: Original, rows: pa.Table, *, tolerance: float | None = None) -> Verdict:
    """Compare a plan with its original on `rows` and on mutations of them.

    A row that the original refuses (it raises) must be refused by the plan, and the other way round. Of a batch that
    both refuse, some rows are tried one by one; where one of these is answered, all of them. Rows are scored as blocks,
    and some of them one by one too.

    Args:
        plan: The plan.
        original: Outputs of raw inputs, a row; whatever it raises counts as refusing.
        rows: Real rows with at least the plan's inputs; one at least. Their nulls and texts are part of the proof.
        tolerance: The largest difference allowed; that of the plan where None.
    """
    allowed = plan.tolerance if tolerance is None else tolerance
    schema = arrow_schema(plan.inputs)
    real = rows.select(list(plan.inputs)).cast(schema, safe=False)
    comparison = _Comparison(plan, original, allowed)
    if not real.num_rows:
        return comparison.verdict("there are no rows to compare")
    problem = comparison.real(real)
    for name, batch in mutations(plan, real):
        problem = problem or comparison.batch(name, batch)
    return comparison.verdict(problem)


class _Comparison:
    """Comparisons with one original, and what they found so far."""

    def __init__(self, plan: Plan, original: Original, tolerance: float) -> None:
        self._plan = plan
        self._original = original
        self._tolerance = tolerance
        self._scale = 0.0
        self._rows = self._outputs = self._equal = 0
        self._largest = 0.0
        self._worst: dict[str, Any] = {}

    def verdict(self, problem: str) -> Verdict:
        if not problem and self._largest > self._tolerance:
            problem = f"outputs differ by {self._largest:.3g}, and {self._tolerance:g} is allowed"
        return Verdict(
            equal=not problem,
            rows=self._rows,
            largest_difference=self._largest,
            bit_equal=self._equal / self._outputs if self._outputs else 0.0,
            tolerance=self._tolerance,
            reason=problem or f"compared on {self._rows:,} rows: real ones, and with one value or many changed",
            worst=self._worst,
        )

    def real(self, rows: pa.Table) -> str:
        """Compare real rows; what is wrong, or nothing."""
        expected = self._ask(rows)
        if isinstance(expected, Exception):
            return f"the original cannot answer real rows: {_line(expected)}"
        self._scale = float(np.median(np.abs(expected[np.isfinite(expected)]))) if np.isfinite(expected).any() else 0.0
        return self.batch("real rows", rows)

    def batch(self, name: str, rows: pa.Table) -> str:
        """Compare a batch, in halves where one of the two refuses it; what is wrong, or nothing."""
        expected, found = self._ask(rows), self._score(rows)
        if not isinstance(expected, Exception) and not isinstance(found, Exception):
            return self._compare(name, rows, expected, found)
        refused = isinstance(expected, Exception) and isinstance(found, Exception)
        if rows.num_rows == 1:
            return "" if refused else self._one_refuses(name, rows, expected, found)
        if refused:
            spread = np.unique(np.linspace(0, rows.num_rows - 1, REFUSED_ROWS).astype(int)).tolist()
            if all(isinstance(self._ask(each), Exception) and isinstance(self._score(each), Exception)
                   for each in (rows.slice(at, 1) for at in spread)):  # fmt: skip
                return ""
        middle = rows.num_rows // 2
        return self.batch(name, rows.slice(0, middle)) or self.batch(name, rows.slice(middle))

    def _one_refuses(self, name: str, rows: pa.Table, expected: Any, found: Any) -> str:
        self._worst = {"inputs": rows.to_pylist()[0], "original": _shown(expected), "plan": _shown(found)}
        who, error = ("the original", expected) if isinstance(expected, Exception) else ("the plan", found)
        return f"{name}: {who} alone refuses a row: {_line(error)}"

    def _compare(self, name: str, rows: pa.Table, expected: Floats, found: Floats) -> str:
        if expected.shape != found.shape:
            return f"the original gives outputs of shape {expected.shape[1:]}, and the plan of {found.shape[1:]}"
        same = (expected == found) | (np.isnan(expected) & np.isnan(found))
        with np.errstate(all="ignore"):
            size = np.maximum(np.maximum(np.abs(expected), np.abs(found)), self._scale)
            difference = np.where(same, 0.0, np.abs(expected - found) / size)
        difference = np.where(np.isnan(difference), np.inf, difference)
        self._rows += rows.num_rows
        self._outputs += same.size
        self._equal += int(same.sum())
        if difference.max(initial=0.0) > self._largest:
            self._largest = float(difference.max())
            at = int(np.unravel_index(difference.argmax(), difference.shape)[0])
            outputs = {"original": expected[at].tolist(), "plan": found[at].tolist()}
            self._worst = {"inputs": rows.slice(at, 1).to_pylist()[0], **outputs}
        return self._compare_single(name, rows, found)

    def _compare_single(self, name: str, rows: pa.Table, found: Floats) -> str:
        if self._plan.outputs > 1:
            return ""
        columns = [column.to_pylist() for column in rows.slice(0, SINGLE_ROWS).columns]
        for at, values in enumerate(zip(*columns, strict=True)):
            one = self._plan.score_one(values)
            if one != found[at] and not (np.isnan(one) and np.isnan(found[at])):
                self._worst = {"inputs": rows.slice(at, 1).to_pylist()[0], "plan": found[at].tolist(), "alone": one}
                return f"{name}: the plan scores a row by itself as {one!r}, and among others as {found[at]!r}"
        return ""

    def _ask(self, rows: pa.Table) -> Floats | Exception:
        try:
            return np.asarray(self._original(rows), dtype=np.float64)
        except Exception as error:
            return error

    def _score(self, rows: pa.Table) -> Floats | Exception:
        try:
            return self._plan.scores(self._plan.encode(Rows.from_arrow(rows)))
        except MillpondError as error:
            return error


def _line(error: BaseException) -> str:
    text = error.what if isinstance(error, MillpondError) else str(error)
    return f"{type(error).__name__}: {text.strip().splitlines()[0][:200] if text.strip() else ''}"


def _shown(outcome: Any) -> Any:
    return _line(outcome) if isinstance(outcome, Exception) else outcome.tolist()
