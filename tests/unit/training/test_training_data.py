from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from millpond.core.errors import TrainingError
from millpond.training.data import TrainingData, instants, labels, ordered, require_usable

AT = pa.array([datetime(2024, 1, day, tzinfo=UTC) for day in (2, 1, 1)], pa.timestamp("us", "UTC"))


def data(**changes):
    rows = pa.table({"id": [1, 3, 2], "at": AT, "x": [0.1, 0.2, 0.3], "__label": [True, False, True]})
    return TrainingData(**{"rows": rows, "keys": ("id",), "inputs": {"x": "float64"}, "at": "at", **changes})


def test_rows_are_ordered_by_instant_then_key():
    assert ordered(data())["id"].to_pylist() == [2, 3, 1]
    assert ordered(data(at=None))["id"].to_pylist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"inputs": {"y": "float64"}}, "no column 'y'", "x"),
        ({"label_known": "knwon"}, "no column 'knwon'", "names"),
        ({"inputs": {}}, "no model inputs", "inputs"),
        ({"inputs": {"__label": "bool"}}, "label '__label' is among the inputs", "remove"),
        ({"inputs": {"x": "instant"}}, "input 'x' is of type instant", "float64"),
        ({"rows": data().rows.slice(0, 0), "null_labels": 7}, "no rows .7 were left out", "where"),
    ],
)
def test_an_unusable_training_set_is_refused(changes, message, hint):
    with pytest.raises(TrainingError, match=message) as caught:
        require_usable(data(**changes), 'Model "late"')
    assert hint in caught.value.hint
    assert caught.value.where == 'Model "late"'


def test_instants_are_microseconds_and_naive_ones_are_refused():
    table = pa.table(
        {
            "at": pa.array([datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC), None], pa.timestamp("us", "UTC")),
            "ns": pa.array([1_000_005_999, None], pa.timestamp("ns", "Europe/Berlin")),
            "naive": pa.array([0, 1], pa.timestamp("us")),
        }
    )
    for column in ("at", "ns"):
        values, null = instants(table, column, "m")
        assert values[0] == 1_000_005
        assert null.tolist() == [False, True]
    with pytest.raises(TrainingError, match="not instants"):
        instants(table, "naive", "m")


def as_labels(values, task="classification"):
    return labels(pa.table({"y": values}), "y", task, "m")


@pytest.mark.parametrize(
    ("values", "numbers", "names"),
    [
        (pa.array([True, None, False]), [1, np.nan, 0], ("no", "yes")),
        (pa.array([0.0, None, 1.0]), [0, np.nan, 1], ("0", "1")),
        (pa.array([2, 5, 2]), [0, 1, 0], ("2", "5")),
        (pa.array([2.0, float("nan"), 5.0]), [0, np.nan, 1], ("2", "5")),
        (pa.array(["b", "a", None]), [1, 0, np.nan], ("a", "b")),
    ],
)
def test_the_greater_of_two_values_is_the_positive_class(values, numbers, names):
    found = as_labels(values)
    np.testing.assert_array_equal(found.values, numbers)
    assert found.names == names


@pytest.mark.parametrize(
    ("values", "count"), [(pa.array([1, 2, 3]), 3), (pa.array([1, 1, None]), 1), (pa.nulls(3, pa.string()), 0)]
)
def test_classification_needs_two_values(values, count):
    with pytest.raises(TrainingError, match=f"label has {count} different values") as caught:
        as_labels(values)
    assert "exactly two" in caught.value.hint


def test_regression_labels_are_finite_numbers():
    np.testing.assert_array_equal(as_labels(pa.array([1, None]), "regression").values, [1.0, np.nan])
    with pytest.raises(TrainingError, match="regression needs a number"):
        as_labels(pa.array(["1"]), "regression")
    with pytest.raises(TrainingError, match="infinite in 1 rows"):
        as_labels(pa.array([1.0, float("inf")]), "regression")
