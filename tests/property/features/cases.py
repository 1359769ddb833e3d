"""One case, computed by the oracle or by an engine, and compared.

Every way is a function from a case to the features of its examples, a row an example, in the examples' order. A
further engine is one more such function.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from millpond.features.assembly import Dialect, assemble
from millpond.features.plan import plan_views
from millpond.features.point_in_time import dialect_of
from millpond.features.ports import PinnedView

Rows = list[dict[str, Any]]


def by_oracle(case: Any, oracle: Any) -> Rows:
    found: Rows = []
    for example in case.spine:
        row = dict(example)
        for source in case.sources:
            row |= oracle.features_at(source.view, source.rows, example, example["at"])
        found.append(row)
    return found


def by_engine(case: Any, engine: Any, dialect: Dialect | None = None) -> Rows:
    """The join of all of the case's views at once."""
    pinned = [PinnedView(source.view, engine.add(source.view.source.name, source.table())) for source in case.sources]
    engine.register("examples", case.examples())
    try:
        with engine.session():
            plans = plan_views(pinned)
            relation = assemble(dialect or dialect_of(engine), engine, "examples", "at", plans)
            rows: Rows = engine.table(f"SELECT * FROM {relation} ORDER BY row").to_pylist()
            return rows
    finally:
        for each in pinned:
            engine.drop(each.snapshot)


def same(found: Any, expected: Any, scale: float) -> bool:
    """Exact; floats to a relative 1e-9 of the numbers that went into them."""
    if isinstance(expected, Fraction) and isinstance(found, float):
        return abs(Fraction(found) - expected) <= Fraction(1e-9) * Fraction(max(scale, abs(float(expected))))
    if isinstance(expected, float) and isinstance(found, float):
        return math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-9 * scale)
    return found == expected and (type(found) is type(expected) or isinstance(expected, Fraction))


def assert_same(case: Any, found: Rows, expected: Rows) -> None:
    for example, got, wanted in zip(case.spine, found, expected, strict=True):
        assert {column: got[column] for column in example} == example
        for source in case.sources:
            for name, feature in source.view.features.items():
                full = f"{source.view.name}__{name}"
                scale = _scale(feature, source.rows) if isinstance(wanted[full], (Fraction, float)) else 0
                assert same(got[full], wanted[full], scale), (example, str(feature), got[full], wanted[full])


def _scale(feature: Any, rows: Iterable[dict[str, Any]]) -> float:
    values = [row[feature.column] for row in rows] if feature.column else []
    return max((abs(float(each)) for each in values if each), default=0)
