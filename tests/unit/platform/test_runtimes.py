from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from millpond.core.errors import DataError, MillpondError
from millpond.platform.runtimes import VersionRuntime
from millpond.serving.ports import OUTPUT, OutputColumn, ServedModel

ROWS = pa.table({"distance": [1.0, 2.0]})


def runtime(model: Any, outputs: tuple[OutputColumn, ...] = (OUTPUT,)) -> VersionRuntime:
    task = "regression" if outputs == (OUTPUT,) else "other"
    served = ServedModel("late_arrival", 3, task, None, (), None, {"distance": "float64"}, outputs)
    return VersionRuntime(served, "compiled", model)


@pytest.mark.parametrize("answers", [[0.5, float("nan")], [0.5, float("inf")], [0.5], [[0.1, 0.2], [0.3, 0.4]]])
def test_answers_of_a_trained_version_that_are_none(answers: Any) -> None:
    with pytest.raises(MillpondError, match="version 3 of model 'late_arrival'"):
        runtime(lambda _rows: {"output": answers}).predict(ROWS)


def test_a_registered_version_answers_as_it_likes() -> None:
    told = {"label": ["a", None], "score": [float("nan"), 1.0]}
    outputs = (OutputColumn("label", "string"), OutputColumn("score", "float64"))
    assert runtime(lambda _rows: told, outputs).predict(ROWS) is told


def test_errors_name_the_version() -> None:
    def fails(_rows: Any) -> Any:
        raise ValueError("no seats")

    def refuses(_rows: Any) -> Any:
        raise DataError("seats is infinite")

    with pytest.raises(MillpondError, match="version 3 of model 'late_arrival' failed: ValueError: no seats") as caught:
        runtime(fails).predict(ROWS)
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(DataError, match="seats is infinite"):
        runtime(refuses).predict(ROWS)
