from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from millpond.core.errors import PayloadTooLarge, RequestError
from millpond.serving.metadata import model_metadata, server_metadata
from millpond.serving.ports import RequestColumn, ServedModel
from millpond.serving.protocol import format_response, parse_request

INSTANT = "2013-12-01T08:00:00Z"


def tensor(name: str, datatype: str, *data: Any, shape: Any = None) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(data)] if shape is None else shape, "data": list(data)}


ORIGIN = tensor("origin", "BYTES", "JFK")
TIME = tensor("scheduled_at", "BYTES", INSTANT)


def body(*inputs: Any, **fields: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **fields}).encode()


def refused(served: ServedModel, content: bytes, *, max_rows: int = 100) -> RequestError:
    with pytest.raises(RequestError) as caught:
        parse_request(content, served, max_rows=max_rows)
    error = caught.value
    assert "late_arrival" in error.where
    assert error.hint or "data" in error.what
    return error


class TestAccepted:
    def test_all_columns(self, served: ServedModel) -> None:
        request = parse_request(
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
        assert request.rows.to_pylist() == [
            {
                "origin": "JFK",
                "scheduled_at": datetime(2013, 12, 1, 8, tzinfo=UTC),
                "distance": 187.5,
                "seats": 180,
                "weekend": True,
            }
        ]
        assert (request.id, request.as_of) == ("r1", None)
        assert request.outputs == ("prediction_id", "probability", "answer", "as_of")

    def test_absent_and_null_optional_inputs_are_null(self, served: ServedModel) -> None:
        request = parse_request(body(ORIGIN, TIME, tensor("distance", "FP32", None)), served)
        (row,) = request.rows.to_pylist()
        assert (row["distance"], row["seats"], row["weekend"]) == (None, None, None)

    @pytest.mark.parametrize("data", [[1.5, 2.5], [[1.5], [2.5]]])
    def test_a_column_vector_flat_or_nested(self, served: ServedModel, data: list[Any]) -> None:
        distance = {"name": "distance", "datatype": "FP64", "shape": [2, 1], "data": data}
        rows = parse_request(
            body(tensor("origin", "BYTES", "JFK", "EWR"), tensor("scheduled_at", "BYTES", INSTANT, INSTANT), distance),
            served,
        ).rows
        assert rows.column("distance").to_pylist() == [1.5, 2.5]

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
        rows = parse_request(body(ORIGIN, TIME, tensor("distance", datatype, value)), served).rows
        assert rows.column("distance").to_pylist() == [expected]

    @pytest.mark.parametrize(
        ("datatype", "value"), [("UINT8", 255), ("FP64", 180.0), ("FP16", 2048), ("INT64", -(2**63)), ("INT64", 7.0)]
    )
    def test_numbers_for_an_integer_column(self, served: ServedModel, datatype: str, value: float) -> None:
        rows = parse_request(body(ORIGIN, TIME, tensor("seats", datatype, value)), served).rows
        assert rows.column("seats").to_pylist() == [int(value)]

    def test_an_offset_is_read(self, served: ServedModel) -> None:
        rows = parse_request(body(ORIGIN, tensor("scheduled_at", "BYTES", "2013-12-01T03:00:00.5-05:00")), served).rows
        (found,) = rows.column("scheduled_at").to_pylist()
        assert found == datetime(2013, 12, 1, 3, 0, 0, 500_000, tzinfo=timezone(timedelta(hours=-5)))

    def test_unknown_parameters_are_ignored(self, served: ServedModel) -> None:
        assert parse_request(body(ORIGIN, TIME, parameters={"binary_data_output": True}), served).as_of is None


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
            (b'{"inputs": [], "inputs": []}', "'inputs' twice"),
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
        request = parse_request(body(ORIGIN, parameters={"as_of": "2013-12-01T09:00:00+01:00"}), served)
        assert request.as_of == datetime(2013, 12, 1, 8, tzinfo=UTC)

    @pytest.mark.parametrize("value", ["2013-12-01T08:00:00", "noon", 7, ""])
    def test_as_of_is_an_instant(self, served: ServedModel, value: Any) -> None:
        assert "parameters.as_of" in refused(served, body(ORIGIN, TIME, parameters={"as_of": value})).what

    @pytest.mark.parametrize("name", ["asof", "as-of", "AS_OF", "asOf"])
    def test_a_misspelt_as_of(self, served: ServedModel, name: str) -> None:
        assert "as_of" in refused(served, body(ORIGIN, TIME, parameters={name: INSTANT})).hint

    def test_are_an_object(self, served: ServedModel) -> None:
        assert "JSON array" in refused(served, body(ORIGIN, TIME, parameters=[])).what

    def test_may_differ_from_the_instant_of_a_row(self, served: ServedModel) -> None:
        request = parse_request(body(ORIGIN, TIME, parameters={"as_of": "2013-12-02T00:00:00Z"}), served)
        assert request.as_of == datetime(2013, 12, 2, tzinfo=UTC)


class TestOutputs:
    def test_a_selection_in_its_order(self, served: ServedModel, make_prediction: Any) -> None:
        wanted = [{"name": "answer"}, {"name": "probability", "parameters": {"binary_data": False}}]
        request = parse_request(body(ORIGIN, TIME, outputs=wanted, id="r 1"), served)
        assert json.loads(format_response(request, served, [make_prediction(7)])) == {
            "model_name": "late_arrival",
            "model_version": "3",
            "id": "r 1",
            "outputs": [
                {"name": "answer", "datatype": "BOOL", "shape": [1], "data": [False]},
                {"name": "probability", "datatype": "FP64", "shape": [1], "data": [1.0]},
            ],
        }

    @pytest.mark.parametrize(
        ("outputs", "what"),
        [
            ([{"name": "probabilty"}], "no output 'probabilty'"),
            ([{"name": "prediction"}], "no output 'prediction'"),
            ([{"name": "answer"}, {"name": "answer"}], "twice"),
            ([{}], "expected an object with a name"),
            (["answer"], "expected an object with a name"),
            ("answer", "JSON string"),
        ],
    )
    def test_are_refused(self, served: ServedModel, outputs: Any, what: str) -> None:
        assert what in refused(served, body(ORIGIN, TIME, outputs=outputs)).what

    def test_as_of_is_told_back(self, served: ServedModel, make_prediction: Any) -> None:
        request = parse_request(body(ORIGIN, TIME, parameters={"as_of": INSTANT}), served)
        answer = json.loads(format_response(request, served, [make_prediction()]))
        assert answer["parameters"] == {"as_of": INSTANT}
        assert "id" not in answer

    def test_regression(self, make_served: Any, make_prediction: Any) -> None:
        served = make_served("regression")
        request = parse_request(body(ORIGIN, TIME), served)
        answer = json.loads(format_response(request, served, [make_prediction(7, answer=None)]))
        assert [each["name"] for each in answer["outputs"]] == ["prediction_id", "prediction", "as_of"]
        assert answer["outputs"][1] == {"name": "prediction", "datatype": "FP64", "shape": [1], "data": [1.0]}


class TestMetadata:
    def test_server(self) -> None:
        assert server_metadata("1.2") == {"name": "millpond", "version": "1.2", "extensions": []}

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
        assert document["parameters"] == {"task": "classification", "threshold": 0.5, "at": "scheduled_at"}
