"""Preprocessing in front of an estimator: plain scikit-learn parts that a serving plan can express as tables and sums.

Both kinds learn the categories of a string input from the training part: its most frequent values, up to a limit. A
null, a rarer value and one never seen are all "none of these". So it does not matter in which of its forms (None, NaN)
a null reaches the pipeline: scikit-learn's encoders take None for a value like any other, and only NaN for missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

#: Categories kept of a string input: of a tree's ordinal code, and of a one-hot code (a column each).
TREE_CATEGORIES = 255
ONE_HOT_CATEGORIES = 50


def columns_of(inputs: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Names of the string inputs, and of the others."""
    strings = [name for name, kind in inputs.items() if kind == "string"]
    return strings, [name for name in inputs if name not in strings]


def for_trees(frame: pd.DataFrame, inputs: Mapping[str, str]) -> Any:
    """Ordinal codes of the string inputs, then numbers as they are (NaN for null): for estimators that split.

    Codes are 0, 1, ... in the order of the category's text; NaN for what is none of them.

    Args:
        frame: Raw inputs of the training part.
        inputs: Name -> type.

    Returns:
        An unfitted `ColumnTransformer` giving a float64 array with the string inputs first.
    """
    import numpy as np
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import OrdinalEncoder

    strings, numbers = columns_of(inputs)
    encoder = OrdinalEncoder(
        categories=[_categories(frame[name], TREE_CATEGORIES) for name in strings],
        handle_unknown="use_encoded_value",
        unknown_value=np.nan,
        encoded_missing_value=np.nan,
    )
    steps = [("strings", encoder, strings)] if strings else []
    return ColumnTransformer([*steps, ("numbers", "passthrough", numbers)], sparse_threshold=0)


def for_linear(frame: pd.DataFrame, inputs: Mapping[str, str], *, sparse: bool) -> Any:
    """Numbers with the median for null, a flag for what was null, and scaled to mean 0 and deviation 1; one column a
    category of the string inputs, all 0 for what is none of them: for estimators that weigh, or measure distance.

    Args:
        frame: Raw inputs of the training part.
        inputs: Name -> type.
        sparse: Whether the result is a sparse matrix where there are string inputs.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    strings, numbers = columns_of(inputs)
    scaled = Pipeline(
        [
            ("impute", SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)),
            ("scale", StandardScaler()),
        ]
    )
    one_hot = OneHotEncoder(
        categories=[_categories(frame[name], ONE_HOT_CATEGORIES) for name in strings], handle_unknown="ignore"
    )
    steps = [("numbers", scaled, numbers)] if numbers else []
    steps += [("strings", one_hot, strings)] if strings else []
    return ColumnTransformer(steps, sparse_threshold=1.0 if sparse else 0)


def _categories(column: pd.Series[Any], limit: int) -> Any:
    """The most frequent values (the lesser text of equals), sorted; the empty text where all are null."""
    import numpy as np

    counts = column.value_counts(dropna=True)
    ranked = sorted((-int(count), str(value)) for value, count in counts.items())
    return np.array(sorted(value for _, value in ranked[:limit]) or [""], dtype=object)
