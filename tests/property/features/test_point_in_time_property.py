"""`join_features` means what the oracle says, for random tables, views and examples."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.features.assembly import assemble
from millpond.features.explain import explain
from millpond.features.plan import plan_views
from millpond.features.ports import PinnedView
from millpond.features.sql_duckdb.join import DuckDBDialect

pytestmark = pytest.mark.timeout(7200)  # the full profile takes its time


def compute(engine: Any, world: Any, tile_rows: float = 1.0) -> list[dict[str, Any]]:
    """The features of each example, in the examples' order; few rows to a tile, so that small tables have many."""
    snapshot = engine.add("events", world.table())
    engine.register("examples", world.examples())
    try:
        with engine.session():
            plans = plan_views([PinnedView(world.view, snapshot)])
            relation = assemble(DuckDBDialect(tile_rows), engine, "examples", "at", plans)
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
    tile_rows = data.draw(st.sampled_from([8.0, 1.0, 0.3, 0.01, 1e-9]))
    assert_same(world, compute(engine, world, tile_rows), expected)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=settings().max_examples // 2)
def test_crowded_worlds_are_what_the_oracle_says(seed: int, engine: Any, oracle: Any, worlds: Any) -> None:
    """With `tile_rows` next to nothing a tile is a microsecond wide, and whole seconds are ends of tiles."""
    world = worlds.crowded_world(seed)
    expected = [oracle.features_at(world.view, world.rows, row, row["at"]) for row in world.spine]
    for tile_rows in (8.0, 0.3, 1e-9):
        assert_same(world, compute(engine, world, tile_rows), expected)


@given(data=st.data())
@settings(max_examples=settings().max_examples // 2)
def test_no_row_that_is_not_visible_changes_a_feature(
    data: st.DataObject, engine: Any, oracle: Any, worlds: Any
) -> None:
    """Rows are changed, taken away and added; only the examples that see none of them are looked at."""
    world = data.draw(worlds.worlds().filter(lambda world: world.view.event_time is not None))
    t = data.draw(worlds.instants())
    changed = []
    for row in world.rows:
        fate = (
            "keep" if oracle.is_visible(world.view, row, t) else data.draw(st.sampled_from(["keep", "drop", "change"]))
        )
        if fate == "keep":
            changed.append(row)
        elif fate == "change":
            other = data.draw(worlds.rows(row["id"]).filter(lambda row: not oracle.is_visible(world.view, row, t)))
            changed.append(other)
    more = data.draw(st.lists(worlds.rows(0).filter(lambda row: not oracle.is_visible(world.view, row, t)), max_size=6))
    changed += [{**row, "id": 1000 + number} for number, row in enumerate(more)]
    before = [row for row in world.spine if row["at"] is not None and row["at"] <= t]
    spine = [*before, {"row": -1, "g": "a", "h": 1, "at": t}]
    old = compute(engine, worlds.World(world.view, world.rows, spine))
    new = compute(engine, worlds.World(world.view, changed, spine))
    for one, other in zip(old, new, strict=True):
        for column in world.view.columns:
            left, right = one[column], other[column]
            if isinstance(left, float) and isinstance(right, float):
                assert math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-6)
            else:
                assert left == right


@given(data=st.data())
@settings(max_examples=settings().max_examples // 2)
def test_explained_values_are_the_joined_ones(data: st.DataObject, engine: Any, oracle: Any, worlds: Any) -> None:
    """And the rows named are rows that the oracle sees."""
    world = data.draw(worlds.worlds())
    example = data.draw(
        st.sampled_from(world.spine).filter(lambda row: row["at"] is not None)
        if any(row["at"] for row in world.spine)
        else st.just({**world.spine[0], "at": worlds.EPOCH})
    )
    world = worlds.World(world.view, world.rows, [example])
    (joined,) = compute(engine, world)
    snapshot = engine.add("events", world.table())
    try:
        explained = explain(engine, [PinnedView(world.view, snapshot)], example, example["at"])
    finally:
        engine.drop(snapshot)
    assert [each.name for each in explained] == list(world.view.columns)
    seen = [
        {key: row[key] for key in world.view.source.keys}
        for row in world.rows
        if oracle.is_of(world.view, row, example) and oracle.is_visible(world.view, row, example["at"])
    ]
    for each, feature in zip(explained, world.view.features.values(), strict=True):
        assert (each.table, each.snapshot_id) == ("events", snapshot.id)
        left, right = each.value, joined[each.name]
        assert left == right or (isinstance(left, float) and math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-9))
        assert all(row in seen for row in each.example_rows) if world.view.event_time and not world.view.every else True
        assert (each.visible_since is None) == (each.rows == 0 or world.view.event_time is None)
        assert each.visible_since is None or each.visible_since < example["at"]
        if feature.kind == "count":
            assert each.rows == each.value
        if each.rows == 0:
            assert each.value in (None, 0)
