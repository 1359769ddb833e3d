from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from millpond.core.errors import RequestError
from millpond.serving.batch import answer_table, model_outputs, output_columns, output_schema
from millpond.serving.ports import OutputColumn, ServedModel

AT = datetime(2013, 12, 1, 8, tzinfo=UTC)
ABOUT = ("model", "version", "as_of", "snapshots", "predicted_at")
KEYS = pa.table({"flight_id": [7, 8]})


def answers(served: ServedModel, outputs: dict[str, Any]) -> pa.Table:
    made = answer_table(
        served,
        output_schema(served, list(KEYS.schema)),
        KEYS,
        ids=["p_x-0", "p_x-1"],
        outputs=outputs,
        as_of=pa.array([AT, AT], pa.timestamp("us", "UTC")),
        snapshots='{"flights": 42}',
        predicted_at=AT,
    )
    made.validate(full=True)
    assert made.column_names == ["flight_id", *output_columns(served)]
    return made


def test_of_a_classification(make_served: Any) -> None:
    served = make_served()
    assert output_columns(served) == ("prediction_id", "probability", "answer", *ABOUT)
    found = answers(served, {"output": np.array([served.threshold, served.threshold / 2])})
    assert found["answer"].to_pylist() == [True, False]
    assert found["flight_id"].to_pylist() == [7, 8]
    assert found["prediction_id"].to_pylist() == ["p_x-0", "p_x-1"]
    assert found["as_of"].to_pylist() == found["predicted_at"].to_pylist() == [AT, AT]
    assert set(found["snapshots"].to_pylist()) == {'{"flights": 42}'}


def test_of_a_regression(make_served: Any) -> None:
    served = make_served("regression")
    assert output_columns(served) == ("prediction_id", "prediction", *ABOUT)
    assert answers(served, {"output": [1.5, 2.5]})["prediction"].to_pylist() == [1.5, 2.5]


def test_of_a_registered_model() -> None:
    outputs = (OutputColumn("near", "float64", 2), OutputColumn("model", "string"), OutputColumn("as_of", "int64"))
    served = ServedModel("own", 1, "other", None, (), None, {}, outputs)
    assert model_outputs(served) == {"near": "near", "output_model": "model", "output_as_of": "as_of"}
    near = np.array([[1.0, np.nan], [3.0, 4.0]])
    found = answers(served, {"near": near, "model": ["x", None], "as_of": [None, 5]})
    assert found["near"].to_pylist() == [[1.0, None], [3.0, 4.0]]
    assert found["output_model"].to_pylist() == ["x", None]
    assert found["output_as_of"].to_pylist() == [None, 5]
    assert found["model"].to_pylist() == ["own", "own"]


def test_a_key_with_the_name_of_an_output_is_refused(make_served: Any) -> None:
    with pytest.raises(RequestError, match="has the name of an output"):
        output_schema(make_served(), [pa.field("answer", pa.bool_())])
