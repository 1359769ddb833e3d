"""XGBoost boosters as forests; sums are float32, as XGBoost's."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from millpond.serving.plans.forest import Tree
from millpond.serving.plans.symbols import Core, NotCompilable


def compile_xgboost(booster: Any, about: str) -> Core:
    """The core of a booster of trees: those up to its best iteration.

    Raises:
        NotCompilable: No `gbtree`, categorical splits, vector leaves, or an objective not known here.
    """
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    kind = learner["gradient_booster"]["name"]
    if kind != "gbtree":
        raise NotCompilable(f"there is no plan for XGBoost with booster={kind!r}")
    model = learner["gradient_booster"]["model"]
    parameters, objective = learner["learner_model_param"], learner["objective"]["name"]
    groups = max(int(parameters["num_class"]), int(parameters.get("num_target", 1)), 1)
    count = len(model["trees"])
    best = booster.attr("best_iteration")
    if best is not None:
        count = model["iteration_indptr"][int(best) + 1]
    trees = [
        _tree(each, int(group)) for each, group in list(zip(model["trees"], model["tree_info"], strict=True))[:count]
    ]
    link, unit, unexplained = _link(objective)
    return Core(
        _base(parameters["base_score"], objective, groups),
        trees,
        tail=(("float32", 0.0),),
        link=link,
        unit=unit if groups == 1 else "",
        unexplained=unexplained if groups == 1 else Core.unexplained,
        single_precision=True,
        about=f"{about}, {len(trees)} trees",
    )


def _base(text: str, objective: str, groups: int) -> Any:
    """The margin that sums begin with; the file has it as an output."""
    score = np.array([float(each) for each in text.strip("[]").split(",")], dtype=np.float32)
    one = np.float32(1)
    # The logarithm of a float32 as the C library rounds it: that of a float64, rounded once.
    if objective in ("binary:logistic", "reg:logistic"):
        score = -np.log((one / score - one).astype(np.float64))
    elif objective in ("count:poisson", "reg:gamma", "reg:tweedie"):
        score = np.log(score.astype(np.float64))
    return np.broadcast_to(score.astype(np.float32), (groups,)).astype(np.float64)


def _link(objective: str) -> tuple[str, str, str]:
    if objective in ("binary:logistic", "reg:logistic"):
        return "sigmoid32", "log-odds", ""
    if objective == "multi:softprob":
        return "softmax32", "", Core.unexplained
    if objective in ("count:poisson", "reg:gamma", "reg:tweedie"):
        return "exp32", "", f"its output is the exponential of a sum, under the objective {objective}"
    if objective in (
        "reg:squarederror",
        "reg:absoluteerror",
        "reg:pseudohubererror",
        "binary:logitraw",
        "reg:quantileerror",
    ):
        return "none", "output", ""
    raise NotCompilable(f"there is no plan for XGBoost with the objective {objective!r}")


def _tree(tree: dict[str, Any], group: int) -> Tree:
    left = np.array(tree["left_children"], dtype=np.int64)
    conditions = np.array(tree["split_conditions"], dtype=np.float32).astype(np.float64)
    if any(tree.get("split_type", ())) or tree.get("categories_nodes"):
        raise NotCompilable("there is no plan for XGBoost with categorical splits")
    if int(tree["tree_param"].get("size_leaf_vector", 1)) > 1:
        raise NotCompilable("there is no plan for XGBoost with vector leaves")
    return Tree(
        feature=np.array(tree["split_indices"], dtype=np.int64),
        threshold=np.nextafter(conditions, -np.inf),  # it goes left where value < condition
        left=left,
        right=np.array(tree["right_children"], dtype=np.int64),
        default_left=np.array(tree["default_left"], dtype=bool),
        value=conditions,
        cover=np.array(tree["sum_hessian"], dtype=np.float64),
        group=group,
    )
