"""Registered models in batches: by a process of their own, with outputs of any kind, and receipts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from mlflow.models import infer_signature
from sklearn.neighbors import KNeighborsRegressor

from millpond.core.errors import MillpondError, NotFound
from millpond.platform import logged, release, versions
from millpond.platform.batch import predict_batch
from millpond.platform.platform import Platform, open_project
from millpond.platform.predictions import flush, predict_rows
from millpond.platform.receipts import find, trace
from millpond.platform.register import register

pytestmark = pytest.mark.slow

DEFINITIONS = """
import millpond as mp

points = mp.Table("points", key="id")
"""
ROWS = 300


def mixed() -> Any:
    """A model of a class that is pickled by value, with a number, a whole number, a text and a vector."""

    class Mixed(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            a = model_input["a"].to_numpy()
            if (a == 17).any():
                raise ValueError("seventeen")
            text = [None if each < 3 else f"n{each:.0f}" for each in a]
            return pd.DataFrame(
                {"twice": a * 2, "floor": np.floor(a).astype("int64"), "version": text, "as_of": a > 5, "model": a / 2}
            )

    return Mixed()


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    folder = tmp_path_factory.mktemp("registered")
    (folder / "millpond.toml").write_text('[project]\nname = "p"\n')
    (folder / "definitions.py").write_text(DEFINITIONS)
    made = open_project(folder)
    numbers = np.arange(ROWS)
    rows = {"id": numbers, "a": numbers / 7 + 20, "b": (numbers * 31 % 17).astype(float), "unused": ["x"] * ROWS}
    made.lake.overwrite("points", pa.table(rows))
    return made


def read(platform: Platform, table: str, by: str = "id") -> pa.Table:
    with platform.engine() as engine:
        return engine.reader(f"SELECT * FROM {engine.scan(platform.lake.snapshot(table))} ORDER BY {by}").read_all()


def test_neighbours(platform: Platform, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    given = pd.DataFrame({"a": random.random(50) * 60, "b": random.random(50) * 17})
    model = KNeighborsRegressor(3).fit(given, np.column_stack([given["a"], given["b"]]))
    signature = infer_signature(given, model.predict(given))
    mlflow.sklearn.save_model(
        model, tmp_path / "m", signature=signature, pip_requirements=[], serialization_format="cloudpickle"
    )
    version = register(platform, str(tmp_path / "m"), "near")
    [output] = versions.served_model(platform, version).outputs
    assert output.width == 2
    written = predict_batch(platform, "near", "points", "near_points", version=1, part_rows=130)
    assert written.rows == ROWS
    found, points = read(platform, "near_points"), read(platform, "points")
    expected = model.predict(points.select(["a", "b"]).to_pandas())
    assert found["id"].to_pylist() == list(range(ROWS))
    assert np.array_equal(np.array(found[output.name].to_pylist()), expected)
    receipt = trace(platform, found["prediction_id"][7].as_py())
    assert {each.name: each.value for each in receipt.inputs} == {"a": 21.0, "b": 13.0}
    assert receipt.request == {"a": 21.0, "b": 13.0}


def register_mixed(platform: Platform, folder: Path, name: str) -> None:
    rows = pd.DataFrame({"a": [1.0, 7.0]})
    mlflow.pyfunc.save_model(
        folder,
        python_model=mixed(),
        signature=infer_signature(rows, mixed().predict(None, rows)),
        input_example=rows,
        pip_requirements=["pandas"],
    )
    register(platform, str(folder), name)


def test_single_rows_are_answered_logged_and_traced(platform: Platform, tmp_path: Path) -> None:
    register_mixed(platform, tmp_path / "m", "kinds")
    with pytest.raises(NotFound, match="No version of model 'kinds' serves") as none:
        predict_rows(platform, "kinds", [{"a": 1}])
    assert none.value.hint == "deploy one: millpond deploy kinds 1"
    release.promote(platform, "kinds", 1, why="try it")
    first, second = predict_rows(platform, "kinds", [{"a": "1"}, {"a": 7.5}])
    assert dict(first.outputs) == {"twice": 2.0, "floor": 1, "version": None, "as_of": False, "model": 0.5}
    assert dict(second.outputs) == {"twice": 15.0, "floor": 7, "version": "n8", "as_of": True, "model": 3.75}
    assert (first.output, first.answer) == (2.0, None)
    assert find(platform, first.id) == (first, True)
    assert flush(platform) == 2
    assert find(platform, second.id) == (second, True)
    assert {each.name: each.value for each in trace(platform, second.id).inputs} == {"a": 7.5}
    with pytest.raises(MillpondError, match="seventeen"):
        predict_rows(platform, "kinds", [{"a": 17}])
    lines = logged.newest(platform, "kinds", 10)
    assert {each.id: each.outputs for each in lines} == {each.id: each.outputs for each in (first, second)}
    assert trace(platform, first.id).outputs == first.outputs


def test_outputs_of_every_kind(platform: Platform, tmp_path: Path) -> None:
    register_mixed(platform, tmp_path / "m", "mixed")
    platform.lake.overwrite("some", pa.table({"id": [0, 1, 2], "a": [1.0, 7.5, 4.0]}))
    written = predict_batch(platform, "mixed", "some", "mixed_some", version=1)
    names = ("prediction_id", "twice", "floor", "output_version", "output_as_of", "output_model", "model", "version")
    assert written.column_names[: len(names)] == names
    assert read(platform, "mixed_some", "floor").select(names[1:]).to_pydict() == {
        "twice": [2.0, 8.0, 15.0],
        "floor": [1, 4, 7],
        "output_version": [None, "n4", "n8"],
        "output_as_of": [False, False, True],
        "output_model": [0.5, 2.0, 3.75],
        "model": ["mixed"] * 3,
        "version": [1] * 3,
    }
    platform.lake.overwrite("points_17", pa.table({"id": range(40), "a": [float(each) for each in range(40)]}))
    with pytest.raises(MillpondError, match="seventeen") as failed:
        predict_batch(platform, "mixed", "points_17", "never", version=1, part_rows=10)
    assert "row 17 of points_17@" in failed.value.where
    assert "in part 2 of 4" in failed.value.where
