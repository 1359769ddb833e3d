"""LightGBM boosters as forests."""

from __future__ import annotations

from typing import Any

import numpy as np

from millpond.serving.plans.forest import Tree
from millpond.serving.plans.symbols import Core, NotCompilable

#: LightGBM's kZeroThreshold.
_ZERO = float(np.float32(1e-35))
_DUMPED_INFINITY = 1e300


def compile_lightgbm(booster: Any, about: str, tolerance: float = 0.0) -> Core:
    """The core of a booster: the trees up to its best iteration, summed as it sums them.

    Raises:
        NotCompilable: Trees with linear leaves, pandas categories, averaged outputs, an objective not known here.
    """
    dumped = booster.dump_model()
    if dumped.get("pandas_categorical"):
        raise NotCompilable("the booster was fitted on pandas categories", hint="encode them in the pipeline")
    if dumped.get("average_output"):
        raise NotCompilable('there is no plan for LightGBM with boosting="rf"')
    groups = int(dumped["num_tree_per_iteration"])
    trees = [_tree(each["tree_structure"], index % groups) for index, each in enumerate(dumped["tree_info"])]
    link, argument, unit, unexplained = _link(dumped.get("objective", ""), groups)
    return Core(
        np.zeros(groups),
        trees,
        link=link,
        link_argument=argument,
        tolerance=tolerance,
        unit=unit,
        unexplained=unexplained,
        about=f"{about}, {len(trees)} trees",
    )


def _link(objective: str, groups: int) -> tuple[str, float, str, str]:
    """Link, its argument, unit of contributions, and why there are none."""
    name, *words = objective.split() or [""]
    options = dict(word.partition(":")[::2] for word in words)
    several, nonlinear = Core.unexplained, f"its output is no sum and no probability, under the objective {name}"
    if name in ("binary", "multiclassova"):
        argument = float(options.get("sigmoid", "1"))
        # Where the sum is not the log-odds itself, but those over the argument, contributions would be scaled.
        unit = "log-odds" if groups == 1 and argument == 1 else ""
        return "sigmoid", argument, unit, several if groups > 1 else "its parameter sigmoid is not 1"
    if name == "cross_entropy":
        return "sigmoid", 1.0, "log-odds", ""
    if name == "cross_entropy_lambda":
        return "log1p_exp", 1.0, "", nonlinear
    if name in ("multiclass", "softmax"):
        return "softmax", 1.0, "", several
    if name in ("poisson", "gamma", "tweedie"):
        return "exp", 1.0, "", nonlinear
    if name in ("regression", "regression_l1", "huber", "fair", "quantile", "mape", "lambdarank", "rank_xendcg"):
        if "sqrt" in options:
            return "signed_square", 1.0, "", nonlinear
        return "none", 1.0, "output", ""
    raise NotCompilable(f"there is no plan for LightGBM with the objective {name or 'of your own'!r}")


def _tree(root: dict[str, Any], group: int) -> Tree:
    nodes: list[dict[str, Any]] = []
    children: list[tuple[int, int]] = []
    todo = [(root, -1, 0)]
    while todo:
        node, parent, side = todo.pop()
        at = len(nodes)
        nodes.append(node)
        children.append((-1, -1))
        if parent >= 0:
            left, right = children[parent]
            children[parent] = (at, right) if side == 0 else (left, at)
        if "split_feature" in node:
            todo += [(node["right_child"], at, 1), (node["left_child"], at, 0)]
    if any("leaf_coeff" in node for node in nodes):
        raise NotCompilable("there is no plan for LightGBM with linear_tree")
    split = np.array(["split_feature" in node for node in nodes])
    categorical = [at for at, node in enumerate(nodes) if node.get("decision_type") == "=="]
    zero = np.array([node.get("missing_type") == "Zero" and at not in categorical for at, node in enumerate(nodes)])
    covers = [node.get("internal_count", node.get("leaf_count", 0)) for node in nodes]
    numeric = [0.0 if at in categorical else _threshold(node) for at, node in enumerate(nodes)]
    return Tree(
        feature=np.array([node.get("split_feature", 0) for node in nodes], dtype=np.int64),
        threshold=np.array(numeric),
        left=np.array([left for left, _ in children], dtype=np.int64),
        right=np.array([right for _, right in children], dtype=np.int64),
        default_left=np.array([_nan_goes_left(node) for node in nodes]),
        value=np.array([node.get("leaf_value", 0.0) for node in nodes], dtype=np.float64),
        cover=np.array(covers, dtype=np.float64) if all(covers) or not split.any() else None,
        sets={at: _words(nodes[at]["threshold"]) for at in categorical},
        zero_missing=zero if zero.any() else None,
        group=group,
    )


def _nan_goes_left(node: dict[str, Any]) -> bool:
    """Where NaN is not missing, LightGBM takes it for zero; of a categorical split it always goes right."""
    if node.get("decision_type") != "<=":
        return False
    if node["missing_type"] == "None":
        return float(node["threshold"]) >= 0
    return bool(node["default_left"])


def _threshold(node: dict[str, Any]) -> float:
    """The threshold; numbers so near to zero that LightGBM takes them for it fall on the side of zero.

    A split between all numbers and none has an infinite threshold, which a dump tells as 1e300.
    """
    value = float(node.get("threshold", 0))
    if value >= _DUMPED_INFINITY:
        return float("inf")
    if -_ZERO <= value < 0:
        return float(np.nextafter(-_ZERO, -np.inf))
    return _ZERO if 0 <= value < _ZERO else value


def _words(categories: str) -> Any:
    numbers = [int(each) for each in categories.split("||")]
    words = np.zeros(max(numbers) // 32 + 1, dtype=np.uint32)
    for number in numbers:
        words[number // 32] |= np.uint32(1 << (number % 32))
    return words
