"""The quick ways of reading a request against the exact one, and the layouts of tensors against each other."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from millpond.core.errors import RequestError
from millpond.serving.ports import InferRequest, RequestColumn, ServedModel
from millpond.serving.protocol import Tensor, encode_raw, parse_infer, raw_bytes, read_raw, request_of
from millpond.serving.protocol.datatypes import DATATYPES, FLOATS, INTEGERS
from millpond.serving.protocol.documents import load_json, parse_document
from millpond.serving.protocol.matrices import quick_matrix
from millpond.serving.protocol.quick import quick_request, quick_row
from millpond.serving.protocol.requests import request_of_json
from millpond.serving.protocol.signature import signature_of
from millpond.serving.protocol.tensors import OutTensor

NUMBERS = ServedModel(
    "numbers",
    1,
    "regression",
    None,
    tuple(RequestColumn(name, "float64", False, "input") for name in "abc"),
    None,
    dict.fromkeys("abc", "float64"),
)
WHOLE = ServedModel(
    "whole",
    1,
    "regression",
    None,
    (RequestColumn("key", "string", True, "key"),),
    None,
    {"a": "float64", "b": "int64", "c": "int64"},
)
MIXED = ServedModel(
    "mixed",
    1,
    "classification",
    0.5,
    (
        RequestColumn("key", "string", True, "key"),
        RequestColumn("when", "instant", True, "request"),
        RequestColumn("flag", "bool", False, "input"),
        RequestColumn("size", "int64", False, "input"),
        RequestColumn("share", "float64", True, "request"),
    ),
    "when",
    {"flag": "bool", "size": "int64", "f1": "float64", "f2": "string"},
)
UNNAMED = ServedModel("unnamed", 1, "other", None, (), None, dict.fromkeys("ab", "float64"), matrix=True)
MODELS = (NUMBERS, WHOLE, MIXED, UNNAMED)


def plain(request: InferRequest) -> tuple[Any, ...]:
    """A request as plain values, NaN as None, so that two can be compared."""
    rows = [request.rows.values(row) for row in range(request.rows.count)]
    signs = [[math.copysign(1, value) for value in row.values() if isinstance(value, (int, float))] for row in rows]
    shape = (request.rows.names, request.rows.matrix is None, request.rows.count)
    return (rows, signs, shape, *request[1:])


def outcome(call: Any) -> Any:
    try:
        return plain(call())
    except RequestError as error:
        return (type(error), error.what, error.where, error.hint)


def exact(body: bytes, served: ServedModel, max_rows: int = 40) -> InferRequest:
    place = signature_of(served).place
    return parse_document(load_json(body, place), served, max_rows, place)


EDGES = (0, -0.0, 1, 2.5, -7, 2**53, 2**53 + 1, -(2**63), 2**64, 10**30, 1e300, 0.1, 255, 65504, 65520, 1e39, 1e-310)
GOOD = st.sampled_from((0, -0.0, 1, 2.5, -7, 0.1, 100)) | st.floats(-1e6, 1e6) | st.integers(-100, 100)
ANY = GOOD | st.sampled_from(EDGES) | st.none() | st.booleans() | st.sampled_from(("x", "é", "", [], [1], {}))
TEXTS = st.sampled_from(("JFK", "é", "", "2013-12-01T08:00:00Z", "2013-12-01", "2013-12-01T08:00:00.5+01:00"))
DATATYPE = st.sampled_from((*DATATYPES, "FP64", "FP64", "FP32", "INT64", "BYTES", "BOOL", "DOUBLE"))


@st.composite
def columns(draw: st.DrawFn, served: ServedModel) -> list[dict[str, Any]]:
    """Tensors as callers mostly send them, each sometimes a little wrong."""
    kinds = {**served.inputs, **{column.name: column.type for column in served.columns}}
    names = draw(st.permutations(sorted(kinds)))
    if draw(st.booleans()):
        pool = [each.name for each in served.columns] if draw(st.booleans()) else list(served.inputs)
        names = [name for name in names if name in pool] or names
    names = names[: draw(st.integers(1, len(names)))] if draw(st.booleans()) else names
    count = draw(st.sampled_from((1, 1, 1, 2, 20)))
    fitting = {
        "float64": ("FP64", GOOD),
        "int64": ("INT64", st.integers(-100, 100)),
        "bool": ("BOOL", st.booleans()),
        "string": ("BYTES", TEXTS),
        "instant": ("BYTES", st.sampled_from(("2013-12-01T08:00:00Z", "2013-12-01T08:00:00.5+01:00"))),
    }
    tensors = []
    for name in names:
        datatype, values = fitting[kinds[name]]
        if draw(st.integers(0, 9)) == 0:
            datatype = draw(DATATYPE)
        if draw(st.integers(0, 9)) == 0:
            values = values | ANY | TEXTS
        data = draw(st.lists(values, min_size=count, max_size=count))
        shape: Any = [count]
        if draw(st.integers(0, 19)) == 0:
            shape = draw(st.sampled_from(([count, 1], [count, 2], [True], [1.0], [], None, [count, count])))
        tensors.append({"name": name, "shape": shape, "datatype": datatype, "data": data})
    if draw(st.integers(0, 19)) == 0:
        tensors.append(dict(draw(st.sampled_from(tensors))))
    return tensors


@st.composite
def matrices(draw: st.DrawFn, served: ServedModel) -> list[dict[str, Any]]:
    width = len(served.inputs)
    count = draw(st.sampled_from((1, 1, 2, 12, 40)))
    values: Any = GOOD if draw(st.integers(0, 2)) else st.integers(-100, 100)
    rows = [[draw(values) for _ in range(width)] for _ in range(min(count, 2))] * max(count // 2, 1)
    rows = rows[:count]
    if draw(st.integers(0, 2)) == 0:
        place = draw(st.integers(0, len(rows) - 1))
        rows[place] = [*rows[place][:-1], draw(ANY)]
    if draw(st.integers(0, 19)) == 0:
        rows[-1] = rows[-1][1:]
    nested = draw(st.booleans())
    data: Any = rows if nested else [value for row in rows for value in row]
    name = draw(st.sampled_from(("input", "input-0", "x", "a", "key")))
    shape: Any = [count, width]
    if draw(st.integers(0, 19)) == 0:
        shape = draw(st.sampled_from(([count], [1.0, width], [True, width], [width, count], [count, width, 1], "x")))
    return [{"name": name, "shape": shape, "datatype": draw(DATATYPE), "data": data}]


@st.composite
def bodies(draw: st.DrawFn) -> tuple[ServedModel, bytes]:
    served = draw(st.sampled_from(MODELS))
    inputs: Any = draw(matrices(served) if served.matrix or draw(st.booleans()) else columns(served))
    document: dict[str, Any] = {"inputs": inputs}
    if draw(st.booleans()):
        document["id"] = draw(st.sampled_from(("r1", "true", 7, None)))
    if draw(st.integers(0, 3)) == 0:
        document["outputs"] = draw(
            st.sampled_from(
                (
                    [{"name": "prediction_id"}],
                    [{"name": "as_of", "parameters": {"binary_data": True}}],
                    [],
                    [{}],
                    3,
                    0,
                    "",
                    {},
                )
            )
        )
    if draw(st.integers(0, 3)) == 0:
        document["parameters"] = draw(
            st.sampled_from(
                (
                    {"as_of": "2013-12-01T08:00:00Z", "routing_key": "k"},
                    {"as_of": "x"},
                    {"asof": "x"},
                    {"explain": True},
                    {"binary_data_output": True},
                    {"priority": 1},
                    3,
                    None,
                )
            )
        )
    return served, json.dumps(document, ensure_ascii=draw(st.booleans())).encode()


@given(bodies())
@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_way_comes_to_the_same(case: tuple[ServedModel, bytes]) -> None:
    served, body = case
    expected = outcome(lambda: exact(body, served))
    for _ in range(2):  # a head is first worked out, and then remembered
        assert outcome(lambda: parse_infer(body, served, max_rows=40)) == expected
    document = orjson.loads(body)
    before = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    matrix = quick_matrix(body, signature_of(served), 40)
    assert matrix is None or plain(matrix) == expected
    quick = quick_request(document, signature_of(served))
    if quick is not None:
        assert plain(quick) == expected
    elif isinstance(document["inputs"], list):
        fields = {name: value for name, value in document.items() if value is not None}
        kept = {name: value for name, value in orjson.loads(before).items() if value is not None}
        assert fields["inputs"] == kept["inputs"]
        assert fields == kept


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("datatype", ["FP64", "FP32", "FP16", "INT64", "UINT8"])
@pytest.mark.parametrize("count", [1, 5, 400])
def test_matrices_go_the_short_way(count: int, datatype: str, nested: bool) -> None:
    random.seed(count)
    number = (lambda: random.randrange(200)) if datatype in INTEGERS else (lambda: random.gauss(0, 1))
    rows = [[number() for _ in range(3)] for _ in range(count)]
    data = rows if nested else [value for row in rows for value in row]
    body = json.dumps({"inputs": [{"name": "x", "shape": [count, 3], "datatype": datatype, "data": data}]}).encode()
    found = quick_matrix(body, signature_of(NUMBERS), 1000)
    assert found is not None
    assert plain(found) == plain(exact(body, NUMBERS, 1000))


@pytest.mark.parametrize("where", [0, 599, 1199])
@pytest.mark.parametrize("value", [True, False, "1", 2**53 + 1, 1e300, [1.0], None, 10**20])
def test_one_odd_value_among_many(value: Any, where: int) -> None:
    data: list[Any] = [0.5] * 1200
    data[where] = value
    body = json.dumps({"inputs": [{"name": "x", "shape": [400, 3], "datatype": "FP64", "data": data}]}).encode()
    assert outcome(lambda: parse_infer(body, NUMBERS)) == outcome(lambda: exact(body, NUMBERS, 1000))


def test_single_rows_go_the_short_way() -> None:
    tensors = [
        {"name": "key", "shape": [1], "datatype": "BYTES", "data": ["JFK"]},
        {"name": "share", "shape": [1], "datatype": "FP32", "data": [0.1]},
        {"name": "when", "shape": [1], "datatype": "BYTES", "data": ["2013-12-01T08:00:00Z"]},
        {"name": "flag", "shape": [1], "datatype": "BOOL", "data": [True]},
    ]
    raw = [{"name": name, "shape": [1], "datatype": "FP64", "data": [1.5]} for name in "cab"]
    key = [{"name": "key", "shape": [1, 1], "datatype": "BYTES", "data": ["JFK"]}]
    alone = [{"name": "c", "shape": [1, 1], "datatype": "FP64", "data": [1.5]}]
    for served, inputs in ((MIXED, tensors), (NUMBERS, raw), (NUMBERS, raw[:2]), (WHOLE, key), (NUMBERS, alone)):
        body = json.dumps({"inputs": inputs, "id": "x", "parameters": {"routing_key": "k"}}).encode()
        found = quick_request(orjson.loads(body), signature_of(served))
        assert found is not None
        assert plain(found) == plain(exact(body, served))


@given(bodies(), st.booleans())
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_tensors_of_another_wire_are_the_same_request(case: tuple[ServedModel, bytes], raw: bool) -> None:
    served, body = case
    inputs = json.loads(body)["inputs"]
    tensors = []
    for each in inputs:
        data, shape = each["data"], each["shape"]
        assume(isinstance(shape, list) and all(type(size) is int for size in shape))
        if raw:
            try:
                values = np.array(data, np.float64 if None in data else None).ravel().tolist()
                with np.errstate(all="ignore"):
                    data = encode_raw(each["datatype"], values)
            except (ValueError, TypeError, OverflowError, KeyError):
                assume(False)
        tensors.append(Tensor(each["name"], each["datatype"], shape, data))
    place = signature_of(served).place
    document = {"inputs": inputs}
    expected = outcome(lambda: parse_document(document, served, 40, place))
    if raw:  # what JSON says of null, of quotes and of rounding differs
        expected = outcome(lambda: request_of_json(tensors, served, {}, None, (), binary=False, max_rows=40))
    for _ in range(2):
        assert outcome(lambda: request_of(tensors, served, max_rows=40)) == expected


def test_rows_of_another_wire_go_the_short_way() -> None:
    values = {"key": ("BYTES", "JFK"), "share": ("FP32", 0.5), "when": ("BYTES", "2013-12-01T08:00:00Z")}
    typed = [Tensor(name, datatype, [1], [value]) for name, (datatype, value) in values.items()]
    flag = (Tensor("flag", "BOOL", [1], [True]), Tensor("size", "INT8", [1], [-3]))
    typed += flag
    raw = [each._replace(data=encode_raw(each.datatype, each.data)) for each in typed]
    utf8 = [
        each._replace(data=[value.encode() if isinstance(value, str) else value for value in each.data])
        for each in typed
    ]
    rows = [quick_row(tensors, signature_of(MIXED)) for tensors in (typed, raw, utf8)]
    assert rows[0] is not None
    assert rows[0] == rows[1] == rows[2]
    assert rows[0][0].columns == {
        "key": ["JFK"],
        "when": [1_385_884_800_000_000],
        "flag": [True],
        "size": [-3],
        "share": [0.5],
    }
    for wrong in (raw[0]._replace(data=b"\4\0\0\0JFK"), raw[1]._replace(data=bytes(8)), flag[0]._replace(data=b"\2")):
        tensors = [wrong if each.name == wrong.name else each for each in raw]
        assert quick_row(tensors, signature_of(MIXED)) is None
        with pytest.raises(RequestError):
            request_of(tensors, MIXED)


@st.composite
def elements(draw: st.DrawFn) -> tuple[str, str, list[Any]]:
    datatype = draw(st.sampled_from(DATATYPES))
    count = draw(st.sampled_from((1, 3, 30)))
    if datatype == "BOOL":
        kind, values = "bool", st.booleans()
    elif datatype == "BYTES":
        kind, values = "string", st.text(max_size=5)
    elif datatype in INTEGERS:
        kind, (low, high) = "int64", INTEGERS[datatype]
        values = st.integers(low, min(high, 2**63 - 1))
    else:
        kind = "float64"
        width = {"FP16": 16, "FP64": 64}.get(datatype, 32)
        values = st.floats(width=width, allow_nan=False, allow_infinity=False)
        if datatype == "BF16":
            values = values.map(lambda value: float(read_raw("BF16", encode_raw("BF16", [value]), 1, "")[0]))
            values = values.filter(math.isfinite)
    return kind, datatype, draw(st.lists(values, min_size=count, max_size=count))


@given(elements())
@settings(max_examples=150, deadline=None)
def test_json_binary_arrays_and_raw_contents_are_the_same_rows(case: tuple[str, str, list[Any]]) -> None:
    kind, datatype, values = case
    served = ServedModel(
        "m", 1, "regression", None, (RequestColumn("a", kind, False, "input"),), None, {"a": kind, "b": "string"}
    )
    count = len(values)
    raw = encode_raw(datatype, values)
    assert raw_bytes(OutTensor("a", datatype, (count,), values)) == raw
    expected = request_of([Tensor("a", datatype, [count], raw)], served)
    assert expected.rows.columns["a"] is not None
    found = [expected.rows.values(row)["a"] for row in range(count)]
    assert found == values
    if kind == "float64":
        assert [math.copysign(1, each) for each in found] == [math.copysign(1, each) for each in values]
    head = {"name": "a", "datatype": datatype, "shape": [count]}
    binary = json.dumps({"inputs": [{**head, "parameters": {"binary_data_size": len(raw)}}]}).encode()
    requests = [parse_infer(binary + raw, served, json_length=len(binary))]
    if datatype != "BF16":
        requests.append(parse_infer(json.dumps({"inputs": [{**head, "data": values}]}).encode(), served))
        requests.append(request_of([Tensor("a", datatype, [count], values)], served))
    if datatype not in ("BF16", "BYTES"):
        requests.append(request_of([Tensor("a", datatype, [count], read_raw(datatype, raw, count, ""))], served))
    for request in requests:
        assert plain(request) == plain(expected)


@given(st.lists(st.floats(width=32), min_size=1, max_size=8))
@settings(max_examples=100, deadline=None)
def test_brain_floats_are_rounded_to_the_nearest(values: list[float]) -> None:
    found = read_raw("BF16", encode_raw("BF16", values), len(values), "")
    for value, rounded in zip(values, found, strict=True):
        if math.isnan(value):
            assert math.isnan(rounded)
            continue
        assume(abs(value) < 3e38)
        bits = np.float32(value).view(np.uint32)
        below = np.uint32(bits & 0xFFFF0000).view(np.float32)
        above = np.uint32((int(bits) & 0xFFFF0000) + 0x10000).view(np.float32)
        assert abs(float(rounded) - value) <= min(abs(float(below) - value), abs(float(above) - value))


@given(
    st.lists(
        st.tuples(st.sampled_from("abcx"), DATATYPE, st.lists(st.integers(-1, 3), max_size=3), st.binary(max_size=24)),
        max_size=3,
    )
)
@settings(max_examples=200, deadline=None)
def test_no_binary_data_is_more_than_a_request_error(tensors: list[Any]) -> None:
    for served in (NUMBERS, UNNAMED):
        found = outcome(lambda served=served: request_of([Tensor(*each) for each in tensors], served))
        if len(found) == 4:
            assert served.model in found[2]
        else:
            assert found[0]


def test_every_float_datatype_is_known() -> None:
    assert {*FLOATS, *INTEGERS, "BOOL", "BYTES"} == set(DATATYPES)
