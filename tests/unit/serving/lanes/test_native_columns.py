"""Frames for models, and what models give, in every form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from millpond.serving.lanes import native
from millpond.serving.lanes.host import frame_of
from millpond.serving.lanes.native import Version, as_matrix, outputs_of, trained_frame, typed_frame, wire
from millpond.serving.rows import Rows
from millpond.training.frame import to_frame

INPUTS = {"flag": "bool", "number": "float64", "text": "string", "whole": "int64"}
SCHEMA = pa.schema({"number": pa.float64(), "whole": pa.int64(), "flag": pa.bool_(), "text": pa.string()})
FULL = {"number": [1.5, -2.0], "whole": [3, 2**60], "flag": [True, False], "text": ["a", "é"]}
HOLES = {"number": [None, float("nan")], "whole": [3, None], "flag": [None, False], "text": [None, ""]}
EMPTY: dict[str, list[Any]] = {"number": [None], "whole": [None], "flag": [None], "text": [None]}


def called(rows: Rows) -> Any:
    (frame,) = wire.Reader().feed(wire.encode(frame_of("call", 1, rows)))
    return frame


@pytest.mark.parametrize("columns", [FULL, HOLES, EMPTY])
def test_the_frame_is_the_one_that_training_makes(columns: Any) -> None:
    rows = Rows.of(columns)
    expected = to_frame(rows.to_arrow(SCHEMA), INPUTS)
    for given in (rows, Rows.from_arrow(rows.to_arrow(SCHEMA))):
        found = trained_frame(called(given), INPUTS)
        pd.testing.assert_frame_equal(found, expected, check_exact=True)
        assert found["text"].tolist() == expected["text"].tolist()
        assert isinstance(found.index, pd.RangeIndex)


def test_a_matrix_becomes_the_frame_that_training_makes() -> None:
    matrix = np.array([[1.0, float("nan")], [2.0, 3.0]])
    expected = to_frame(pa.table({"b": [None, 3.0], "a": [1.0, 2.0]}), {"a": "float64", "b": "float64"})
    for names, values in ((("a", "b"), matrix), (("b", "a"), np.ascontiguousarray(matrix[:, ::-1]))):
        found = trained_frame(called(Rows(2, names, matrix=values)), {"a": "float64", "b": "float64"})
        pd.testing.assert_frame_equal(found, expected, check_exact=True)


def test_types_of_a_signature_are_kept() -> None:
    types = {"flag": "boolean", "number": "float", "text": "string", "whole": "integer"}
    frame = typed_frame(called(Rows.of({**FULL, "whole": [3, 4]})), INPUTS, types)
    assert [str(each) for each in frame.dtypes] == ["bool", "float32", "object", "int32"]
    frame = typed_frame(called(Rows.of(FULL)), INPUTS, {})
    assert [str(each) for each in frame.dtypes] == ["bool", "float64", "object", "int64"]
    assert frame["whole"].tolist() == [3, 2**60]
    frame = typed_frame(called(Rows.of(HOLES)), INPUTS, types)
    assert [str(each) for each in frame.dtypes] == ["object", "float32", "object", "float64"]
    assert frame["flag"].tolist() == [None, False]


def test_a_matrix_has_the_type_of_the_signature() -> None:
    inputs = {"a": "float64", "b": "float64"}
    matrix = as_matrix(called(Rows.of({"b": [2.0, None], "a": [1, 3]})), inputs, "float32")
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, [[1, 2], [3, float("nan")]])
    assert as_matrix(called(Rows(1, ("a", "b"), matrix=np.ones((1, 2)))), inputs, None).dtype == np.float64


def version(*outputs: tuple[str, str, int], task: str = "other") -> Version:
    return Version(task, {}, outputs, False)


@pytest.mark.parametrize(
    "given",
    [
        [1, 2],
        np.array([1.0, 2.0], dtype=np.float32),
        np.array([[1.0], [2.0]]),
        np.array([[0.5, 1.0], [0.5, 2.0]]),
        pd.Series([1.0, 2.0]),
        pd.DataFrame({"p": [1.0, 2.0]}),
    ],
)
def test_a_trained_model_gives_one_number_a_row(given: Any) -> None:
    (column,) = outputs_of(given, version(("output", "float64", 0), task="regression"), 2)
    assert column.dtype == np.float64
    assert column.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    "given",
    [
        pd.DataFrame({"other": [0, 0], "label": ["a", None], "score": [1.0, 2.0]}),
        pd.DataFrame({"first": ["a", None], "second": [1.0, 2.0]}),
        {"label": ["a", None], "score": np.array([1.0, 2.0])},
        {"label": pd.Series(["a", None]), "score": pd.Series([1, 2])},
        [{"label": "a", "score": 1.0}, {"label": None, "score": 2.0}],
        np.array([["a", 1.0], [None, 2.0]], dtype=object),
    ],
)
def test_named_outputs_in_every_form(given: Any) -> None:
    label, score = outputs_of(given, version(("label", "string", 0), ("score", "float64", 0)), 2)
    assert label == ["a", None]
    assert score.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    "given",
    [
        np.array([[1, 2], [3, 4]]),
        [[1.0, 2.0], [3.0, 4.0]],
        {"output": np.array([[1.0, 2.0], [3.0, 4.0]])},
        pd.DataFrame({"output": [[1, 2], [3, 4]]}),
    ],
)
def test_vectors(given: Any) -> None:
    (column,) = outputs_of(given, version(("output", "float64", 2)), 2)
    assert column.dtype == np.float64
    assert column.tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_types_and_nulls_of_outputs() -> None:
    one = ("output", "int64", 0)
    assert outputs_of([1, 2], version(one), 2)[0].dtype == np.int64
    assert outputs_of([1, None], version(one), 2)[0] == [1, None]
    assert outputs_of([1.0, float("nan")], version(one), 2)[0] == [1, None]
    assert outputs_of([True, False], version(("output", "bool", 0)), 2)[0].dtype == np.bool_
    assert outputs_of(np.array([True, None]), version(("output", "bool", 0)), 2)[0] == [True, None]
    assert outputs_of([1, 2], version(("output", "string", 0)), 2)[0] == ["1", "2"]
    assert outputs_of(3.0, version(("output", "float64", 0)), 1)[0].tolist() == [3.0]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (np.ones(3), "shape (3,) for 2 rows"),
        (np.ones((2, 2)), "shape (2, 2) for 2 rows"),
        ({"a": [1, 2], "b": [1, 2]}, "its outputs are ['output']"),
        (pd.DataFrame({"a": [1, 2], "b": [1, 2]}), "its outputs are ['output']"),
    ],
)
def test_outputs_that_do_not_fit_are_told(given: Any, told: str) -> None:
    with pytest.raises(ValueError, match=".*") as caught:
        outputs_of(given, version(("output", "float64", 0)), 2)
    assert told in str(caught.value)


def test_the_program_stands_alone() -> None:
    assert native.wire.__name__ == "millpond_lane_wire"
