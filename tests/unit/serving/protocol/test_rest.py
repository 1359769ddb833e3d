from __future__ import annotations

import json
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from millpond.core.errors import PayloadTooLarge, RequestError
from millpond.serving.ports import Answer, Explanation, ModelState, OutputColumn, RequestColumn, ServedModel
from millpond.serving.protocol import (
    format_infer,
    model_metadata,
    parse_index,
    parse_infer,
    repository_index,
    server_metadata,
)
from millpond.serving.protocol.metadata import EXTENSIONS

INSTANT = "2013-12-01T08:00:00Z"
AT = 1_385_884_800_000_000


def tensor(name: str, datatype: str, *data: Any, shape: Any = None) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(data)] if shape is None else shape, "data": list(data)}


ORIGIN = tensor("origin", "BYTES", "JFK")
TIME = tensor("scheduled_at", "BYTES", INSTANT)


def body(*inputs: Any, **fields: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **fields}).encode()


def refused(served: ServedModel, content: bytes, *, max_rows: int = 100) -> RequestError:
    with pytest.raises(RequestError) as caught:
        parse_infer(content, served, max_rows=max_rows)
    error = caught.value
    assert "late_arrival" in error.where
    assert error.hint or "data" in error.what
    return error


class TestAccepted:
    def test_all_columns(self, served: ServedModel) -> None:
        request = parse_infer(
            body(
                tensor("seats", "INT32", 180),
                tensor("weekend", "BOOL", True),
                tensor("distance", "FP64", 187.5),
                TIME,
                ORIGIN,
                id="r1",
            ),
            served,
        )
        assert request.rows.columns == {
            "origin": ["JFK"],
            "scheduled_at": [AT],
            "distance": [187.5],
            "seats": [180],
            "weekend": [True],
        }
        assert (request.id, request.as_of, request.raw, request.explain) == ("r1", None, False, False)
        assert [each.name for each in request.outputs] == ["prediction_id", "probability", "answer", "as_of"]

    def test_absent_optional_inputs_are_absent_and_null_ones_null(self, served: ServedModel) -> None:
        request = parse_infer(body(ORIGIN, TIME, tensor("distance", "FP32", None)), served)
        assert request.rows.columns == {"origin": ["JFK"], "scheduled_at": [AT], "distance": [None]}

    @pytest.mark.parametrize("data", [[1.5, 2.5], [[1.5], [2.5]]])
    def test_a_column_vector_flat_or_nested(self, served: ServedModel, data: list[Any]) -> None:
        distance = {"name": "distance", "datatype": "FP64", "shape": [2, 1], "data": data}
        rows = parse_infer(
            body(tensor("origin", "BYTES", "JFK", "EWR"), tensor("scheduled_at", "BYTES", INSTANT, INSTANT), distance),
            served,
        ).rows
        assert rows.columns["distance"] == [1.5, 2.5]

    @pytest.mark.parametrize(
        ("datatype", "value", "expected"),
        [
            ("INT8", -128, -128.0),
            ("UINT64", 2**63, float(2**63)),
            ("INT64", 2**53, float(2**53)),
            ("FP16", 0.5, 0.5),
            ("FP32", 0.1, 0.10000000149011612),
            ("FP64", 0.1, 0.1),
            ("FP64", 3, 3.0),
        ],
    )
    def test_numbers_for_a_float_column(
        self, served: ServedModel, datatype: str, value: float, expected: float
    ) -> None:
        rows = parse_infer(body(ORIGIN, TIME, tensor("distance", datatype, value)), served).rows
        assert rows.columns["distance"] == [expected]

    @pytest.mark.parametrize(
        ("datatype", "value"), [("UINT8", 255), ("FP64", 180.0), ("FP16", 2048), ("INT64", -(2**63)), ("INT64", 7.0)]
    )
    def test_numbers_for_an_integer_column(self, served: ServedModel, datatype: str, value: float) -> None:
        rows = parse_infer(body(ORIGIN, TIME, tensor("seats", datatype, value)), served).rows
        assert rows.columns["seats"] == [int(value)]

    def test_an_offset_is_read(self, served: ServedModel) -> None:
        rows = parse_infer(body(ORIGIN, tensor("scheduled_at", "BYTES", "2013-12-01T03:00:00.5-05:00")), served).rows
        assert rows.columns["scheduled_at"] == [AT + 500_000]

    def test_unknown_parameters_are_ignored(self, served: ServedModel) -> None:
        assert parse_infer(body(ORIGIN, TIME, parameters={"priority": 3}), served).as_of is None


class TestTheBody:
    @pytest.mark.parametrize(
        ("content", "what"),
        [
            (b"", "empty"),
            (b"not json", "not JSON"),
            (b'{"inputs": [', "not JSON"),
            (b"\xff\xfe", "not JSON"),
            (b"[]", "JSON array"),
            (b'"text"', "JSON string"),
            (b"null", "JSON null"),
            (b"NaN", "JSON NaN"),
            (b'{"inputs": []}', "inputs is empty"),
            (b"{}", "inputs is missing"),
            (b'{"inputs": {}}', "inputs is a JSON object"),
            (b'{"inputs": [3]}', "inputs holds 3"),
            (b'{"inputs": [{"name": 7}]}', "expected an object with a name"),
            (b'{"inputs": 3, "inputs": []}', "inputs is empty"),
            (b"[" * 100_000, "nested too deeply"),
            (b'{"id": ' + b"9" * 5_000 + b"}", "not JSON"),
        ],
    )
    def test_is_refused(self, served: ServedModel, content: bytes, what: str) -> None:
        assert what in refused(served, content).what

    def test_broken_json_names_the_place(self, served: ServedModel) -> None:
        assert "line 2, column 3" in refused(served, b'{"inputs":\n  oops}').where

    @pytest.mark.parametrize("value", [7, True, ["x"], {}])
    def test_an_id_is_a_string(self, served: ServedModel, value: Any) -> None:
        assert "id is" in refused(served, body(ORIGIN, TIME, id=value)).what


class TestInputs:
    def test_missing_required(self, served: ServedModel) -> None:
        error = refused(served, body(ORIGIN))
        assert error.what == "the input 'scheduled_at' is missing"
        assert "origin (string), scheduled_at (instant), distance (float64, optional)" in error.hint

    def test_unknown_with_a_close_match(self, served: ServedModel) -> None:
        error = refused(served, body(ORIGIN, TIME, tensor("distanse", "FP64", 1.0)))
        assert "'distanse'" in error.what
        assert "did you mean 'distance'?" in error.hint

    def test_there_twice(self, served: ServedModel) -> None:
        assert "twice" in refused(served, body(ORIGIN, TIME, ORIGIN)).what

    def test_row_counts_that_differ(self, served: ServedModel) -> None:
        error = refused(served, body(ORIGIN, tensor("scheduled_at", "BYTES", INSTANT, INSTANT)))
        assert error.what == "'scheduled_at' has 2 rows, and 'origin' has 1"

    @pytest.mark.parametrize("shape", [None, "1", [], [1, 2], [1, 1, 1], [-1], [True], [1.0], 1])
    def test_shapes(self, served: ServedModel, shape: Any) -> None:
        broken = {"name": "origin", "datatype": "BYTES", "shape": shape, "data": ["JFK"]}
        assert "expected [rows] or [rows, 1]" in refused(served, body(broken)).what

    def test_no_rows(self, served: ServedModel) -> None:
        assert "no rows" in refused(served, body(tensor("origin", "BYTES"))).what

    def test_too_many_rows(self, served: ServedModel) -> None:
        error = refused(served, body(tensor("origin", "BYTES", *["JFK"] * 101)))
        assert isinstance(error, PayloadTooLarge)
        assert "101 rows, and at most 100" in error.what
        assert "--batch" in error.hint

    @pytest.mark.parametrize(
        ("data", "what"),
        [(["JFK", "EWR"], "2 values, and the shape says 1"), ([], "0 values"), (None, "missing"), ("JFK", "string")],
    )
    def test_data(self, served: ServedModel, data: Any, what: str) -> None:
        broken = {"name": "origin", "datatype": "BYTES", "shape": [1], "data": data}
        assert what in refused(served, body(broken)).what

    @pytest.mark.parametrize("data", [[["JFK", "EWR"]], [["JFK"], "EWR"], [["JFK"], []]])
    def test_nested_data(self, served: ServedModel, data: Any) -> None:
        broken = {"name": "origin", "datatype": "BYTES", "shape": [2, 1], "data": data}
        assert "one value in brackets" in refused(served, body(broken)).what

    def test_binary_data(self, served: ServedModel) -> None:
        binary = {"name": "origin", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 7}}
        assert "binary" in refused(served, body(binary)).what
        assert "missing" in refused(served, body({**binary, "parameters": 7})).what
        assert "number of bytes" in refused(served, body({**binary, "parameters": {"binary_data_size": -1}})).what


class TestValues:
    @pytest.mark.parametrize(
        ("name", "datatype", "value", "what"),
        [
            ("distance", "DOUBLE", 1.0, "'DOUBLE', which the protocol does not have"),
            ("distance", None, 1.0, "None, which the protocol does not have"),
            ("distance", ["FP64"], 1.0, "which the protocol does not have"),
            ("distance", "BYTES", "1.0", "is BYTES, and the model takes float64"),
            ("distance", "FP64", "1.0", "found '1.0', expected a number"),
            ("distance", "FP64", True, "found True, expected a number"),
            ("distance", "FP64", [1.0], "expected a number"),
            ("distance", "INT64", 2**53 + 1, "cannot hold exactly"),
            ("distance", "FP16", 70_000.0, "FP16 cannot hold"),
            ("distance", "FP32", 1e39, "FP32 cannot hold"),
            ("distance", "FP32", 10**400, "FP32 cannot hold"),
            ("distance", "FP64", 10**400, "float64 cannot hold"),
            ("seats", "INT64", 1.5, "expected a whole number"),
            ("seats", "FP64", 1.5, "expected a whole number"),
            ("seats", "FP64", 1e300, "int64 cannot hold"),
            ("seats", "UINT64", 2**63, "int64 cannot hold"),
            ("seats", "INT8", 128, "INT8 cannot hold"),
            ("seats", "UINT8", -1, "UINT8 cannot hold"),
            ("seats", "BOOL", True, "is BOOL, and the model takes int64"),
            ("weekend", "BOOL", 1, "expected true or false"),
            ("weekend", "INT64", 1, "is INT64, and the model takes bool"),
            ("origin", "BYTES", 7, "expected a string"),
            ("origin", "BYTES", None, "'origin' is null in row 0"),
            ("origin", "BYTES", "\ud800", "not valid Unicode"),
            ("scheduled_at", "INT64", 0, "is INT64, and the model takes instant"),
            ("scheduled_at", "BYTES", 0, "expected an instant"),
            ("scheduled_at", "BYTES", "2013-12-01T08:00:00", "names no time zone"),
            ("scheduled_at", "BYTES", "tomorrow", "is not an ISO 8601 instant"),
            ("scheduled_at", "BYTES", "0001-01-01T00:00:00+14:00", "out of range"),
        ],
    )
    def test_are_refused(self, served: ServedModel, name: str, datatype: Any, value: Any, what: str) -> None:
        others = [each for each in (ORIGIN, TIME) if each["name"] != name]
        error = refused(served, body(*others, tensor(name, datatype, value)))
        assert what in error.what
        assert f"input {name!r}" in error.where
        assert error.hint

    @pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity"])
    def test_literals_that_json_does_not_have(self, served: ServedModel, literal: str) -> None:
        content = body(ORIGIN, TIME, tensor("distance", "FP64", "@")).replace(b'"@"', literal.encode())
        error = refused(served, content)
        assert error.what == f"'distance' in row 0: found {literal}, which is no JSON number"
        assert error.hint == "send null where a value is unknown"

    def test_a_number_beyond_float(self, served: ServedModel) -> None:
        content = body(ORIGIN, TIME, tensor("distance", "FP64", "@")).replace(b'"@"', b"1e400")
        assert "too large" in refused(served, content).what

    def test_the_first_bad_row_is_named(self, served: ServedModel) -> None:
        error = refused(served, body(tensor("distance", "FP64", 1.0, 2.0, "x", "y")))
        assert "in row 2" in error.what


class TestParameters:
    def test_as_of(self) -> None:
        served = ServedModel(
            "late_arrival", 1, "regression", None, (RequestColumn("origin", "string", True, "key"),), None, {}
        )
        request = parse_infer(body(ORIGIN, parameters={"as_of": "2013-12-01T09:00:00+01:00"}), served)
        assert request.as_of == AT

    @pytest.mark.parametrize("value", ["2013-12-01T08:00:00", "noon", 7, ""])
    def test_as_of_is_an_instant(self, served: ServedModel, value: Any) -> None:
        assert "parameters.as_of" in refused(served, body(ORIGIN, TIME, parameters={"as_of": value})).what

    @pytest.mark.parametrize("name", ["asof", "as-of", "AS_OF", "asOf"])
    def test_a_misspelt_as_of(self, served: ServedModel, name: str) -> None:
        assert "as_of" in refused(served, body(ORIGIN, TIME, parameters={name: INSTANT})).hint

    def test_are_an_object(self, served: ServedModel) -> None:
        assert "JSON array" in refused(served, body(ORIGIN, TIME, parameters=[])).what

    def test_may_differ_from_the_instant_of_a_row(self, served: ServedModel) -> None:
        request = parse_infer(body(ORIGIN, TIME, parameters={"as_of": "2013-12-02T00:00:00Z"}), served)
        assert request.as_of == AT + 16 * 3_600_000_000


class TestOutputs:
    def answer(self, served: ServedModel, **changes: Any) -> Answer:
        values: dict[str, Any] = {
            "served": served,
            "variant": "live",
            "ids": ["p_1", "p_2"],
            "outputs": {"output": [0.25, 1.0]},
            "answers": [False, True],
            "as_of": [AT, AT],
        }
        return Answer(**{**values, **changes})

    def test_a_selection_in_its_order(self, served: ServedModel) -> None:
        wanted = [{"name": "answer"}, {"name": "probability", "parameters": {"binary_data": False}}]
        request = parse_infer(body(ORIGIN, TIME, outputs=wanted, id="r 1"), served)
        content, parts = format_infer(request, self.answer(served))
        assert parts == []
        assert json.loads(content) == {
            "model_name": "late_arrival",
            "model_version": "3",
            "id": "r 1",
            "parameters": {"variant": "live"},
            "outputs": [
                {"name": "answer", "datatype": "BOOL", "shape": [2], "data": [False, True]},
                {"name": "probability", "datatype": "FP64", "shape": [2], "data": [0.25, 1.0]},
            ],
        }

    @pytest.mark.parametrize(
        ("outputs", "what"),
        [
            ([{"name": "probabilty"}], "no output 'probabilty'"),
            ([{"name": "prediction"}], "no output 'prediction'"),
            ([{"name": "contributions"}], "no output 'contributions'"),
            ([{"name": "answer"}, {"name": "answer"}], "twice"),
            ([{}], "expected an object with a name"),
            (["answer"], "expected an object with a name"),
            ("answer", "JSON string"),
        ],
    )
    def test_are_refused(self, served: ServedModel, outputs: Any, what: str) -> None:
        assert what in refused(served, body(ORIGIN, TIME, outputs=outputs)).what

    def test_instants_are_told_back(self, served: ServedModel) -> None:
        request = parse_infer(body(ORIGIN, TIME, parameters={"as_of": INSTANT}), served)
        answer = self.answer(served, synced_at=AT + 1, as_of=[AT, AT + 1_500_000], variant="canary")
        document = json.loads(format_infer(request, answer)[0])
        assert document["parameters"] == {
            "variant": "canary",
            "as_of": INSTANT,
            "features_synced_at": "2013-12-01T08:00:00.000001Z",
        }
        assert document["outputs"][3]["data"] == [INSTANT, "2013-12-01T08:00:01.500000Z"]
        assert "id" not in document

    def test_regression(self, make_served: Any) -> None:
        served = make_served("regression")
        request = parse_infer(body(ORIGIN, TIME), served)
        document = json.loads(format_infer(request, self.answer(served, answers=None))[0])
        assert [each["name"] for each in document["outputs"]] == ["prediction_id", "prediction", "as_of"]
        assert document["outputs"][1] == {"name": "prediction", "datatype": "FP64", "shape": [2], "data": [0.25, 1.0]}

    def test_a_model_with_outputs_of_its_own(self) -> None:
        served = ServedModel(
            "own %d",
            1,
            "other",
            None,
            (),
            None,
            {"a": "float64", "b": "float64"},
            (OutputColumn("as_of", "string"), OutputColumn("v", "float64", 2), OutputColumn("n", "int64")),
            matrix=True,
        )
        request = parse_infer(body(tensor("anything", "FP32", 1, 2, 3, 4, shape=[2, 2])), served)
        outputs: dict[str, Any] = {"as_of": ["x", "y"], "v": np.array([[1.0, np.nan], [3.0, 4.0]]), "n": np.arange(2)}
        document = json.loads(format_infer(request, self.answer(served, outputs=outputs, answers=None))[0])
        assert document["model_name"] == "own %d"
        assert [(each["name"], each["datatype"], each["shape"], each["data"]) for each in document["outputs"]] == [
            ("prediction_id", "BYTES", [2], ["p_1", "p_2"]),
            ("output_as_of", "BYTES", [2], ["x", "y"]),
            ("v", "FP64", [2, 2], [1.0, None, 3.0, 4.0]),
            ("n", "INT64", [2], [0, 1]),
            ("as_of", "BYTES", [2], [INSTANT, INSTANT]),
        ]
        assert document["outputs"][2].get("datatype") == model_metadata(served)["outputs"][2]["datatype"]

    def test_contributions(self, served: ServedModel) -> None:
        request = parse_infer(body(ORIGIN, TIME, parameters={"explain": True}), served)
        assert request.explain
        explanation = Explanation(0.5, np.array([[1.0, 2.0], [3.0, 4.0]]), "log-odds")
        document = json.loads(format_infer(request, self.answer(served, explanation=explanation))[0])
        assert document["outputs"][4:] == [
            {
                "name": "contributions",
                "datatype": "FP64",
                "shape": [2, 2],
                "data": [1.0, 2.0, 3.0, 4.0],
                "parameters": {"unit": "log-odds"},
            },
            {
                "name": "contributions_base",
                "datatype": "FP64",
                "shape": [2],
                "data": [0.5, 0.5],
                "parameters": {"unit": "log-odds"},
            },
        ]

    @pytest.mark.parametrize("all_of_them", [True, False])
    def test_binary(self, served: ServedModel, all_of_them: bool) -> None:
        wanted: dict[str, Any] = {"parameters": {"binary_data_output": True}}
        if not all_of_them:
            names = ("prediction_id", "probability", "answer", "as_of")
            wanted = {"outputs": [{"name": name, "parameters": {"binary_data": name != "answer"}} for name in names]}
        request = parse_infer(body(ORIGIN, TIME, **wanted), served)
        content, parts = format_infer(request, self.answer(served))
        outputs = json.loads(content)["outputs"]
        assert [each.get("parameters", {}).get("binary_data_size") for each in outputs] == (
            [14, 16, 2, 48] if all_of_them else [14, 16, None, 48]
        )
        assert parts[0] == b"\3\0\0\0p_1\3\0\0\0p_2"
        assert parts[1] == struct.pack("<dd", 0.25, 1.0)
        assert outputs[2].get("data") == (None if all_of_them else [False, True])
        assert all_of_them is (b"\0\1" in parts)


class TestForms:
    def test_raw_inputs_by_name(self, served: ServedModel, make_served: Any) -> None:
        served = replace(served, inputs={"distance": "float64", "f1": "float64", "seats": "int64"})
        request = parse_infer(body(tensor("f1", "FP64", 1.5), tensor("seats", "INT8", 3)), served)
        assert (request.raw, request.rows.names) == (True, ("distance", "f1", "seats"))
        assert request.rows.matrix is not None
        assert request.rows.values(0) == {"distance": None, "f1": 1.5, "seats": 3}

    def test_raw_inputs_and_keys_do_not_mix(self, served: ServedModel) -> None:
        served = replace(served, inputs={"f1": "float64"})
        error = refused(served, body(ORIGIN, tensor("f1", "FP64", 1.5)))
        assert error.what == "the input 'origin' is a request column, and others are raw model inputs"

    def test_without_features_columns_are_raw(self, plain: ServedModel) -> None:
        request = parse_infer(body(tensor("b", "FP64", 1)), plain)
        assert (request.raw, request.rows.names) == (True, ("a", "b", "c"))
        assert request.rows.values(0) == {"a": None, "b": 1.0, "c": None}

    @pytest.mark.parametrize("data", [[1, 2.5, 3, 4, None, 6], [[1, 2.5, 3], [4, None, 6]]])
    @pytest.mark.parametrize("datatype", ["FP64", "FP32", "FP16"])
    def test_a_matrix(self, plain: ServedModel, datatype: str, data: list[Any]) -> None:
        matrix = {"name": "input-0", "datatype": datatype, "shape": [2, 3], "data": data}
        request = parse_infer(body(matrix), plain)
        assert request.raw
        assert request.rows.matrix is not None
        assert request.rows.matrix.dtype == np.float64
        assert str(request.rows.matrix.tolist()) == "[[1.0, 2.5, 3.0], [4.0, nan, 6.0]]"

    def test_a_matrix_of_other_types(self) -> None:
        columns = tuple(RequestColumn(name, kind, False, "input") for name, kind in (("a", "bool"), ("b", "int64")))
        served = ServedModel("late_arrival", 1, "regression", None, columns, None, {"a": "bool", "b": "int64"})
        for datatype, data in (("FP64", [1.0, 2.0]), ("INT8", [1, 2])):
            request = parse_infer(body(tensor("x", datatype, *data, shape=[1, 2])), served)
            assert request.rows.columns == {"a": [True], "b": [2]}
        request = parse_infer(body(tensor("x", "BOOL", True, True, shape=[1, 2])), served)
        assert request.rows.columns == {"a": [True], "b": [1]}
        assert "'a' in row 0: found 2" in refused(served, body(tensor("x", "INT8", 2, 2, shape=[1, 2]))).what
        assert "'b' in row 0: found 2.5" in refused(served, body(tensor("x", "FP64", 1, 2.5, shape=[1, 2]))).what

    @pytest.mark.parametrize(
        ("fields", "what"),
        [
            ({"shape": [2, 2], "data": [1, 2, 3, 4]}, "the shape is [2, 2], expected [rows, 3]"),
            ({"shape": [1, 3], "data": [1, 2]}, "data has 2 values, and the shape says 3"),
            ({"shape": [2, 3], "data": [[1, 2, 3], [4, 5]]}, "not 2 arrays of 3 values"),
            ({"shape": [1, 3], "data": [1, 2, "3"]}, "'c' in row 0: found '3'"),
            ({"shape": [1, 3], "data": [1, True, 3]}, "'b' in row 0: found True"),
            ({"shape": [1, 3], "data": [1, 2**53 + 1, 3]}, "cannot hold exactly"),
            ({"shape": [1, 3], "data": "x"}, "data is a JSON string"),
            ({"shape": [0, 3], "data": []}, "no rows"),
            ({"shape": [101, 3], "data": []}, "101 rows"),
            ({"shape": [1, 3], "data": ["x"] * 3, "datatype": "BYTES"}, "is BYTES"),
            ({"shape": [1, 3], "data": [1, 2, 3], "datatype": "BF16"}, "only in binary"),
            ({"shape": [1], "data": [1]}, "the model takes no input 'x'"),
        ],
    )
    def test_a_matrix_that_does_not_fit(self, plain: ServedModel, fields: Any, what: str) -> None:
        assert what in refused(plain, body({"name": "x", "datatype": "FP64", **fields})).what

    def test_a_model_without_names(self, plain: ServedModel) -> None:
        served = replace(plain, columns=(), matrix=True)
        assert parse_infer(body(tensor("a", "FP64", 1, 2, 3, shape=[1, 3])), served).raw
        one = tensor("a", "FP64", 1, shape=[1, 1])
        assert "expected [rows, 3]" in refused(served, body(one)).what
        assert "there are 2 inputs" in refused(served, body(one, one)).what


@pytest.fixture
def plain() -> ServedModel:
    columns = tuple(RequestColumn(name, "float64", False, "input") for name in "abc")
    return ServedModel("late_arrival", 1, "regression", None, columns, None, dict.fromkeys("abc", "float64"))


class TestBinary:
    def request(self, served: ServedModel, *tensors: tuple[dict[str, Any], bytes], extra: bytes = b"") -> Any:
        inputs = [{**each, "parameters": {"binary_data_size": len(data)}} for each, data in tensors]
        head = body(*inputs)
        content = head + b"".join(data for _, data in tensors) + extra
        return parse_infer(content, served, json_length=len(head), max_rows=100)

    def test_columns(self, served: ServedModel) -> None:
        request = self.request(
            served,
            ({"name": "origin", "datatype": "BYTES", "shape": [2]}, b"\3\0\0\0JFK\2\0\0\0\xc3\xa9"),
            ({"name": "scheduled_at", "datatype": "BYTES", "shape": [2]}, (b"\x14\0\0\0" + INSTANT.encode()) * 2),
            ({"name": "weekend", "datatype": "BOOL", "shape": [2, 1]}, b"\0\1"),
            ({"name": "distance", "datatype": "BF16", "shape": [2]}, b"\x80\x3f\xc0\x7f"),
            ({"name": "seats", "datatype": "UINT16", "shape": [2]}, b"\xff\xff\1\0"),
        )
        assert request.rows.columns == {
            "origin": ["JFK", "é"],
            "scheduled_at": [AT, AT],
            "distance": [1.0, None],
            "seats": [65535, 1],
            "weekend": [False, True],
        }

    @pytest.mark.parametrize(
        ("name", "datatype", "data", "what"),
        [
            ("distance", "FP32", b"\0\0\x80\x7f", "found inf"),
            ("distance", "FP64", b"\0" * 7, "has 7 bytes, and 1 values of FP64 have 8"),
            ("weekend", "BOOL", b"\2", "the byte 2"),
            ("origin", "BYTES", b"\1\0\0\0\xff", "not valid Unicode"),
            ("origin", "BYTES", b"\1\0\0", "0 of 1 elements"),
            ("origin", "BYTES", b"\2\0\0\0x", "a part of element 0"),
            ("origin", "BYTES", b"\1\0\0\0xy", "1 elements and 1 bytes more"),
        ],
    )
    def test_is_refused(self, served: ServedModel, name: str, datatype: str, data: bytes, what: str) -> None:
        with pytest.raises(RequestError) as caught:
            self.request(served, ({"name": name, "datatype": datatype, "shape": [1]}, data))
        assert what in caught.value.what
        assert f"input {name!r}" in caught.value.where

    def test_too_much_and_too_little(self, plain: ServedModel) -> None:
        matrix = {"name": "x", "datatype": "FP64", "shape": [1, 3]}
        assert self.request(plain, (matrix, struct.pack("<3d", 1, 2, 3))).rows.matrix.tolist() == [[1, 2, 3]]
        with pytest.raises(RequestError, match="25 bytes of binary data, and the inputs name 24"):
            self.request(plain, (matrix, bytes(24)), extra=b"x")
        head = body({**matrix, "parameters": {"binary_data_size": 24}})
        with pytest.raises(RequestError, match="ends 1 bytes too soon"):
            parse_infer(head + bytes(23), plain, json_length=len(head))
        with pytest.raises(RequestError, match="Inference-Header-Content-Length is 500"):
            parse_infer(head, plain, json_length=500)


class TestMetadata:
    def test_server(self) -> None:
        assert server_metadata("1.2") == {"name": "millpond", "version": "1.2", "extensions": list(EXTENSIONS)}

    def test_model(self, served: ServedModel) -> None:
        document = model_metadata(served)
        assert (document["name"], document["versions"], document["platform"]) == ("late_arrival", ["3"], "millpond")
        assert [(each["name"], each["datatype"], each["shape"]) for each in document["inputs"]] == [
            ("origin", "BYTES", [-1]),
            ("scheduled_at", "BYTES", [-1]),
            ("distance", "FP64", [-1]),
            ("seats", "INT64", [-1]),
            ("weekend", "BOOL", [-1]),
        ]
        assert document["inputs"][1]["parameters"] == {
            "role": "request",
            "type": "instant",
            "required": True,
            "at": True,
        }
        assert document["outputs"][2] == {"name": "answer", "datatype": "BOOL", "shape": [-1]}
        assert document["parameters"] == {
            "task": "classification",
            "threshold": 0.5,
            "at": "scheduled_at",
            "raw_inputs": [
                {"name": "distance", "datatype": "FP64", "shape": [-1]},
                {"name": "seats", "datatype": "INT64", "shape": [-1]},
            ],
        }

    def test_a_model_without_names(self, plain: ServedModel) -> None:
        assert model_metadata(replace(plain, matrix=True))["inputs"] == [
            {"name": "input", "datatype": "FP64", "shape": [-1, 3]}
        ]
        assert "raw_inputs" not in model_metadata(plain)["parameters"]

    def test_the_repository(self) -> None:
        states = [ModelState("a", "1", "READY"), ModelState("b", "2", "UNAVAILABLE", "it is loading")]
        assert repository_index(states)[1] == {
            "name": "b",
            "version": "2",
            "state": "UNAVAILABLE",
            "reason": "it is loading",
        }
        assert [each["name"] for each in repository_index(states, ready=True)] == ["a"]
        assert [parse_index(each) for each in (b"", b"{}", b'{"ready": true}')] == [False, False, True]
        for broken in (b"[]", b'{"ready": 1}', b"{"):
            with pytest.raises(RequestError):
                parse_index(broken)
