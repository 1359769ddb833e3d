import numpy as np
import pyarrow as pa

from millpond.serving.rows import Rows, concatenate


def test_rows_go_to_arrow_and_back() -> None:
    table = pa.table(
        {
            "number": pa.array([1.5, None]),
            "whole": pa.array([1, None]),
            "text": pa.array(["x", None]),
            "flag": pa.array([True, None]),
            "moment": pa.array([1, None], pa.timestamp("us", "UTC")),
        }
    )
    rows = Rows.from_arrow(table)
    assert rows.values(1) == dict.fromkeys(table.column_names)
    assert rows.values(0) == {"number": 1.5, "whole": 1, "text": "x", "flag": True, "moment": 1}
    assert rows.to_arrow(table.schema).equals(table)


def test_a_column_that_is_not_there_is_null() -> None:
    rows = Rows.of({"a": [1.0]})
    assert rows.to_arrow(pa.schema({"b": pa.string(), "a": pa.float64()})).to_pylist() == [{"b": None, "a": 1.0}]


def test_matrices_are_put_together_and_cut_as_one() -> None:
    one, two = (Rows(2, ("a", "b"), matrix=np.arange(4.0).reshape(2, 2) + shift) for shift in (0, 10))
    both = concatenate([one, two])
    assert both.count == 4
    assert both.matrix is not None
    assert both.slice(1, 3).columns["b"].tolist() == [3.0, 11.0]


def test_columns_of_both_kinds_are_put_together() -> None:
    both = concatenate([Rows.of({"a": [1, None]}), Rows.of({"a": np.array([3])})])
    assert both.columns["a"] == [1, None, 3]
    assert concatenate([Rows.of({"a": np.array([1])}), Rows.of({"a": np.array([2])})]).columns["a"].tolist() == [1, 2]
