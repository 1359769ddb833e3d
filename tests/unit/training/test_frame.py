from __future__ import annotations

import decimal
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from millpond.core.errors import DataError
from millpond.training.frame import to_frame

INPUTS = {"flag": "bool", "name": "string", "amount": "float64", "count": "int64"}


def rows() -> pa.Table:
    return pa.table(
        {
            "count": pa.array([1, None, -3], pa.int64()),
            "extra": pa.array([0, 0, 0]),
            "amount": pa.array([1.5, float("nan"), None]),
            "name": pa.array(["a", None, ""]),
            "flag": pa.array([True, None, False]),
        }
    )


def test_numbers_and_booleans_become_floats_and_strings_objects_in_declared_order():
    frame = to_frame(rows(), INPUTS)
    assert list(frame.columns) == ["flag", "name", "amount", "count"]
    assert [str(kind) for kind in frame.dtypes] == ["float64", "object", "float64", "float64"]
    np.testing.assert_array_equal(frame["flag"], [1.0, np.nan, 0.0])
    np.testing.assert_array_equal(frame["amount"], [1.5, np.nan, np.nan])
    np.testing.assert_array_equal(frame["count"], [1.0, np.nan, -3.0])
    assert frame["name"].tolist() == ["a", None, ""]
    assert frame["name"].iloc[1] is None
    assert frame.index.tolist() == [0, 1, 2]


def test_zero_rows_keep_columns_and_types():
    frame = to_frame(rows().slice(0, 0), INPUTS)
    assert frame.shape == (0, 4)
    assert [str(kind) for kind in frame.dtypes] == ["float64", "object", "float64", "float64"]


def test_several_chunks_dictionaries_decimals_and_all_null_columns():
    one = pa.table(
        {
            "name": pa.array(["a", None, "b"]).dictionary_encode(),
            "amount": pa.array([decimal.Decimal("1.25"), None, decimal.Decimal("-2.00")]),
            "nothing": pa.nulls(3),
        }
    )
    frame = to_frame(pa.concat_tables([one, one]), {"name": "string", "amount": "float64", "nothing": "string"})
    assert frame["name"].tolist() == ["a", None, "b"] * 2
    np.testing.assert_array_equal(frame["amount"], [1.25, np.nan, -2.0] * 2)
    assert frame["nothing"].tolist() == [None] * 6
    assert np.isnan(to_frame(one, {"nothing": "int64"})["nothing"]).all()


def test_a_missing_column_is_named_with_the_close_match():
    with pytest.raises(DataError, match="no column 'amuont'") as caught:
        to_frame(rows(), {"amuont": "float64"})
    assert "'amount'" in caught.value.hint


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array(["1", "2"]), "float64"),
        (pa.array([1, 2]), "string"),
        (pa.array([datetime(2024, 1, 1, tzinfo=UTC)] * 2), "float64"),
        (pa.array([1, 2]), "date"),
    ],
)
def test_a_column_of_another_kind_is_refused(column, kind):
    with pytest.raises(DataError, match=f"declared as {kind}") as caught:
        to_frame(pa.table({"x": column}), {"x": kind})
    assert "request_features" in caught.value.hint
