from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from millpond.core.errors import MillpondError, RequestError, Unavailable
from millpond.serving.columns import conform
from millpond.serving.log.drain import find
from millpond.serving.log.spool import PredictionLog
from millpond.serving.ports import ServedModel
from millpond.serving.predictor import Predictor


class Constant:
    def __init__(self, *outputs: float) -> None:
        self.outputs = outputs

    def predict(self, inputs: pa.Table) -> dict[str, Any]:
        return {"output": list(self.outputs)}


def test_every_answer_is_in_the_log(predictor: Predictor, rows: pa.Table, spool: Path) -> None:
    before = datetime.now(UTC)
    first, second = predictor.predict(rows, None, "ann")
    assert (first.output, first.answer) == (0.1875, False)
    assert (second.output, second.answer) == (0.7, True)
    assert first.id != second.id
    assert first.inputs == {"distance": 187.5, "seats": None}
    assert first.request["origin"] == "JFK"
    assert first.as_of == datetime(2013, 12, 1, 8, tzinfo=UTC)
    assert (first.requested_by, first.snapshots) == ("ann", {"flights": 42})
    assert before <= first.predicted_at <= datetime.now(UTC)
    assert first.latency_ms > 0
    found = find(spool, second.id)
    assert found is not None
    model, table = found
    [row] = table.to_pylist()
    assert model == row["model"] == "late_arrival"
    assert (row["prediction_id"], row["output"], row["version"]) == (second.id, 0.7, 3)
    assert {name: row[f"input__{name}"] for name in second.inputs} == second.inputs
    assert {name: row[f"request__{name}"] for name in second.request} == second.request
    assert json.loads(row["snapshots"]) == {"flights": 42}


def test_a_probability_at_the_threshold_is_yes(make_predictor: Any, served: ServedModel, rows: pa.Table) -> None:
    made = make_predictor(served, runtime=Constant(0.5, 0.4999999999999999)).predict(rows, None, "ann")
    assert [each.answer for each in made] == [True, False]


def test_regression_has_no_answer(make_predictor: Any, make_served: Any, rows: pa.Table) -> None:
    (first, _) = make_predictor(make_served("regression")).predict(rows, None, "ann")
    assert first.answer is None


def test_features_that_are_not_the_models(make_predictor: Any, make_served: Any, rows: pa.Table) -> None:
    import dataclasses

    featurizer_of_another = make_served()
    served = dataclasses.replace(featurizer_of_another, inputs={"distance": "float64"})
    from_request = make_predictor(featurizer_of_another).featurizer
    with pytest.raises(MillpondError, match="expected 2 rows of"):
        make_predictor(served, featurizer=from_request).predict(rows, None, "ann")


def test_what_cannot_be_logged_is_not_answered(
    make_predictor: Any, served: ServedModel, rows: pa.Table, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="prediction log"):
        make_predictor(served, log=PredictionLog(tmp_path / "file")).predict(rows, None, "ann")


class TestConform:
    def test_casts_that_change_nothing(self, served: ServedModel, rows: pa.Table) -> None:
        loose = pa.table(
            {
                "seats": pa.array([1, 2], pa.int8()),
                "distance": pa.array([1, 2], pa.int32()),
                "origin": pa.array(["JFK", "EWR"]).dictionary_encode(),
                "scheduled_at": pa.array([0, 1], pa.timestamp("s", "America/New_York")),
            }
        )
        found = conform(loose, served)
        assert found.column_names == ["origin", "scheduled_at", "distance", "seats", "weekend"]
        assert [str(field.type) for field in found.schema] == [
            "string",
            "timestamp[us, tz=UTC]",
            "double",
            "int64",
            "bool",
        ]
        assert found.column("distance").to_pylist() == [1.0, 2.0]
        assert found.column("weekend").null_count == 2

    def test_decimals_are_floats(self, served: ServedModel, rows: pa.Table) -> None:
        prices = pa.array([Decimal("187.25"), Decimal("0.10")], pa.decimal128(10, 2))
        found = conform(rows.set_column(2, "distance", prices), served)
        assert found.column("distance").to_pylist() == [187.25, 0.1]

    def test_nan_is_null(self, served: ServedModel, rows: pa.Table) -> None:
        found = conform(rows.set_column(2, "distance", pa.array([float("nan"), 1.0])), served)
        assert found.column("distance").to_pylist() == [None, 1.0]

    @pytest.mark.parametrize(
        ("name", "values", "what"),
        [
            ("distance", pa.array(["1", "2"]), "holds string, and the model takes float64"),
            ("distance", pa.array([2**53 + 1, 0]), "holds int64, and the model takes float64"),
            ("seats", pa.array([1.5, 2.0]), "holds double, and the model takes int64"),
            ("weekend", pa.array([1, 0]), "holds int64, and the model takes bool"),
            ("origin", pa.array([1, 2]), "holds int64, and the model takes string"),
            ("origin", pa.array(["JFK", None]), "null in 1 of 2 rows, first in row 1"),
            ("origin", pa.nulls(2), "null in 2 of 2 rows, first in row 0"),
            ("scheduled_at", pa.array([0, 1], pa.timestamp("us")), "name no time zone"),
            ("scheduled_at", pa.array(["2013", "2014"]), "holds string, and the model takes instant"),
            ("distanse", pa.array([1.0, 2.0]), "no column 'distanse'"),
        ],
    )
    def test_refuses(self, served: ServedModel, rows: pa.Table, name: str, values: Any, what: str) -> None:
        columns = {**{each: rows.column(each) for each in rows.column_names}, name: values}
        with pytest.raises(RequestError) as caught:
            conform(pa.table(columns), served)
        assert what in caught.value.what
        assert "late_arrival" in caught.value.where
        assert caught.value.hint

    def test_refuses_missing_columns_and_rows(self, served: ServedModel, rows: pa.Table) -> None:
        with pytest.raises(RequestError, match="'scheduled_at' is missing"):
            conform(rows.drop_columns(["scheduled_at"]), served)
        with pytest.raises(RequestError, match="no rows"):
            conform(rows.slice(0, 0), served)
        with pytest.raises(RequestError, match="twice"):
            conform(rows.append_column("origin", rows.column("origin")), served)
