"""A compiled plan: a fitted pipeline as look-ups, a column program and a forest or weights."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from millpond.core.errors import DataError, MillpondError
from millpond.serving.plans.kernels import LINKS, Floats, Kernel
from millpond.serving.ports import Explanation
from millpond.serving.rows import Rows

if TYPE_CHECKING:
    from millpond.serving.rows import Column

#: Stands for the code of a text that the original refuses; no number, so that it cannot slip through.
REFUSED = "refused"

#: Functions from sums to outputs that NumPy computes, because the original calls NumPy's.
NUMPY_LINKS = ("", "exp", "softmax", "share")


@dataclass(frozen=True)
class Codes:
    """What becomes of a string input.

    Attributes:
        known: Text -> number, or REFUSED.
        null: For null.
        other: For a text that is not known.
    """

    known: Mapping[str, float | str]
    null: float | str
    other: float | str


@dataclass(frozen=True)
class Described:
    """A plan as plain data, beside its arrays.

    Attributes:
        inputs: Raw inputs in order: name -> "float64", "int64", "bool" or "string".
        codes: Of each string input.
        sizes: Integers of `struct plan`.
        link: From sums to outputs, in the kernels.
        link_argument: Its argument.
        numpy_link: What NumPy does after that.
        tolerance: How far an output may be from the original's, relatively; 0 is equal to the last bit.
        unit: In which contributions are told: "log-odds", "probability", "output"; "" where they cannot be.
        unexplained: Why they cannot be.
        expected: The sum's expectation over the training rows, in `unit`; None where not known.
        depth: Of the deepest tree.
        about: What was compiled, for people.
    """

    inputs: Mapping[str, str]
    codes: Mapping[str, Codes]
    sizes: Mapping[str, int]
    link: str
    link_argument: float
    numpy_link: str
    tolerance: float
    unit: str
    unexplained: str
    expected: float | None
    depth: int
    about: str


class Plan:
    """Scores rows. One plan belongs to one thread, such as that of an event loop; `explain` alone is for any thread.

    Args:
        described: What it does.
        arrays: By field of `struct plan`, and `background`: mean contribution of each input. Never written to.

    Raises:
        MissingExtra: The kernels are not installed here.
    """

    def __init__(self, described: Described, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        self.described = described
        self.arrays = dict(arrays)
        self.inputs = dict(described.inputs)
        self.outputs = described.sizes["outputs"]
        self.tolerance = described.tolerance
        self._names = tuple(self.inputs)
        sizes = {**described.sizes, "link": LINKS.index(described.link), "link_argument": described.link_argument}
        self._kernel = Kernel(sizes, arrays)
        self._codes = {
            name: ({**codes.known, None: codes.null}, codes.other) for name, codes in described.codes.items()
        }
        self._texts = tuple(
            (index, *self._codes[name]) for index, name in enumerate(self._names) if name in self._codes
        )
        self._pack = struct.Struct(f"{len(self._names)}d").pack_into
        self._row, self._result = memoryview(self._kernel.row.data).cast("B"), memoryview(self._kernel.result.data)
        self._run = self._kernel.score_one
        self._nulls = False  # whether rows had nulls before: looking first is cheaper than an exception

    def encode(self, rows: Rows) -> Floats:
        """Rows as numbers: float64 (rows, inputs), C-contiguous; NaN for null, codes for strings.

        Columns may be in any order; an absent one is null. `rows.matrix` is given back as it is where it has the
        inputs in order.

        Raises:
            DataError: A string has a value that the original refuses.
        """
        if rows.matrix is not None and rows.names == self._names and not self._texts:
            return np.ascontiguousarray(rows.matrix, dtype=np.float64)
        matrix = np.empty((rows.count, len(self._names)))
        columns = rows.columns
        for index, name in enumerate(self._names):
            column: Column = columns[name] if name in columns else [None] * rows.count
            if name in self._codes:
                known, other = self._codes[name]
                column = [known.get(each, other) for each in column]
                if REFUSED in column:
                    raise self._refusal(index, columns[name][column.index(REFUSED)] if name in columns else None)
            matrix[:, index] = column
        return matrix

    def scores(self, matrix: Floats) -> Floats:
        """Outputs of encoded rows: the probability of yes or the number, (rows,); or (rows, outputs).

        Raises:
            DataError: A value is one that the original refuses, such as an infinity.
        """
        out = self._kernel.score(self._prepared(matrix))
        if self.described.numpy_link:
            out = _numpy_link(self.described.numpy_link, out)
        return out[:, 0] if self.outputs == 1 else out

    def score_one(self, values: Sequence[Any]) -> float:
        """The output of one row of raw inputs, in order: float, int, bool, str, None; of a plan with one output.

        Raises:
            DataError: As `encode` and `scores`.
        """
        given = values
        if self._texts:
            given = list(values)
            for index, known, other in self._texts:
                given[index] = known.get(given[index], other)
        try:
            if self._nulls and None in given:
                given = [np.nan if value is None else value for value in given]
            self._pack(self._row, 0, *given)
        except struct.error:
            self._pack(self._row, 0, *self._numbers(given, values))
            self._nulls = True
        refused = self._run()
        if refused:
            raise self._refusal(refused - 1, values[refused - 1])
        if self.described.numpy_link:
            return float(_numpy_link(self.described.numpy_link, self._kernel.result[np.newaxis])[0, 0])
        score: float = self._result[0]
        return score

    def predict(self, rows: Rows) -> dict[str, Column]:
        """Outputs by name, as `ServedModel.outputs` has them; of one row a list of Python floats."""
        if rows.count == 1 and self.outputs == 1 and not self.described.numpy_link:
            return {"output": [self._predict_one(rows)]}
        return {"output": self.scores(self.encode(rows))}

    def _predict_one(self, rows: Rows) -> float:
        """As `score_one`, of a row as the wires bring it."""
        matrix = rows.matrix
        if matrix is not None and not self._texts and (rows.names is self._names or rows.names == self._names):
            self._row[:] = matrix.data.cast("B")
            refused = self._run()
            if refused:
                raise self._refusal(refused - 1, float(matrix[0, refused - 1]))
            score: float = self._result[0]
            return score
        if rows.names == self._names:
            return self.score_one([column[0] for column in rows.given])
        columns = rows.columns
        return self.score_one([columns[name][0] if name in columns else None for name in self._names])

    def explain(self, rows: Rows) -> Explanation:
        """How each raw input contributed to each row's output: exact Shapley values (of trees: path-dependent).

        Columns that were made of one input count for it. A row's contributions and the base add up to its output in
        the space of the unit.

        Raises:
            MillpondError: Contributions of this plan are not known; says why.
            DataError: As `scores`.
        """
        described = self.described
        if not described.unit or described.expected is None:
            raise MillpondError(
                f"contributions to this model's outputs cannot be told: {described.unexplained}",
                where=described.about,
                hint="leave out the parameter explain",
            )
        parts = self.contributions(rows)
        if "background" in self.arrays:
            parts = parts - self.arrays["background"]
        return Explanation(base=described.expected, contributions=parts, unit=described.unit)

    def contributions(self, rows: Rows) -> Floats:
        """(rows, inputs): as `explain`, but of a linear plan the plain products, without their means."""
        prepared = self._prepared(self.encode(rows))
        sizes, weights = self.described.sizes, self.arrays.get("weights")
        if weights is not None:
            columns = prepared * weights.reshape(1, -1)
        else:
            columns = self._kernel.explain(prepared, self.described.depth)
            if self.described.link == "mean":
                columns /= self.described.link_argument
        source = np.arange(sizes["width"]) if sizes["prepared_is_raw"] else self.arrays["column_source"]
        out = np.zeros((len(self._names), len(columns)))
        np.add.at(out, source, columns[:, : sizes["width"]].T)
        return np.ascontiguousarray(out.T)

    def _prepared(self, matrix: Floats) -> Floats:
        prepared, refused = self._kernel.prepare(matrix)
        if refused:
            column = matrix[:, refused - 1]
            bad = column[~np.isfinite(column)]
            raise self._refusal(refused - 1, bad[0] if len(bad) else float(np.abs(column).max()))
        return prepared

    def _numbers(self, given: Sequence[Any], values: Sequence[Any]) -> list[float]:
        if len(given) != len(self._names):
            raise DataError(
                f"a row has {len(given)} values, and the model takes {len(self._names)}", where="model inputs"
            )
        for index, value in enumerate(given):
            if isinstance(value, str):
                raise self._refusal(index, values[index])
        return [np.nan if value is None else value for value in given]

    def _refusal(self, index: int, value: Any) -> DataError:
        name = self._names[index]
        shown = "null" if value is None or value != value else repr(value)  # noqa: PLR0124
        return DataError(
            f"the model does not take {shown} for {name!r}",
            where=f"input {name!r}",
            hint="the estimator was trained without such values and refuses them",
        )


def with_background(plan: Plan, rows: Rows) -> Plan:
    """A linear plan with the mean contribution of each input over `rows`, so that it can explain; others as is."""
    if "weights" not in plan.arrays or not plan.described.unit or not rows.count:
        return plan
    from dataclasses import replace

    means = plan.contributions(rows).mean(axis=0)
    expected = float(plan.arrays["base"][0] + means.sum())
    return Plan(replace(plan.described, expected=expected), {**plan.arrays, "background": means})


def _numpy_link(name: str, sums: Floats) -> Floats:
    """As scikit-learn computes it, to the last bit."""
    found: Floats
    if name == "exp":
        found = np.exp(sums)
        return found
    total: Floats
    if name == "share":  # of one class against the rest, normalised
        total = sums.sum(axis=1, keepdims=True)
        found = np.divide(sums, total, out=np.full_like(sums, 1 / sums.shape[1]), where=total != 0)
        return found
    shifted = np.exp(sums - sums.max(axis=1, keepdims=True))
    found = shifted / shifted.sum(axis=1, keepdims=True)
    return found
