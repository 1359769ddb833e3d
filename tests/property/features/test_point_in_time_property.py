"""`join_features` means what the oracle says, for random tables, views and examples."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from millpond.features.point_in_time import join_features
from millpond.features.ports import PinnedView


def compute(engine: Any, world: Any) -> list[dict[str, Any]]:
    """The features of each example, in the examples' order."""
    snapshot = engine.add("events", world.table())
    engine.register("examples", world.examples())
    try:
        with engine.session():
            relation = join_features(engine, "examples", "at", [PinnedView(world.view, snapshot)])
            return engine.table(f"SELECT * FROM {relation} ORDER BY row").to_pylist()
    finally:
        engine.drop(snapshot)


def same(found: Any, expected: Any, scale: float) -> bool:
    """Exact; floats to a relative 1e-9 of the numbers that went into them."""
    if isinstance(expected, Fraction) and isinstance(found, float):
        return abs(Fraction(found) - expected) <= Fraction(1e-9) * Fraction(max(scale, abs(float(expected))))
    if isinstance(expected, float) and isinstance(found, float):
        return math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-9 * scale)
    return found == expected and (type(found) is type(expected) or isinstance(expected, Fraction))


def assert_same(world: Any, found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    for example, got, wanted in zip(world.spine, found, expected, strict=True):
        assert {column: got[column] for column in example} == example
        for name, feature in world.view.features.items():
            full = f"{world.view.name}__{name}"
            values = [row[feature.column] for row in world.rows] if feature.column else []
            scale = max(
                (abs(float(each)) for each in values if isinstance(wanted[full], (Fraction, float)) and each), default=0
            )
            assert same(got[full], wanted[full], scale), (example, str(feature), got[full], wanted[full])


@given(data=st.data())
def test_features_are_what_the_oracle_says(data: st.DataObject, engine: Any, oracle: Any, worlds: Any) -> None:
    world = data.draw(worlds.worlds())
    expected = [oracle.features_at(world.view, world.rows, row, row["at"]) for row in world.spine]
    assert_same(world, compute(engine, world), expected)
