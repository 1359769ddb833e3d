"""Fitted scikit-learn transformers as columns.

Transformers that treat each column by itself are taken apart by their fitted attributes. Encoders are not imitated but
asked: what they make of every category, of null and of something else is tried, and becomes a table.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from millpond.serving.plans.plan import REFUSED, Codes
from millpond.serving.plans.symbols import Coded, Lookup, Made, NotCompilable, Operation, Text, mapped, then

#: A text that is no category.
_UNSEEN = "\x00no such category"


def transformed(transformer: Any, columns: Sequence[Made]) -> list[Made]:
    """The columns that a fitted transformer makes of these.

    Raises:
        NotCompilable: It is of a class, or with a parameter, that is not known here.
    """
    if transformer is None or (isinstance(transformer, str) and transformer == "passthrough"):
        return list(columns)
    kind = type(transformer)
    found = _KINDS.get(kind.__name__) if kind.__module__.startswith("sklearn.") else None
    if found is None:
        raise NotCompilable(f"there is no plan for {kind.__name__}, a step of the pipeline")
    return found(transformer, columns)


def _pipeline(transformer: Any, columns: Sequence[Made]) -> list[Made]:
    made = list(columns)
    for _, step in transformer.steps:
        made = transformed(step, made)
    return made


def _column_transformer(transformer: Any, columns: Sequence[Made]) -> list[Made]:
    if transformer.transformer_weights:
        raise NotCompilable("there is no plan for a ColumnTransformer with transformer_weights")
    made: list[Made] = []
    for name, step, _ in transformer.transformers_:
        indices = transformer._transformer_to_input_indices[name]
        if not (isinstance(step, str) and step == "drop") and len(indices):
            made += transformed(step, [columns[index] for index in indices])
    return made


def _function(transformer: Any, columns: Sequence[Made]) -> list[Made]:
    # HistGradientBoosting has one of its own, which only checks.
    checks = getattr(getattr(transformer.func, "func", None), "__name__", "") == "check_array"
    if transformer.func is not None and not checks:
        raise NotCompilable("there is no plan for a FunctionTransformer with a function")
    return list(columns)


def _imputer(imputer: Any, columns: Sequence[Made]) -> list[Made]:
    texts = [isinstance(column, Text) for column in columns]
    if any(texts):
        if not all(texts) or imputer.add_indicator:
            raise NotCompilable("there is no plan for a SimpleImputer of strings and numbers, or with add_indicator")
        return _text_imputer(imputer, columns)
    if not _is_nan(imputer.missing_values):
        raise NotCompilable(f"there is no plan for a SimpleImputer of missing_values={imputer.missing_values!r}")
    statistics = np.asarray(imputer.statistics_, dtype=np.float64)
    kept = ~np.isnan(statistics) | imputer.keep_empty_features
    made = [
        then(column, [("finite", 0.0), ("fill", float(value))])
        for column, value, keep in zip(columns, statistics, kept, strict=True)
        if keep
    ]
    if imputer.add_indicator:
        flags = imputer.indicator_.features_
        made += [then(columns[index], [("finite", 0.0), ("is_nan", 0.0)]) for index in flags]
    return made


def _text_imputer(imputer: Any, columns: Sequence[Made]) -> list[Made]:
    made: list[Made] = []
    for index, column in enumerate(columns):
        assert isinstance(column, Text)
        if column.null is not None or column.refuses_null:
            made.append(column)
            continue
        samples = [str(value) for value in imputer.statistics_]
        found = _ask(imputer, [[None if at == index else text for at, text in enumerate(samples)]], columns)
        value = None if found is None else found[0][index]
        if found is not None and value is not None and not isinstance(value, str):
            raise NotCompilable(f"a SimpleImputer makes {value!r} of null in the string input {column.source!r}")
        made.append(Text(column.source, value, found is None))
    return made


def _standard(scaler: Any, columns: Sequence[Made]) -> list[Made]:
    centers = scaler.mean_ if scaler.with_mean else None
    return _scaled(columns, ("subtract", centers), ("divide", scaler.scale_ if scaler.with_std else None))


def _robust(scaler: Any, columns: Sequence[Made]) -> list[Made]:
    centers = scaler.center_ if scaler.with_centering else None
    return _scaled(columns, ("subtract", centers), ("divide", scaler.scale_ if scaler.with_scaling else None))


def _min_max(scaler: Any, columns: Sequence[Made]) -> list[Made]:
    made = _scaled(columns, ("multiply", scaler.scale_), ("add", scaler.min_))
    return _clipped(scaler, made, *scaler.feature_range)


def _max_abs(scaler: Any, columns: Sequence[Made]) -> list[Made]:
    return _clipped(scaler, _scaled(columns, ("divide", scaler.scale_)), -1.0, 1.0)


def _clipped(scaler: Any, columns: Sequence[Made], low: float, high: float) -> list[Made]:
    if not getattr(scaler, "clip", False):
        return list(columns)
    return [then(column, [("low", float(low)), ("high", float(high))]) for column in columns]


def _scaled(columns: Sequence[Made], *parts: tuple[str, Any]) -> list[Made]:
    def operations(index: int) -> list[Operation]:
        return [("finite", 0.0), *((name, float(values[index])) for name, values in parts if values is not None)]

    return [then(column, operations(index)) for index, column in enumerate(columns)]


def _encoder(encoder: Any, columns: Sequence[Made]) -> list[Made]:
    widths = list(getattr(encoder, "_n_features_outs", [1] * len(columns)))
    made: list[Made] = []
    for index, column in enumerate(columns):
        start = sum(widths[:index])

        def ask(values: list[Any], index: int = index, start: int = start) -> Any:
            others = [_categories(encoder, each)[0] for each in range(len(columns))]
            rows = [[value if at == index else other for at, other in enumerate(others)] for value in values]
            found = _ask(encoder, rows, columns)
            return None if found is None else found[:, start : start + widths[index]].astype(np.float64)

        made += _encoded(column, _categories(encoder, index), ask, widths[index])
    return made


def _categories(encoder: Any, index: int) -> list[Any]:
    """Categories of a column; a valid value at least."""
    found = list(encoder.categories_[index])
    infrequent = getattr(encoder, "infrequent_categories_", None)
    rare = [] if infrequent is None or infrequent[index] is None else list(infrequent[index])
    return found + [each for each in rare if not any(each == known for known in found)]


def _encoded(column: Made, categories: Sequence[Any], ask: Callable[[list[Any]], Any], width: int) -> list[Made]:
    def one(value: Any) -> list[float | str]:
        found = ask([value])
        return [REFUSED] * width if found is None else found[0].tolist()

    if isinstance(column, Text):
        texts = [each for each in categories if isinstance(each, str)]
        table = dict(zip(texts, ask(texts).tolist(), strict=True)) if texts else {}
        other = one(_UNSEEN)
        null = [REFUSED] * width if column.refuses_null else one(None)
        if column.null is not None:
            null = table.get(column.null, other)
        return [
            Coded(column.source, Codes({text: row[k] for text, row in table.items()}, null[k], other[k]))
            for k in range(width)
        ]
    keys = sorted(
        float(each) for each in categories if isinstance(each, (int, float, np.number)) and not np.isnan(each)
    )
    rows = ask(keys).tolist() if keys else []
    missing, other = one(float("nan")), one((keys[-1] if keys else 0.0) + 0.5)
    made: list[Made] = []
    for k in range(width):
        numbers = dict(zip(keys, (row[k] for row in rows), strict=True))
        if isinstance(column, Coded):
            made.append(Coded(column.source, mapped(column.codes, _through(numbers, missing[k], other[k]))))
        else:
            values = tuple(float(row[k]) for row in rows)
            lookup = Lookup(tuple(keys), values, _or_infinity(missing[k]), _or_infinity(other[k]))
            made.append(then(column, [("finite", 0.0), ("lookup", lookup), ("finite", 0.0)]))
    return made


def _through(table: dict[float, Any], missing: Any, other: Any) -> Callable[[float], Any]:
    return lambda value: missing if np.isnan(value) else table.get(value, other)


def _or_infinity(value: float | str) -> float:
    return float("inf") if isinstance(value, str) else value


def _ask(transformer: Any, rows: list[list[Any]], columns: Sequence[Made]) -> Any:
    """What a transformer makes of rows, as an array; None where it refuses them."""
    import pandas as pd

    names = list(getattr(transformer, "feature_names_in_", range(len(columns))))
    frame = pd.DataFrame(
        {
            name: pd.Series([row[at] for row in rows], dtype=object if isinstance(columns[at], Text) else "float64")
            for at, name in enumerate(names)
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = transformer.transform(frame if hasattr(transformer, "feature_names_in_") else frame.to_numpy())
        except ValueError:
            return None
    return found.toarray() if hasattr(found, "toarray") else np.asarray(found)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and np.isnan(value)


_KINDS: dict[str, Callable[[Any, Sequence[Made]], list[Made]]] = {
    "Pipeline": _pipeline,
    "ColumnTransformer": _column_transformer,
    "FunctionTransformer": _function,
    "SimpleImputer": _imputer,
    "StandardScaler": _standard,
    "RobustScaler": _robust,
    "MinMaxScaler": _min_max,
    "MaxAbsScaler": _max_abs,
    "OrdinalEncoder": _encoder,
    "OneHotEncoder": _encoder,
}
