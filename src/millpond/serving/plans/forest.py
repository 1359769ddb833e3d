"""Trees of any library as the arrays that the kernels read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from millpond.serving.plans.kernels import CATEGORICAL, DEFAULT_LEFT, NODE, ZERO_IS_MISSING, Floats

#: The most leaves of a tree that QuickScorer's bit sets hold.
QUICK_LEAVES = 64

Integers = npt.NDArray[Any]


@dataclass(frozen=True)
class Tree:
    """One tree; node 0 is its root. A row goes left where `value <= threshold`.

    Attributes:
        feature: Index of the prepared column, a node.
        threshold: float64; not of leaves and categorical nodes.
        left: Index of the left child; -1 for a leaf.
        right: Likewise.
        default_left: Whether NaN goes left; of a categorical node also what is negative.
        value: What a leaf adds: (nodes,), or (nodes, outputs).
        cover: Weight of the training rows that reached a node; None where the library does not say.
        sets: Categorical nodes -> bit set of the categories that go left, in words of 32.
        zero_missing: Nodes that take zero for missing; None where none does.
        group: Index of the output that it adds to, where `value` is of one dimension.
    """

    feature: Integers
    threshold: Floats
    left: Integers
    right: Integers
    default_left: npt.NDArray[np.bool_]
    value: Floats
    cover: Floats | None
    sets: Mapping[int, npt.NDArray[np.uint32]] = field(default_factory=dict)
    zero_missing: npt.NDArray[np.bool_] | None = None
    group: int = 0


@dataclass(frozen=True)
class Forest:
    """The arrays and sizes of `struct plan` that describe the trees; and of the deepest tree its depth.

    Attributes:
        expected: The sum's expectation over the training rows, without the base; None where covers are missing, or
            leaves hold several values.
    """

    sizes: Mapping[str, int]
    arrays: Mapping[str, npt.NDArray[Any]]
    depth: int
    expected: float | None


def build(trees: Sequence[Tree], width: int) -> Forest:
    """The arrays of trees over `width` prepared columns."""
    depths, spans = zip(*(_span(tree) for tree in trees), strict=True) if trees else ((0,), ())
    parts = _Parts(trees, spans)
    quick = _quick(parts, trees, spans, width)
    covered = all(tree.cover is not None for tree in trees)
    vector = any(tree.value.ndim == 2 for tree in trees)
    sizes = {
        "trees": len(trees),
        "vector_leaves": int(vector),
        "plain": int(not any(tree.sets or tree.zero_missing is not None for tree in trees)),
        "bits": quick.pop("bits"),
    }
    arrays = {**parts.arrays(covered), **quick}
    scalar = covered and not vector
    return Forest(sizes, arrays, max(depths), sum(_expected(tree) for tree in trees) if scalar else None)


def _expected(tree: Tree) -> float:
    leaves = tree.left < 0
    assert tree.cover is not None
    return (
        float(np.average(tree.value[leaves], weights=tree.cover[leaves])) if leaves.sum() > 1 else float(tree.value[0])
    )


def _span(tree: Tree) -> tuple[int, npt.NDArray[np.int64]]:
    """A tree's depth; and its leaves under each node as positions from the left: first, and one past the last."""
    span = np.zeros((len(tree.left), 2), dtype=np.int64)
    left, right = tree.left.tolist(), tree.right.tolist()
    seen, deepest, todo = 0, 0, [(0, 0, False)]
    while todo:
        at, depth, done = todo.pop()
        if left[at] < 0:
            span[at] = seen, seen + 1
            seen += 1
            deepest = max(deepest, depth)
        elif done:
            span[at] = span[left[at], 0], span[right[at], 1]
        else:
            todo += [(at, depth, True), (right[at], depth + 1, False), (left[at], depth + 1, False)]
    return deepest, span


class _Parts:
    """Trees' nodes one after the other; leaves numbered from the left."""

    def __init__(self, trees: Sequence[Tree], spans: Sequence[npt.NDArray[np.int64]]) -> None:
        self.nodes: list[npt.NDArray[Any]] = []
        self.leaves: list[Floats] = []
        self.node_cover: list[Floats] = []
        self.leaf_cover: list[Floats] = []
        self.roots: list[int] = []
        self.sets: list[npt.NDArray[np.uint32]] = []
        self.group = [tree.group for tree in trees]
        self.node_start, self.leaf_start = [0], [0]
        for tree, span in zip(trees, spans, strict=True):
            self._add(tree, span)

    def _add(self, tree: Tree, span: npt.NDArray[np.int64]) -> None:
        inner = tree.left >= 0
        index = np.where(inner, np.cumsum(inner) - 1 + self.node_start[-1], ~(span[:, 0] + self.leaf_start[-1]))
        nodes = np.zeros(int(inner.sum()), dtype=NODE)
        nodes["threshold"], nodes["feature"] = tree.threshold[inner], tree.feature[inner]
        nodes["left"], nodes["right"] = index[tree.left[inner]], index[tree.right[inner]]
        flags = np.where(tree.default_left, DEFAULT_LEFT, 0)
        if tree.zero_missing is not None:
            flags |= np.where(tree.zero_missing, ZERO_IS_MISSING, 0)
        nodes["flags"] = flags[inner]
        for at, words in tree.sets.items():
            node = int(index[at]) - self.node_start[-1]
            nodes[node]["flags"] |= CATEGORICAL
            nodes[node]["threshold"] = len(self.sets)
            self.sets.append(words)
        order = np.argsort(span[~inner, 0])
        self.nodes.append(nodes)
        self.leaves.append(tree.value[~inner][order])
        if tree.cover is not None:
            self.node_cover.append(tree.cover[inner])
            self.leaf_cover.append(tree.cover[~inner][order])
        self.roots.append(int(index[0]))
        self.node_start.append(self.node_start[-1] + len(nodes))
        self.leaf_start.append(self.leaf_start[-1] + int((~inner).sum()))

    def arrays(self, covered: bool) -> dict[str, npt.NDArray[Any]]:
        found = {
            "nodes": _joined(self.nodes, NODE),
            "roots": np.array(self.roots, dtype="i4"),
            "group": np.array(self.group, dtype="i4"),
            "leaf_start": np.array(self.leaf_start, dtype="i4"),
            "leaves": np.ascontiguousarray(_joined(self.leaves, np.float64)),
            "set_start": np.cumsum([0, *(len(each) for each in self.sets)]).astype("i4"),
            "sets": _joined(self.sets, np.uint32),
        }
        if covered:
            found |= {
                "node_cover": _joined(self.node_cover, np.float64),
                "leaf_cover": _joined(self.leaf_cover, np.float64),
            }
        return found


def _joined(parts: Sequence[npt.NDArray[Any]], dtype: Any) -> npt.NDArray[Any]:
    return np.concatenate(parts).astype(dtype, copy=False) if parts else np.zeros(0, dtype=dtype)


def _quick(parts: _Parts, trees: Sequence[Tree], spans: Sequence[npt.NDArray[np.int64]], width: int) -> dict[str, Any]:
    """The arrays of QuickScorer; 0 bits alone where it cannot score these trees."""
    most = max((int(span[0, 1]) for span in spans), default=0)
    if not 1 < most <= QUICK_LEAVES or any(tree.value.ndim == 2 or tree.zero_missing is not None for tree in trees):
        return {"bits": 0}
    bits = 32 if most <= 32 else 64
    word = np.uint32 if bits == 32 else np.uint64
    nodes = _joined(parts.nodes, NODE)
    tree = np.repeat(np.arange(len(trees)), np.diff(parts.node_start)).astype("i4")
    masks = np.array(
        [
            ~(((1 << int(stop - start)) - 1) << int(start)) & ((1 << bits) - 1)
            for each, span in zip(trees, spans, strict=True)
            for start, stop in span[each.left[each.left >= 0]]
        ],
        dtype=word,
    )
    categorical = (nodes["flags"] & CATEGORICAL) != 0
    order = np.lexsort((nodes["threshold"], nodes["feature"]))
    order = order[~categorical[order]]
    category = np.flatnonzero(categorical)
    category = category[np.argsort(nodes["feature"][category], kind="stable")]
    nan_feature, nan_tree, nan_mask = _nan(nodes, tree, masks, categorical)
    return {
        "bits": bits,
        "scan_start": _starts(nodes["feature"][order], width),
        "scan_tree": tree[order],
        "scan_threshold": np.ascontiguousarray(nodes["threshold"][order]),
        "scan_mask": masks[order],
        "nan_start": _starts(nan_feature, width),
        "nan_tree": nan_tree,
        "nan_mask": nan_mask,
        "category_start": _starts(nodes["feature"][category], width),
        "category_tree": tree[category],
        "category_node": category.astype("i4"),
        "category_mask": masks[category],
    }


def _nan(
    nodes: npt.NDArray[Any], tree: Integers, masks: npt.NDArray[Any], categorical: npt.NDArray[np.bool_]
) -> tuple[Integers, Integers, npt.NDArray[Any]]:
    """Feature, tree and mask of what a NaN takes out; one entry a feature and tree."""
    merged: dict[tuple[int, int], int] = {}
    for at in np.flatnonzero(~categorical & ((nodes["flags"] & DEFAULT_LEFT) == 0)).tolist():
        key = int(nodes["feature"][at]), int(tree[at])
        merged[key] = merged.get(key, -1) & int(masks[at])
    keys = sorted(merged)
    return (
        np.array([feature for feature, _ in keys], dtype="i4"),
        np.array([tree for _, tree in keys], dtype="i4"),
        np.array([merged[key] for key in keys], dtype=masks.dtype),
    )


def _starts(features: Integers, width: int) -> Integers:
    return np.searchsorted(features, np.arange(width + 1)).astype("i4")
