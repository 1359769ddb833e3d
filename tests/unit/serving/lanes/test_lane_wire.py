from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from millpond.serving.lanes import wire
from millpond.serving.lanes.wire import Frame, Reader, WireError, decode, encode


def travelled(frame: Frame) -> Frame:
    (found,) = Reader().feed(encode(frame))
    return found


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ([1.5, -0.0, float("inf")] * 4, "f"),
        ([1, 2**62, -3] * 4, "O"),
        ([1, 2.5, 3] * 4, "O"),
        ([1.0, None, 3.0] * 4, "O"),
        ([0.1, -0.0, float("inf")], "O"),
        ([1, 2.5, 3], "O"),
        ([1.0, None, 3.0], "O"),
        ([None, 1, 2**60 + 1], "O"),
        (["a", None, "\ud800 é"], "O"),
        ([True, False, None], "O"),
        ([None, None, None], "O"),
        (np.array([1.5, float("nan"), 3]), "f"),
        (np.array([1, 2, 3]), "i"),
        (np.array([True, False, True]), "b"),
        (np.array([1, 2, 3], dtype=np.float32), "f"),
        (np.array(["a", "b", "c"]), "O"),
        (np.arange(12.0).reshape(3, 4), "f"),
        (np.arange(12.0).reshape(3, 4)[:, 1], "f"),
    ],
)
def test_columns_travel_as_they_are(column: Any, kind: str) -> None:
    rows = len(column)
    flags, floats = [True, False, True] * (rows // 3), [0.5] * rows
    told = Frame("call", 7, rows, ("a", "flag", "b"), (column, np.array(flags), np.array(floats)))
    found = travelled(told)
    assert (found.kind, found.number, found.rows, found.names) == ("call", 7, rows, ("a", "flag", "b"))
    assert found.columns[1].tolist() == flags
    assert found.columns[2].tolist() == floats
    if kind == "O":
        assert found.columns[0] == (column if isinstance(column, list) else column.tolist())
    else:
        assert found.columns[0].dtype.kind == kind
        assert found.columns[0].flags.writeable
        np.testing.assert_array_equal(found.columns[0], np.asarray(column))


def test_a_matrix_travels_as_one() -> None:
    matrix = np.array([[1.0, float("nan")], [3.0, 4.0], [5.0, -0.0]])
    found = travelled(Frame("call", 1, 3, ("a", "b"), matrix=matrix))
    np.testing.assert_array_equal(found.matrix, matrix)
    assert travelled(Frame("answer", 2, 0, ("a",), ([],), meta={"seen": [1, None]})).meta == {"seen": [1, None]}


def test_frames_are_cut_wherever_they_are_split() -> None:
    frames = [Frame("call", number, 2, ("a", "b"), (["x", None], [1.0, number])) for number in range(20)]
    data = b"".join(map(encode, frames))
    chance = random.Random(4)
    reader, found, start = Reader(), [], 0
    while start < len(data):
        stop = start + chance.choice((1, 7, 40, 400))
        found += reader.feed(data[start:stop])
        start = stop
    assert [each.number for each in found] == list(range(20))
    assert found[3].columns[0] == ["x", None]


@pytest.mark.parametrize(
    "data",
    [b"hello, I am the model's output", b"MPL1" + b"\xff" * 40, encode(Frame("call"))[:-2] + b"!!"],
)
def test_what_is_no_frame_is_told(data: bytes) -> None:
    with pytest.raises(WireError):
        Reader().feed(data)


@pytest.mark.parametrize(
    "head",
    [
        b"[]",
        b'{"kind": "answer"}',
        b'{"kind": "answer", "number": 1, "rows": 3, "names": ["a"], "columns": [["json", [1]]]}',
        b'{"kind": "answer", "number": 1, "rows": 3, "names": ["a"], "columns": []}',
        b'{"kind": "answer", "number": 1, "rows": 3, "names": ["a"], "columns": [["d", 0]]}',
        b'{"kind": "answer", "number": 1, "rows": 3, "names": ["a"], "columns": [["z", 0]]}',
        b'{"kind": "answer", "number": 1, "rows": -3, "names": ["a"], "matrix": true}',
        b'{"kind": "answer", "number": 1, "rows": 3, "names": ["a"], "columns": [["json", 5]]}',
    ],
)
def test_a_head_that_lies_is_told(head: bytes) -> None:
    with pytest.raises(WireError):
        decode(head, bytearray(8))


def test_errors_are_described_with_their_place() -> None:
    try:
        raise ValueError("no")
    except ValueError as error:
        told = wire.described(error)
    assert told["type"] == "ValueError"
    assert told["what"] == "ValueError: no"
    assert "test_lane_wire.py:" in told["where"]


def test_a_kind_that_cannot_travel_is_refused() -> None:
    with pytest.raises(TypeError):
        encode(Frame("call", 1, 1, ("a",), ([object()],)))
