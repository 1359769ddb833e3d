"""Numbers read straight from a text against the parsers of Python and of orjson, and bodies that mislead."""

from __future__ import annotations

import json
import math
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from millpond.core.errors import RequestError
from millpond.serving.plans.kernels import LIBRARY as KERNELS
from millpond.serving.ports import InferRequest, RequestColumn, ServedModel
from millpond.serving.protocol import parse_infer
from millpond.serving.protocol.documents import load_json, parse_document
from millpond.serving.protocol.matrices import quick_matrix
from millpond.serving.protocol.numbers import FRACTIONS, NULLS, NumberReader, load_library
from millpond.serving.protocol.signature import signature_of


def halfway(value: float) -> str:
    middle = (Decimal(value) + Decimal(math.nextafter(value, math.inf))) / 2
    return format(Context(prec=19).plus(middle), "f")


LIMIT = 10_000
DIGITS = st.integers(1, 25).flatmap(lambda size: st.integers(0, 10**size - 1).map(lambda value: f"{value:0{size}}"))
WHOLE = st.one_of(st.integers(0, 2**53 - 1).map(str), st.integers(0, 10**25).map(str))
FRACTION = st.just("") | DIGITS.map(".{}".format)
EXPONENT = st.just("") | st.builds("{}{}".format, st.sampled_from(("e", "E", "e+", "E-")), DIGITS)
SMALL_EXPONENT = st.just("") | st.integers(-345, 310).map("e{}".format)
VALID = st.one_of(
    st.builds("{}{}{}{}".format, st.sampled_from(("", "-")), WHOLE, FRACTION, EXPONENT | SMALL_EXPONENT),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(1e-6, 1e6).map(repr),
)
SHORT = st.floats(-100, 100, width=16).map(repr)
#: The text of the number halfway between two floats, and its neighbours: what rounding is hardest for.
HALVES: st.SearchStrategy[str] = st.floats(1e-5, 1e15).map(halfway)
ODD = st.sampled_from(
    [
        *(
            "1.",
            ".5",
            "+1",
            "1e",
            "1e+",
            "-",
            "",
            "01",
            "-01",
            "0x1",
            "1_0",
            "1 2",
            "1,",
            "1.5.5",
            "1e5.5",
            "--1",
            "1-",
        ),
        *(
            "NaN",
            "Infinity",
            "-Infinity",
            "nan",
            "inf",
            "true",
            "false",
            "nul",
            "nulll",
            '"1"',
            "[]",
            "{}",
            "1\0",
            "/1",
        ),
    ]
)


def body(data: str) -> bytes:
    return f'{{"inputs":[{{"name":"x","data":{data},"shape":[1,2]}}]}}'.encode()


def bits(values: list[Any]) -> list[int]:
    return np.array([math.nan if value is None else value for value in values], np.float64).view(np.int64).tolist()


def numbers(text: str) -> tuple[list[int], int, int] | None:
    """The bits of what is read, how many rows there are, and the flags; the array is where it must be."""
    reader, whole = NumberReader(), body(text)
    found = reader.find(whole, LIMIT)
    if found is None:
        return None
    start, end, count, rows, flags = found
    assert whole[start:end].decode().strip() == text.strip()
    return reader.matrix((1, count))[0].view(np.int64).tolist(), rows, flags


@given(
    st.lists(st.one_of(VALID, HALVES, st.just("null")), min_size=1, max_size=12), st.sampled_from((",", " ,\n\t\r "))
)
@settings(max_examples=400, deadline=None)
@example(["5e-324", "2.5e-324", "2.4e-324", "1.7976931348623157e308", "0.1", "-0.0", "0e5", "0.0e999"], ",")
@example(["9007199254740991", "-9007199254740991", "9007199254740993.0", "18446744073709551615.5"], ",")
@example(["123456789012345678901234567890e-10", "0.00000000000000000001234567890123456789"], ",")
def test_numbers_are_those_of_the_other_parsers(texts: list[str], comma: str) -> None:
    found = numbers(f"[{comma.join(texts)}]")
    expected = [json.loads(text) for text in texts]
    sure = all(
        value is None
        or (type(value) is int and abs(value) < 2**53 and text != "-0")
        or (type(value) is float and math.isfinite(value))
        for text, value in zip(texts, expected, strict=True)
    )
    if not sure or any(len(text.lower().partition("e")[2].lstrip("+-")) > 9 for text in texts):
        assert found is None or bits(expected) == found[0]
        assert sure or found is None
        return
    assert found is not None
    assert found[0] == bits(expected)
    assert found[0] == bits([orjson.loads(text) for text in texts])
    flags = FRACTIONS * any(type(value) is float for value in expected) + NULLS * (None in expected)
    assert found[1:] == (0, flags)


@given(st.lists(VALID, max_size=3), st.lists(VALID, max_size=3), ODD)
@settings(max_examples=150, deadline=None)
@example([], [], "1e400")
@example([], [], "-1e400")
@example([], [], "-0")
@example([], [], "9007199254740992")
@example([], [], "123456789012345678901234567890")
def test_what_is_no_number_is_in_doubt(before: list[str], after: list[str], odd: str) -> None:
    assert numbers(f"[{','.join([*before, odd, *after])}]") is None
    assert numbers(f"[[{','.join([*before, odd, *after])}]]") is None


@given(st.lists(st.lists(SHORT, max_size=4), max_size=4))
@settings(max_examples=100, deadline=None)
def test_nested_numbers_are_rows_of_equal_length(rows: list[list[str]]) -> None:
    found = numbers(f"[{' , '.join('[' + ','.join(row) + ' ]' for row in rows)} ]")
    values = [[float(text) for text in row] for row in rows]
    if not rows or not rows[0] or len(set(map(len, rows))) > 1:
        assert found is None
    else:
        assert found == (bits([value for row in values for value in row]), len(rows), FRACTIONS)


@given(st.binary(max_size=40))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_read_or_in_doubt(tail: bytes) -> None:
    for text in (tail, b'"data":' + tail, b'"data":[' + tail, b'"data":[1.5,[' + tail, b'"data" : [ [1.5' + tail):
        found = NumberReader().find(text, LIMIT)
        if found is not None:
            start, end, count, rows, _ = found
            listed = json.loads(text[start:end])
            assert count == (sum(map(len, listed)) if rows else len(listed))


def test_no_more_numbers_than_are_of_interest_are_read() -> None:
    reader = NumberReader()
    text = body(json.dumps([0.5] * 5000))
    assert reader.find(text, 4999) is None
    found = reader.find(text, 5000)
    assert found is not None
    assert (reader.matrix((100, 50)) == 0.5).all()
    assert reader.bounds.tolist() == [0.5, 0.5]


SERVED = ServedModel(
    "m", 1, "regression", None, tuple(RequestColumn(name, "float64", False, "input") for name in "ab"), None,
    dict.fromkeys("ab", "float64"),
)  # fmt: skip


def outcome(text: bytes, read: Any) -> Any:
    try:
        request: InferRequest = read(text)
    except RequestError as error:
        return error.what, error.where, error.hint
    matrix = request.rows.matrix
    assert matrix is not None
    return bits(matrix.ravel().tolist()), matrix.shape, request[1:]


def exactly(text: bytes) -> InferRequest:
    place = signature_of(SERVED).place
    return parse_document(load_json(text, place), SERVED, 100, place)


def same(text: str | bytes) -> Any:
    found = text if isinstance(text, bytes) else text.encode()
    expected = outcome(found, exactly)
    for _ in range(2):  # a head is first worked out, and then remembered
        assert outcome(found, lambda each: parse_infer(each, SERVED, max_rows=100)) == expected
    return expected


REST = '"name":"x","shape":[1,2],"datatype":"FP64"'


@pytest.mark.parametrize(
    "text",
    [
        # the data is there twice, or elsewhere, or in a text
        f'{{"inputs":[{{{REST},"data":%s,"data":[5,6]}}]}}',
        f'{{"inputs":[{{{REST},"data":%s,"data":[]}}]}}',
        f'{{"inputs":[{{{REST},"data":[5,6],"data":%s}}]}}',
        f'{{"inputs":[{{{REST},"data":%s,"d\\u0061ta":[5,6]}}]}}',
        f'{{"inputs":[{{{REST},"d\\u0061ta":[5,6],"data":%s}}]}}',
        f'{{"inputs":[{{{REST},"d\\u0061ta":%s}}]}}',
        f'{{"data":%s,"inputs":[{{{REST}}}]}}',
        f'{{"data":%s,"inputs":[{{{REST},"d\\u0061ta":[5,6]}}]}}',
        f'{{"id":"\\"data\\":[1,2]","inputs":[{{{REST},"data":%s}}]}}',
        f'{{"id":"\\\\","data":[7,8],"inputs":[{{{REST},"data":%s}}]}}',
        f'{{"\\"data":%s,"inputs":[{{{REST},"data":[5,6]}}]}}',
        f'{{"x\\"data":%s,"inputs":[{{{REST},"dat\\u0061":[5,6]}}]}}',
        f'{{"parameters":{{"data":%s}},"inputs":[{{{REST},"dat\\u0061":[5,6]}}]}}',
        f'{{"inputs":[{{{REST},"parameters":{{"data":%s}}}}]}}',
        f'{{"inputs":[{{"x":{{"data":%s}},{REST}}}]}}',
        f'{{"inputs":[{{"x":{{"data":%s}},{REST},"dat\\u0061":[5,6]}}]}}',
        f'{{"inputs":[{{{REST},"data":%s}}],"inputs":[]}}',
        f'{{"inputs":[{{{REST},"data":%s}}],"inputs":[{{{REST},"dat\\u0061":[5,6]}}]}}',
        f'{{"inputs":[{{{REST},"data":%s}},{{{REST}}}]}}',
        # what is around it is no JSON, or ends differently
        f'{{"inputs":[{{{REST},"data":%s]}}',
        f'{{"inputs":[{{{REST},"data":%s}}]',
        f'{{"inputs":[{{{REST},"data":%s}}]}}x',
        f'{{"inputs":[{{{REST},"data":%s5}}]}}',
        f'{{"inputs":[{{{REST},"data":%s"x"}}]}}',
        f'{{"inputs":[{{{REST},"data":%s,}}]}}',
        f'{{"inputs":[{{{REST},"data"%s}}]}}',
        f'{{"inputs":[{{{REST},"x"data":%s}}]}}',
        f'{{"inputs":[{{{REST},"data"::%s}}]}}',
        f'{{"inputs":[{{{REST},"data":%s\0}}]}}',
        f'\ufeff{{"inputs":[{{{REST},"data":%s}}]}}',
        # other ways of writing the same
        f' {{ "inputs" : [ {{ {REST} , "data" :\n%s\t}} ]\r}} ',
        f'{{"inputs":[{{"data":%s,{REST}}}],"id":"r1","parameters":{{"routing_key":"k"}}}}',
        f'{{"inputs":[{{{REST},"data":%s}}],"id":null,"parameters":null}}',
        '{"inputs":[{"name":"data","shape":[1,2],"datatype":"FP64","data":%s}]}',
        '{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP64","data":%s,"more":"data"}]}',
        # other heads
        f'{{"inputs":[{{{REST},"data":%s}}],"outputs":0}}',
        f'{{"inputs":[{{{REST},"data":%s}}],"outputs":[{{"name":"as_of"}}]}}',
        f'{{"inputs":[{{{REST},"data":%s}}],"outputs":[{{"name":"as_of"}},{{"name":"as_of"}}]}}',
        f'{{"inputs":[{{{REST},"data":%s}}],"parameters":{{"explain":true}}}}',
        f'{{"inputs":[{{{REST},"data":%s}}],"id":7}}',
        '{"inputs":[{"name":["x"],"shape":[1,2],"datatype":"FP64","data":%s}]}',
        '{"inputs":[{"name":"x","shape":[1,2.0],"datatype":"FP64","data":%s}]}',
        '{"inputs":[{"name":"x","shape":[true,2],"datatype":"FP64","data":%s}]}',
        '{"inputs":[{"name":"x","shape":[2,1],"datatype":"FP64","data":%s}]}',
        '{"inputs":[{"name":"x","shape":[1,2],"datatype":["FP64"],"data":%s}]}',
    ],
)  # fmt: skip
def test_no_head_is_taken_for_another(text: str) -> None:
    plain = f'{{"inputs":[{{{REST},"data":%s}}]}}'
    for data in ("[1.5,2.5]", "[[1.5,2.5]]", "[3,null]", "[3,4]", "[5,6]", "[]", "[1,true]", '["1",2]', "[1e400,1]"):
        same(plain % data)
        same(text % data)


@pytest.mark.parametrize("datatype", ["FP64", "FP32", "FP16", "INT8", "UINT8", "INT64", "UINT64", "BF16", "BOOL"])
def test_datatypes_hold_what_they_held(datatype: str) -> None:
    whole = ("0", "-0", "255", "256", "-1", "-128", "-129", "9007199254740991", "9007199254740992", str(2**64 - 1))
    for number in (
        *whole,
        "-0.0",
        "65504",
        "65520.5",
        "3.4028235e38",
        "3.5e38",
        "1e300",
        "0.1",
        "null",
        "1e2",
        "5e-324",
    ):
        for data in (f"[{number},1]", f"[[1,{number}]]", f"[{number},{number}]"):
            same(f'{{"inputs":[{{"name":"x","shape":[1,2],"datatype":"{datatype}","data":{data}}}]}}')


def test_what_goes_the_short_way() -> None:
    signature = signature_of(SERVED)
    for data in ("[1,2.5]", "[[1,null]]", " [ 1e300 , -0.0 ] "):
        for more in ("", ',"id":"r"', ',"parameters":{"routing_key":"k"}', ',"outputs":[{"name":"as_of"}]'):
            text = f'{{"inputs":[{{{REST},"data":{data}}}]{more}}}'.encode()
            assert quick_matrix(text, signature, 100) is not None
    assert quick_matrix(f'{{"inputs":[{{{REST},"data":[1,2]}}]}}'.encode(), signature, 0) is None


def test_without_the_library_all_is_in_doubt_and_a_warning_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = tmp_path / "libnumbers.so"
    wrong.write_bytes(b"no library")
    load_library.cache_clear()
    try:
        for path in (wrong, tmp_path / "none.so", KERNELS):
            monkeypatch.setattr("millpond.serving.protocol.numbers.LIBRARY", path)
            assert NumberReader().find(body("[1,2]"), LIMIT) is None
            assert NumberReader().find(body("[1,2]"), LIMIT) is None
            (warning,) = caplog.messages
            assert "the slower way" in warning
            caplog.clear()
            load_library.cache_clear()
    finally:
        load_library.cache_clear()
