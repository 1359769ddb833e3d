"""Fitted scikit-learn estimators as forests and weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from millpond.serving.plans.forest import Tree
from millpond.serving.plans.preprocessing import transformed
from millpond.serving.plans.symbols import Core, Made, NotCompilable, Operation

#: Of sums whose order is the linear algebra library's; relative.
LINEAR_TOLERANCE = 1e-12


def compile_sklearn(estimator: Any, columns: list[Made], classifies: bool) -> tuple[list[Made], Core] | None:
    """Columns and core of an estimator of scikit-learn; None where there is no plan for its class."""
    kind = type(estimator)
    name = kind.__name__
    if not kind.__module__.startswith("sklearn."):
        return None
    if name in _LINEAR:
        return columns, _linear(estimator, classifies)
    if name in ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"):
        inner = getattr(estimator, "_preprocessor", None)
        made = columns if inner is None else transformed(inner, columns)
        return made, _histogram(estimator, classifies)
    if name in ("GradientBoostingClassifier", "GradientBoostingRegressor"):
        return columns, _boosted(estimator, classifies)
    if name in _FORESTS:
        return columns, _forest(estimator, estimator.estimators_, classifies)
    if name in _TREES:
        return columns, _forest(estimator, [estimator], classifies)
    return None


_LINEAR = [
    "LinearRegression",
    "Ridge",
    "RidgeCV",
    "Lasso",
    "LassoCV",
    "ElasticNet",
    "ElasticNetCV",
    "BayesianRidge",
    "HuberRegressor",
    "SGDRegressor",
    "LogisticRegression",
    "LogisticRegressionCV",
    "SGDClassifier",
]
_TREES = ("DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor")
_FORESTS = ("RandomForestClassifier", "RandomForestRegressor", "ExtraTreesClassifier", "ExtraTreesRegressor")


def _linear(estimator: Any, classifies: bool) -> Core:
    weights = np.atleast_2d(np.asarray(estimator.coef_, dtype=np.float64))
    base = np.broadcast_to(np.asarray(estimator.intercept_, dtype=np.float64), (len(weights),)).copy()
    link, numpy_link, unit = "none", "", "output"
    if classifies:
        if type(estimator).__name__ == "SGDClassifier" and estimator.loss != "log_loss":
            raise NotCompilable(f"there is no plan for an SGDClassifier with loss={estimator.loss!r}")
        link, unit = "sigmoid", "log-odds"
        if len(estimator.classes_) > 2:
            shares = type(estimator).__name__ == "SGDClassifier"
            link, numpy_link = ("sigmoid_each", "share") if shares else ("none", "softmax")
    return Core(
        base,
        weights=weights,
        tail=(("number", 0.0),),
        link=link,
        numpy_link=numpy_link,
        tolerance=LINEAR_TOLERANCE,
        unit=unit if len(weights) == 1 else "",
        about=f"{type(estimator).__name__}, {weights.shape[1]} columns",
    )


def _histogram(estimator: Any, classifies: bool) -> Core:
    base = np.asarray(estimator._baseline_prediction, dtype=np.float64).reshape(-1)
    trees = [
        _histogram_tree(predictor, group)
        for iteration in estimator._predictors
        for group, predictor in enumerate(iteration)
    ]
    link, numpy_link, unit, unexplained = "none", "", "output", Core.unexplained
    if classifies:
        link, numpy_link, unit = ("sigmoid", "", "log-odds") if len(base) == 1 else ("none", "softmax", "")
    else:
        inverse = type(estimator._loss.link).__name__
        if inverse not in ("IdentityLink", "LogLink"):
            raise NotCompilable(f"there is no plan for a HistGradientBoostingRegressor with loss={estimator.loss!r}")
        if inverse == "LogLink":
            numpy_link, unit, unexplained = "exp", "", "its output is the exponential of a sum"
    about = f"{type(estimator).__name__}, {len(trees)} trees"
    return Core(base, trees, link=link, numpy_link=numpy_link, unit=unit, unexplained=unexplained, about=about)


def _histogram_tree(predictor: Any, group: int) -> Tree:
    nodes = predictor.nodes
    leaf = nodes["is_leaf"].astype(bool)
    categorical = np.flatnonzero(nodes["is_categorical"].astype(bool) & ~leaf)
    return Tree(
        feature=nodes["feature_idx"].astype(np.int64),
        threshold=nodes["num_threshold"].astype(np.float64),
        left=np.where(leaf, -1, nodes["left"].astype(np.int64)),
        right=np.where(leaf, -1, nodes["right"].astype(np.int64)),
        default_left=nodes["missing_go_to_left"].astype(bool),
        value=nodes["value"].astype(np.float64),
        cover=nodes["count"].astype(np.float64),
        sets={int(at): predictor.raw_left_cat_bitsets[nodes[at]["bitset_idx"]] for at in categorical},
        group=group,
    )


def _boosted(estimator: Any, classifies: bool) -> Core:
    name = type(estimator).__name__
    if estimator.init not in (None, "zero"):
        raise NotCompilable(f"there is no plan for a {name} that begins with another estimator")
    base = estimator._raw_predict_init(np.zeros((1, estimator.n_features_in_), dtype=np.float32)).reshape(-1)
    link, numpy_link, unit = "none", "", "output"
    # The link of the exponential loss doubles its argument, which of binary fractions doubles every part exactly.
    scale = 2.0 if estimator.loss == "exponential" else 1.0
    if classifies:
        link, numpy_link, unit = ("sigmoid", "", "log-odds") if len(base) == 1 else ("none", "softmax", "")

    def steps(value: Any) -> Any:
        return estimator.learning_rate * value[:, 0, 0] * scale

    trees = [
        _sklearn_tree(member.tree_, steps, group)
        for stage in estimator.estimators_
        for group, member in enumerate(stage)
    ]
    tail: tuple[Operation, ...] = (("float32", 0.0), ("number", 0.0))
    about = f"{name}, {len(trees)} trees"
    return Core(base * scale, trees, tail=tail, link=link, numpy_link=numpy_link, unit=unit, about=about)


def _forest(estimator: Any, members: Sequence[Any], classifies: bool) -> Core:
    if classifies and estimator.n_outputs_ > 1:
        raise NotCompilable(f"there is no plan for a {type(estimator).__name__} of several targets")
    trees = [_sklearn_tree(member.tree_, _shares if classifies else _means) for member in members]
    outputs = 1 if trees[0].value.ndim == 1 else trees[0].value.shape[1]
    name = type(estimator).__name__
    check = "finite" if members[0]._support_missing_values(None) else "number"
    tail: tuple[Operation, ...] = (("float32", 0.0), (check, 0.0))
    threads = getattr(estimator, "n_jobs", None)
    return Core(
        np.zeros(outputs),
        trees,
        tail=tail,
        link="none" if name in _TREES else "mean",
        link_argument=float(len(members)),
        # Several threads add their trees up in whichever order they end.
        tolerance=0.0 if threads in (None, 1) or name in _TREES else LINEAR_TOLERANCE,
        unit="" if outputs > 1 else "probability" if classifies else "output",
        about=f"{name}, {len(trees)} trees",
    )


def _shares(value: Any) -> Any:
    """Of the second of two classes, or of all of more."""
    return value[:, 0, 1] if value.shape[2] == 2 else value[:, 0, :]


def _means(value: Any) -> Any:
    """Of one target, or of several."""
    return value[:, 0, 0] if value.shape[1] == 1 else value[:, :, 0]


def _sklearn_tree(tree: Any, values: Callable[[Any], Any], group: int = 0) -> Tree:
    return Tree(
        feature=np.maximum(tree.feature, 0),
        threshold=np.asarray(tree.threshold, dtype=np.float64),
        left=np.asarray(tree.children_left, dtype=np.int64),
        right=np.asarray(tree.children_right, dtype=np.int64),
        default_left=np.asarray(tree.missing_go_to_left).astype(bool),
        value=np.ascontiguousarray(values(tree.value), dtype=np.float64),
        cover=np.asarray(tree.weighted_n_node_samples, dtype=np.float64),
        group=group,
    )
