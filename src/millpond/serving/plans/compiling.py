"""From a fitted estimator to a plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from millpond.serving.plans.forest import build
from millpond.serving.plans.kernels import OPERATIONS
from millpond.serving.plans.lightgbm_models import compile_lightgbm
from millpond.serving.plans.plan import REFUSED, Codes, Described, Plan
from millpond.serving.plans.preprocessing import transformed
from millpond.serving.plans.sklearn_models import compile_sklearn
from millpond.serving.plans.symbols import Coded, Core, Lookup, Made, NotCompilable, Number, Text, lookup_array, then
from millpond.serving.plans.xgboost_models import compile_xgboost


def compile_plan(estimator: Any, inputs: Mapping[str, str], task: str) -> Plan:
    """A plan that gives what the estimator gives; to be proven by `verify_plan` before it serves.

    Args:
        estimator: Fitted: a scikit-learn pipeline or estimator, a LightGBM or XGBoost estimator, or a bare booster.
        inputs: Raw inputs in order: name -> "float64", "int64", "bool" or "string"; the estimator takes a frame of
            them, numbers and booleans as float64 and strings as objects with None for null.
        task: "classification": of two classes the probability of the second, of more one a class. Else what `predict`
            gives.

    Raises:
        NotCompilable: The estimator, or a step before it, is of a kind that is not known here.
        MissingExtra: The kernels are not installed here.
    """
    columns: list[Made] = [
        Text(name) if kind == "string" else Number(name) for name, kind in _order(estimator, inputs).items()
    ]
    while type(estimator).__name__ == "Pipeline":
        for _, step in estimator.steps[:-1]:
            columns = transformed(step, columns)
        estimator = estimator.steps[-1][1]
    try:
        columns, core = _core(estimator, columns, task == "classification")
    except (KeyError, AttributeError) as error:  # an attribute of a library's other release
        raise NotCompilable(f"a part of {type(estimator).__name__} was not found: {error}") from error
    return _assembled(inputs, [then(column, core.tail) for column in columns], core)


def _order(estimator: Any, inputs: Mapping[str, str]) -> Mapping[str, str]:
    """The inputs as the first step counts them: a ColumnTransformer takes those that it was fitted on, by name."""
    first = estimator
    while type(first).__name__ == "Pipeline":
        first = first.steps[0][1]
    names = getattr(first, "feature_names_in_", None) if type(first).__name__ == "ColumnTransformer" else None
    if names is None or not all(isinstance(name, str) for name in names) or set(names) - set(inputs):
        return inputs
    return {name: inputs[name] for name in names}


def _core(estimator: Any, columns: list[Made], classifies: bool) -> tuple[list[Made], Core]:
    kind = type(estimator)
    package, name = kind.__module__.partition(".")[0], kind.__name__
    if package == "lightgbm" and name in ("LGBMClassifier", "LGBMRegressor", "Booster"):
        if name == "LGBMClassifier" and not classifies:
            raise NotCompilable(
                "there is no plan for the labels of an LGBMClassifier", hint="its probabilities have one"
            )
        return columns, compile_lightgbm(estimator if name == "Booster" else estimator.booster_, name)
    if package == "xgboost" and name in ("XGBClassifier", "XGBRegressor", "Booster"):
        missing = getattr(estimator, "missing", np.nan)
        if not np.isnan(missing):
            raise NotCompilable(f"there is no plan for XGBoost with missing={missing!r}")
        return columns, compile_xgboost(estimator if name == "Booster" else estimator.get_booster(), name)
    if classifies and len(getattr(estimator, "classes_", ())) < 2:
        raise NotCompilable(f"{name} tells no probability of two classes")
    if hasattr(estimator, "classes_") and not classifies:
        raise NotCompilable(f"there is no plan for the labels of a {name}", hint="its probabilities have one")
    found = compile_sklearn(estimator, columns, classifies)
    if found is None:
        raise NotCompilable(f"there is no plan for {name}")
    return found


def _assembled(inputs: Mapping[str, str], columns: list[Made], core: Core) -> Plan:
    if core.weights is not None and core.weights.shape != (len(core.base), len(columns)):
        raise NotCompilable(f"the estimator weighs {core.weights.shape[1]} columns, and {len(columns)} were found")
    if core.weights is not None and len(core.base) == 1:
        columns, core = _merged(columns, core)
    uses = Counter(column.source for column in columns if isinstance(column, Coded))
    codes, lists = _codes(inputs, columns, uses)
    plain = all(uses[each.source] == 1 if isinstance(each, Coded) else not _operations(each) for each in columns)
    positions = {name: index for index, name in enumerate(inputs)}
    source = np.array([positions[each.source] for each in columns], dtype=np.int64)
    raw = plain and core.weights is None
    width = len(inputs) if raw else len(columns)
    arrays: dict[str, npt.NDArray[Any]] = {"base": np.ascontiguousarray(core.base, dtype=np.float64)}
    sizes = {"inputs": len(inputs), "width": width, "prepared_is_raw": int(raw), "outputs": len(core.base)}
    sizes |= {"single_precision": int(core.single_precision)}
    expected: float | None = None
    depth = 0
    if core.weights is not None:
        arrays["weights"] = np.ascontiguousarray(core.weights, dtype=np.float64)
        sizes |= {"vector_leaves": 0, "trees": 0, "plain": 0, "bits": 0}
    else:
        _require_columns(core, len(columns))
        trees = [replace(tree, feature=source[tree.feature]) for tree in core.trees] if raw else core.trees
        forest = build(trees, width)
        depth, sizes, arrays = forest.depth, sizes | dict(forest.sizes), arrays | dict(forest.arrays)
        if forest.expected is not None and len(core.base) == 1:
            divisor = core.link_argument if core.link == "mean" else 1.0
            expected = (float(core.base[0]) + forest.expected) / divisor
    if not raw:
        arrays |= _program(columns, uses, lists, source)
    unit, unexplained = core.unit, core.unexplained
    if unit and core.weights is None and expected is None:
        unexplained = "the library kept no counts of the training rows that reached each node"
    elif unit and core.weights is not None:
        unexplained = "no training rows were given when the plan was made, against whose mean a contribution is told"
    described = Described(
        inputs=dict(inputs),
        codes=codes,
        sizes=sizes,
        link=core.link,
        link_argument=core.link_argument,
        numpy_link=core.numpy_link,
        tolerance=core.tolerance,
        unit=unit,
        unexplained=unexplained,
        expected=expected,
        depth=depth,
        about=core.about,
    )
    return Plan(described, arrays)


def _require_columns(core: Core, count: int) -> None:
    most = max((int(tree.feature.max()) for tree in core.trees if len(tree.feature)), default=-1)
    if most >= count:
        raise NotCompilable(f"the estimator splits on column {most}, and {count} columns were found")


def _operations(column: Made) -> Sequence[Any]:
    return column.operations if isinstance(column, Number) else ()


def _merged(columns: list[Made], core: Core) -> tuple[list[Made], Core]:
    """All columns that were made of one string input as one, of what they add to the sum."""
    assert core.weights is not None
    merged: dict[str, Coded] = {}
    kept: list[tuple[Made, float]] = []
    for column, weight in zip(columns, core.weights[0].tolist(), strict=True):
        if not isinstance(column, Coded):
            kept.append((column, weight))
            continue
        before = merged.get(column.source)
        merged[column.source] = Coded(column.source, _added(before.codes if before else None, column.codes, weight))
    every = [*kept, *((column, 1.0) for column in merged.values())]
    return [column for column, _ in every], replace(core, weights=np.array([[weight for _, weight in every]]))


def _added(before: Codes | None, codes: Codes, weight: float) -> Codes:
    def plus(sum: float | str, value: float | str) -> float | str:
        return REFUSED if isinstance(sum, str) or isinstance(value, str) else sum + value * weight

    def of(text: str) -> float | str:
        return 0.0 if before is None else before.known.get(text, before.other)

    texts = dict.fromkeys([*(before.known if before else ()), *codes.known])
    return Codes(
        {text: plus(of(text), codes.known.get(text, codes.other)) for text in texts},
        plus(before.null if before else 0.0, codes.null),
        plus(before.other if before else 0.0, codes.other),
    )


def _codes(
    inputs: Mapping[str, str], columns: Sequence[Made], uses: Counter[str]
) -> tuple[dict[str, Codes], dict[str, list[str]]]:
    """What becomes of each string input: its column's number, or an index where several columns need it; and then the
    texts in the order of their indices.
    """
    codes: dict[str, Codes] = {}
    lists: dict[str, list[str]] = {}
    for name in (name for name, kind in inputs.items() if kind == "string"):
        mine = [column.codes for column in columns if isinstance(column, Coded) and column.source == name]
        if uses[name] == 1:
            codes[name] = mine[0]
        elif mine:
            texts = list(dict.fromkeys(text for each in mine for text in each.known))
            lists[name] = texts
            index = {text: float(at) for at, text in enumerate(texts)}
            for text in texts:
                if any(each.known.get(text, each.other) == REFUSED for each in mine):
                    index[text] = REFUSED  # type: ignore[assignment]
            null = REFUSED if any(each.null == REFUSED for each in mine) else float(len(texts))
            other = REFUSED if any(each.other == REFUSED for each in mine) else float(len(texts) + 1)
            codes[name] = Codes(index, null, other)
        else:
            codes[name] = Codes({}, 0.0, 0.0)
    return codes, lists


def _program(
    columns: Sequence[Made], uses: Counter[str], lists: Mapping[str, list[str]], source: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[Any]]:
    starts, names, arguments = [0], [], []
    tables: list[float] = []
    for column in columns:
        operations = list(_operations(column))
        if isinstance(column, Coded) and uses[column.source] > 1:
            known = column.codes
            values = [known.known.get(text, known.other) for text in lists[column.source]]
            numbers = [np.nan if isinstance(each, str) else each for each in (*values, known.null, known.other)]
            operations = [("table", len(tables))]
            tables += [float(len(numbers)), *numbers]
        for name, argument in operations:
            names.append(OPERATIONS.index(name))
            if isinstance(argument, Lookup):
                arguments.append(float(len(tables)))
                tables += lookup_array(argument).tolist()
            else:
                arguments.append(float(argument))
        starts.append(len(names))
    return {
        "column_source": source.astype("i4"),
        "column_ops": np.array(starts, dtype="i4"),
        "op_code": np.array(names, dtype="i4"),
        "op_argument": np.array(arguments, dtype="f8"),
        "tables": np.array(tables, dtype="f8"),
    }
