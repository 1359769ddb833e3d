"""Random forests of any shape: kernels against a walk in plain Python, contributions against Shapley's definition."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.serving.plans.compiling import _assembled
from millpond.serving.plans.forest import Tree
from millpond.serving.plans.kernels import load_kernels
from millpond.serving.plans.symbols import Core, Number

WIDTH = 4
VALUES = [-2.0, -0.5, -1e-36, -0.0, 0.0, 5e-324, 0.5, 1.0, 2.0, 3.0, 40.0, math.inf, -math.inf, math.nan]
value = st.sampled_from(VALUES)
row = st.lists(value, min_size=WIDTH, max_size=WIDTH)


@st.composite
def tree(draw: st.DrawFn, leaves: int, *, categories: bool = True, zeros: bool = True) -> Tree:
    """Grown by splitting a random leaf again and again, so of any shape."""
    children: list[tuple[int, int]] = [(-1, -1)]
    for _ in range(draw(st.integers(0, leaves - 1))):
        open_nodes = [at for at, (left, _) in enumerate(children) if left < 0]
        at = draw(st.sampled_from(open_nodes))
        children[at] = (len(children), len(children) + 1)
        children += [(-1, -1), (-1, -1)]
    count = len(children)
    left, right = (np.array([pair[side] for pair in children]) for side in (0, 1))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    cover = np.zeros(count)
    for at in range(count - 1, -1, -1):
        cover[at] = random.integers(1, 50) if left[at] < 0 else cover[left[at]] + cover[right[at]]
    inner = np.flatnonzero(left >= 0).tolist()
    chosen = [at for at in inner if categories and random.random() < 0.3]
    zero = random.random(count) < 0.3
    return Tree(
        feature=random.integers(0, WIDTH, count),
        threshold=random.choice([v for v in VALUES if math.isfinite(v)], count),
        left=left,
        right=right,
        default_left=random.random(count) < 0.5,
        value=random.normal(size=count),
        cover=cover,
        sets={at: random.integers(0, 2**32, 2, dtype=np.uint32) for at in chosen},
        zero_missing=zero if zeros and random.random() < 0.2 else None,
    )


def left_of(tree: Tree, at: int, value: float) -> bool:
    if at in tree.sets:
        if math.isnan(value) or value <= -1:
            return bool(tree.default_left[at])
        return math.isfinite(value) and value < 64 and bool(tree.sets[at][int(value) // 32] >> (int(value) % 32) & 1)
    zero = tree.zero_missing is not None and tree.zero_missing[at] and abs(value) <= float(np.float32(1e-35))
    return bool(tree.default_left[at]) if math.isnan(value) or zero else bool(value <= tree.threshold[at])


def leaf_of(tree: Tree, row: Sequence[float]) -> int:
    at = 0
    while tree.left[at] >= 0:
        at = int((tree.left if left_of(tree, at, row[tree.feature[at]]) else tree.right)[at])
    return at


def plan_of(trees: Sequence[Tree]) -> Any:
    names = [f"x{k}" for k in range(WIDTH)]
    core = Core(np.array([0.25]), trees, unit="output", about="a random forest")
    return _assembled(dict.fromkeys(names, "float64"), [Number(name) for name in names], core)


def forests(leaves: int) -> st.SearchStrategy[list[Tree]]:
    return st.lists(tree(leaves), min_size=1, max_size=11)


def check_kernels(trees: list[Tree], rows: list[list[float]]) -> None:
    plan = plan_of(trees)
    expected = []
    for each in rows:
        total = 0.25
        for one in trees:
            total += float(one.value[leaf_of(one, each)])
        expected.append(total)
    try:
        for widest in (0, 1, 2):
            load_kernels().millpond_widest(widest)
            assert plan.scores(np.array(rows)).tolist() == expected
    finally:
        load_kernels().millpond_widest(2)
    assert [plan.score_one(each) for each in rows] == expected


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([2, 12, 32, 33, 64, 90]).flatmap(forests), st.lists(row, min_size=1, max_size=40))
def test_every_kernel_walks_as_the_trees_say(trees, rows):
    check_kernels(trees, rows)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([1, 2, 12, 32]).flatmap(
        lambda leaves: st.lists(tree(leaves, categories=False, zeros=False), min_size=1, max_size=11)
    ),
    st.lists(st.lists(st.sampled_from(VALUES[:-1]), min_size=WIDTH, max_size=WIDTH), min_size=16, max_size=50),
    st.none() | st.integers(0, 15),
)
def test_blocks_without_nulls_and_those_with_one(trees, rows, null):
    if null is not None:
        rows[null][null % WIDTH] = math.nan
    check_kernels(trees, rows)


@settings(max_examples=40, deadline=None)
@given(st.lists(tree(9), min_size=1, max_size=3), row)
def test_contributions_are_shapley_values(trees, row):
    plan = plan_of(trees)
    from millpond.serving.rows import Rows

    explanation = plan.explain(Rows.of({f"x{k}": [each] for k, each in enumerate(row)}))
    expected = shapley(trees, row)
    np.testing.assert_allclose(explanation.contributions[0], expected, atol=1e-12)
    assert math.isclose(explanation.base + sum(expected), plan.score_one(row), abs_tol=1e-9)


def shapley(trees: Sequence[Tree], row: Sequence[float]) -> list[float]:
    """By the definition: over all sets of known features, an unknown one splits by the share of training rows."""

    def expectation(tree: Tree, at: int, known: frozenset[int]) -> float:
        if tree.left[at] < 0:
            return float(tree.value[at])
        left, right = int(tree.left[at]), int(tree.right[at])
        if tree.feature[at] in known:
            return expectation(tree, left if left_of(tree, at, row[tree.feature[at]]) else right, known)
        assert tree.cover is not None
        share = tree.cover[left] / tree.cover[at]
        return float(share * expectation(tree, left, known) + (1 - share) * expectation(tree, right, known))

    found = []
    for feature in range(WIDTH):
        others = [each for each in range(WIDTH) if each != feature]
        total = 0.0
        for size in range(WIDTH):
            weight = math.factorial(size) * math.factorial(WIDTH - size - 1) / math.factorial(WIDTH)
            for chosen in itertools.combinations(others, size):
                known = frozenset(chosen)
                total += weight * sum(
                    expectation(tree, 0, known | {feature}) - expectation(tree, 0, known) for tree in trees
                )
        found.append(total)
    return found
