from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from millpond.core.errors import PayloadTooLarge, RequestError
from millpond.serving.ports import Answer, Explanation, OutputColumn, ServedModel
from millpond.serving.protocol import error_body, error_sentence, format_records, parse_records

INSTANT = "2013-12-01T08:00:00Z"
AT = 1_385_884_800_000_000


def body(*rows: Any, **fields: Any) -> bytes:
    return json.dumps({"rows": list(rows), **fields}).encode()


@pytest.fixture
def unnamed() -> ServedModel:
    outputs = (OutputColumn("v", "float64", 2), OutputColumn("id", "string"))
    return ServedModel("own", 2, "other", None, (), None, {"a": "float64", "b": "float64"}, outputs, matrix=True)


def test_rows_of_columns(served: ServedModel) -> None:
    first = {"origin": "JFK", "scheduled_at": INSTANT, "distance": 187, "weekend": True}
    second = {"origin": "EWR", "scheduled_at": INSTANT, "seats": 3}
    request = parse_records(body(first, second, as_of=INSTANT, id="r", explain=True, routing_key="k"), served)
    assert request.rows.columns == {
        "origin": ["JFK", "EWR"],
        "scheduled_at": [AT, AT],
        "distance": [187.0, None],
        "seats": [None, 3],
        "weekend": [True, None],
    }
    assert (request.raw, request.as_of, request.id, request.explain, request.routing_key) == (False, AT, "r", True, "k")


@pytest.mark.parametrize("rows", [[[1, 2.5], [None, 4]], [{"a": 1, "b": 2.5}, {"b": 4}]])
def test_rows_for_a_model_without_names(unnamed: ServedModel, rows: list[Any]) -> None:
    request = parse_records(body(*rows), unnamed)
    assert request.raw
    assert [request.rows.values(row) for row in (0, 1)] == [{"a": 1.0, "b": 2.5}, {"a": None, "b": 4.0}]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty"),
        (b"{", "not JSON"),
        (b"[]", "JSON array"),
        (b"{}", "rows is missing"),
        (b'{"rows": {}}', "rows is a JSON object"),
        (body(), "no rows"),
        (body({}), "no columns"),
        (body(3), "row 0 is a JSON number"),
        (body({"origin": "JFK"}), "'scheduled_at' is missing"),
        (body({"origin": "JFK", "scheduled_at": INSTANT}, {"origin": "JFK"}), "'scheduled_at' is null in row 1"),
        (body({"orign": "JFK", "scheduled_at": INSTANT}), "no input 'orign'"),
        (body({"origin": 3, "scheduled_at": INSTANT}), "'origin' in row 0: found 3"),
        (body({"origin": "JFK", "scheduled_at": INSTANT, "seats": 1.5}), "expected a whole number"),
        (body({"origin": "JFK", "scheduled_at": INSTANT}, asof=INSTANT), "no field 'asof'"),
        (body({"origin": "JFK", "scheduled_at": INSTANT}, as_of="x"), "parameters.as_of is 'x'"),
        (body({"origin": "JFK", "scheduled_at": INSTANT}, id=3), "id is 3"),
        (body({"origin": "JFK", "scheduled_at": INSTANT}, explain="yes"), "explain is 'yes'"),
    ],
)
def test_are_refused(served: ServedModel, content: bytes, what: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_records(content, served)
    assert what in caught.value.what
    assert "late_arrival" in caught.value.where


def test_too_many(served: ServedModel) -> None:
    with pytest.raises(PayloadTooLarge):
        parse_records(body(*[{"origin": "JFK", "scheduled_at": INSTANT}] * 3), served, max_rows=2)


def test_predictions_are_records(served: ServedModel) -> None:
    request = parse_records(body({"origin": "JFK", "scheduled_at": INSTANT}, id="r", as_of=INSTANT), served)
    explanation = Explanation(-1.5, np.array([[0.5, 0.25]]), "log-odds")
    answer = Answer(served, "canary", ["p_1"], {"output": np.array([0.7])}, [True], [AT], AT, explanation)
    assert json.loads(format_records(request, answer)) == {
        "model": "late_arrival",
        "version": 3,
        "variant": "canary",
        "id": "r",
        "as_of": INSTANT,
        "features_synced_at": INSTANT,
        "contributions_unit": "log-odds",
        "predictions": [
            {
                "id": "p_1",
                "probability": 0.7,
                "answer": True,
                "as_of": INSTANT,
                "contributions": {"distance": 0.5, "seats": 0.25},
                "base": -1.5,
            }
        ],
    }


def test_outputs_of_a_models_own(unnamed: ServedModel) -> None:
    request = parse_records(body([1, 2]), unnamed)
    outputs: dict[str, Any] = {"v": np.array([[1.0, np.nan]]), "id": ["x"]}
    answer = Answer(unnamed, "live", ["p_1"], outputs, None, [AT])
    (prediction,) = json.loads(format_records(request, answer))["predictions"]
    assert prediction == {"id": "p_1", "outputs": {"v": [1.0, None], "id": "x"}, "as_of": INSTANT}


def test_errors_of_ours_are_told_and_others_stay_inside() -> None:
    told = json.loads(error_body(RequestError("it is wrong", where="there", hint="mend \ud800")))
    assert told == {
        "error": "it is wrong (there); mend \ud800",
        "type": "RequestError",
        "what": "it is wrong",
        "where": "there",
        "hint": "mend \ud800",
    }
    inside = error_body(KeyError("secret"), id="e_1")
    assert b"secret" not in inside
    assert json.loads(inside)["id"] == "e_1"
    assert error_sentence(KeyError("secret"), id="e_1").endswith("[e_1]")
