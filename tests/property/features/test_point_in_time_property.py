"""`join_features` means what the oracle says, for random tables, views and examples."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.features.explain import explain
from millpond.features.ports import PinnedView
from millpond.features.sql_duckdb.join import DuckDBDialect

pytestmark = pytest.mark.timeout(7200)  # the full profile takes its time


@given(data=st.data())
def test_features_are_what_the_oracle_says(
    data: st.DataObject, engine: Any, oracle: Any, worlds: Any, cases: Any
) -> None:
    """With few rows to a tile, so that small tables have many."""
    case = data.draw(worlds.cases())
    tile_rows = data.draw(st.sampled_from([8.0, 1.0, 0.3, 0.01, 1e-9]))
    cases.assert_same(case, cases.by_engine(case, engine, DuckDBDialect(tile_rows)), cases.by_oracle(case, oracle))


@given(seed=st.integers(0, 2**32))
@settings(max_examples=settings().max_examples // 2)
def test_crowded_cases_are_what_the_oracle_says(seed: int, engine: Any, oracle: Any, worlds: Any, cases: Any) -> None:
    """With `tile_rows` next to nothing a tile is a microsecond wide, and whole seconds are ends of tiles."""
    case = worlds.crowded_case(seed)
    expected = cases.by_oracle(case, oracle)
    for tile_rows in (8.0, 0.3, 1e-9):
        cases.assert_same(case, cases.by_engine(case, engine, DuckDBDialect(tile_rows)), expected)


@given(data=st.data())
@settings(max_examples=settings().max_examples // 2)
def test_no_row_that_is_not_visible_changes_a_feature(
    data: st.DataObject, engine: Any, oracle: Any, worlds: Any, cases: Any
) -> None:
    """Rows are changed, taken away and added; only the examples that see none of them are looked at."""
    case = data.draw(worlds.cases().filter(lambda case: case.view.event_time is not None))
    t = data.draw(worlds.instants())
    changed = []
    for row in case.rows:
        fate = (
            "keep" if oracle.is_visible(case.view, row, t) else data.draw(st.sampled_from(["keep", "drop", "change"]))
        )
        if fate == "keep":
            changed.append(row)
        elif fate == "change":
            other = data.draw(worlds.rows(row["id"]).filter(lambda row: not oracle.is_visible(case.view, row, t)))
            changed.append(other)
    more = data.draw(st.lists(worlds.rows(0).filter(lambda row: not oracle.is_visible(case.view, row, t)), max_size=6))
    changed += [{**row, "id": 1000 + number} for number, row in enumerate(more)]
    before = [row for row in case.spine if row["at"] is not None and row["at"] <= t]
    spine = [*before, {"row": -1, "g": "a", "h": 1, "at": t}]
    tiled = DuckDBDialect(tile_rows=1.0)
    old = cases.by_engine(worlds.Case(case.sources, spine), engine, tiled)
    new = cases.by_engine(worlds.Case((worlds.Source(case.view, changed),), spine), engine, tiled)
    for one, other in zip(old, new, strict=True):
        for column in case.view.columns:
            left, right = one[column], other[column]
            if isinstance(left, float) and isinstance(right, float):
                assert math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-6)
            else:
                assert left == right


@given(data=st.data())
@settings(max_examples=settings().max_examples // 2)
def test_explained_values_are_the_joined_ones(
    data: st.DataObject, engine: Any, oracle: Any, worlds: Any, cases: Any
) -> None:
    """And the rows named are rows that the oracle sees."""
    case = data.draw(worlds.cases())
    example = data.draw(
        st.sampled_from(case.spine).filter(lambda row: row["at"] is not None)
        if any(row["at"] for row in case.spine)
        else st.just({**case.spine[0], "at": worlds.EPOCH})
    )
    case = worlds.Case(case.sources, [example])
    (joined,) = cases.by_engine(case, engine, DuckDBDialect(tile_rows=1.0))
    snapshot = engine.add("events", case.sources[0].table())
    try:
        explained = explain(engine, [PinnedView(case.view, snapshot)], example, example["at"])
    finally:
        engine.drop(snapshot)
    assert [each.name for each in explained] == list(case.view.columns)
    seen = [
        {key: row[key] for key in case.view.source.keys}
        for row in case.rows
        if oracle.is_of(case.view, row, example) and oracle.is_visible(case.view, row, example["at"])
    ]
    for each, feature in zip(explained, case.view.features.values(), strict=True):
        assert (each.table, each.snapshot_id) == ("events", snapshot.id)
        left, right = each.value, joined[each.name]
        assert left == right or (isinstance(left, float) and math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-9))
        assert all(row in seen for row in each.example_rows) if case.view.event_time and not case.view.every else True
        assert (each.visible_since is None) == (each.rows == 0 or case.view.event_time is None)
        assert each.visible_since is None or each.visible_since < example["at"]
        if feature.kind == "count":
            assert each.rows == each.value
        if each.rows == 0:
            assert each.value in (None, 0)
