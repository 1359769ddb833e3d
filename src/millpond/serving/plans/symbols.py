"""What becomes of raw inputs on their way to an estimator, as data: one value a column that is made of one input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from millpond.core.errors import MillpondError
from millpond.serving.plans.forest import Tree
from millpond.serving.plans.kernels import Floats
from millpond.serving.plans.plan import REFUSED, Codes


class NotCompilable(MillpondError):
    """There is no plan for this estimator; `what` says why. It is then served as it is."""


@dataclass(frozen=True)
class Lookup:
    """A number looked up among others; `keys` ascend. What is refused gives an infinity."""

    keys: tuple[float, ...]
    values: tuple[float, ...]
    missing: float
    other: float


Operation = tuple[str, float | Lookup]


@dataclass(frozen=True)
class Number:
    """A column computed of a numeric input, by operations of the kernels."""

    source: str
    operations: tuple[Operation, ...] = ()


@dataclass(frozen=True)
class Text:
    """A string input that nothing has encoded yet; `null` is the text that stands for null by now, if any."""

    source: str
    null: str | None = None
    refuses_null: bool = False


@dataclass(frozen=True)
class Coded:
    """A column that is a number for every text of a string input."""

    source: str
    codes: Codes


Made = Number | Text | Coded


@dataclass(frozen=True)
class Core:
    """A fitted estimator over prepared columns.

    Attributes:
        base: What sums begin with (of weights: the intercepts), (outputs,).
        trees: Its trees; or
        weights: (outputs, columns).
        tail: Operations on every column before it is used.
        link, link_argument, numpy_link, tolerance, unit, unexplained: As in `plan.Described`.
        single_precision: Whether sums are float32.
        about: For people.
    """

    base: Floats
    trees: Sequence[Tree] = ()
    weights: Floats | None = None
    tail: tuple[Operation, ...] = ()
    link: str = "none"
    link_argument: float = 1.0
    numpy_link: str = ""
    tolerance: float = 0.0
    unit: str = ""
    unexplained: str = "it has several outputs"
    single_precision: bool = False
    about: str = field(default="")


def then(column: Made, operations: Sequence[Operation]) -> Made:
    """A column after further operations.

    Raises:
        NotCompilable: It is text.
    """
    if isinstance(column, Text):
        raise NotCompilable(
            f"the string input {column.source!r} reaches a step that takes numbers",
            hint="encode it in the pipeline, with an OrdinalEncoder or a OneHotEncoder",
        )
    if isinstance(column, Number):
        return replace(column, operations=(*column.operations, *operations))
    return Coded(column.source, mapped(column.codes, lambda value: _computed(value, operations)))


def mapped(codes: Codes, function: Any) -> Codes:
    """Codes after a function of their numbers; what is refused stays so."""

    def one(value: float | str) -> float | str:
        found: float | str = REFUSED if isinstance(value, str) else function(value)
        return found

    return Codes({text: one(value) for text, value in codes.known.items()}, one(codes.null), one(codes.other))


def _computed(value: float, operations: Sequence[Operation]) -> float | str:
    """As the kernels compute it."""
    found = np.float64(value)
    with np.errstate(all="ignore"):
        for name, argument in operations:
            if isinstance(argument, Lookup):
                found = np.float64(_looked_up(argument, float(found)))
            elif (name == "finite" and np.isinf(found)) or (name == "number" and not np.isfinite(found)):
                return REFUSED
            else:
                found = np.float64(_ARITHMETIC[name](found, argument))
    return float(found)


_ARITHMETIC: Mapping[str, Any] = {
    "fill": lambda value, argument: argument if np.isnan(value) else value,
    "subtract": lambda value, argument: value - argument,
    "divide": lambda value, argument: value / np.float64(argument),
    "multiply": lambda value, argument: value * argument,
    "add": lambda value, argument: value + argument,
    "low": lambda value, argument: argument if value < argument else value,
    "high": lambda value, argument: argument if value > argument else value,
    "is_nan": lambda value, _: float(np.isnan(value)),
    "float32": lambda value, _: np.float32(value),
    "finite": lambda value, _: value,
    "number": lambda value, _: value,
}


def _looked_up(table: Lookup, value: float) -> float:
    if np.isnan(value):
        return table.missing
    return dict(zip(table.keys, table.values, strict=True)).get(value, table.other)


def lookup_array(table: Lookup) -> npt.NDArray[np.float64]:
    """As the kernels read it."""
    return np.array([len(table.keys), table.missing, table.other, *table.keys, *table.values], dtype=np.float64)
