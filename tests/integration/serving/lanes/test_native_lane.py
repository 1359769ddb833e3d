"""Models of several MLflow flavours, served natively in a process, answer as they do by themselves."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from millpond.core.errors import MillpondError, Unavailable
from millpond.serving.lanes.command import native_command
from millpond.serving.ports import OUTPUT, OutputColumn, ServedModel
from millpond.serving.rows import Rows
from millpond.training.frame import to_frame

pytestmark = pytest.mark.slow

INPUTS = {"carrier": "string", "distance": "float64", "seats": "int64", "weekend": "bool"}

WithLane = Callable[..., Any]


def served(
    task: str = "classification",
    inputs: Mapping[str, str] = INPUTS,
    outputs: tuple[OutputColumn, ...] = (OUTPUT,),
    matrix: bool = False,
) -> ServedModel:
    threshold = 0.5 if task == "classification" else None
    return ServedModel("late_arrival", 3, task, threshold, (), None, inputs, outputs, matrix)


@pytest.fixture(scope="module")
def rows() -> Rows:
    chance = np.random.default_rng(0)
    return Rows.of(
        {
            "distance": chance.normal(800, 300, 640).tolist(),
            "seats": [None if each < 20 else int(each) for each in chance.integers(0, 300, 640)],
            "carrier": [None if each == 3 else f"C{each}" for each in chance.integers(0, 4, 640)],
            "weekend": [bool(each) for each in chance.integers(0, 2, 640)],
        }
    )


@pytest.fixture(scope="module")
def frame(rows: Rows) -> pd.DataFrame:
    import pyarrow as pa

    types = {"float64": pa.float64(), "int64": pa.int64(), "string": pa.string(), "bool": pa.bool_()}
    return to_frame(rows.to_arrow(pa.schema([(name, types[kind]) for name, kind in INPUTS.items()])), INPUTS)


@pytest.fixture(scope="module")
def mixed(frame: pd.DataFrame) -> Any:
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    columns = make_column_transformer((encoder, ["carrier"]), remainder="passthrough")
    model = make_pipeline(columns, HistGradientBoostingClassifier(max_iter=20))
    return model.fit(frame, (frame["distance"] > 800) | (frame["carrier"] == "C1"))


def command(directory: Path, model: ServedModel) -> tuple[str, ...]:
    return native_command(Path(sys.executable), directory, model)


def ones(rows: Rows) -> list[Rows]:
    return [rows.slice(row, row + 1) for row in range(rows.count)]


def outputs(replies: list[Any], name: str = "output") -> list[Any]:
    return [reply.rows.columns[name][0] for reply in replies]


def test_a_mixed_pipeline_answers_as_it_does_by_itself_in_few_calls(
    with_lane: WithLane, mixed: Any, rows: Rows, frame: pd.DataFrame, tmp_path: Path
) -> None:
    import mlflow.sklearn

    directory = tmp_path / "model"
    mlflow.sklearn.save_model(
        mixed,
        str(directory),
        serialization_format="cloudpickle",
        pip_requirements=["scikit-learn"],
        metadata={"millpond": {"task": "classification"}},
    )
    expected = mixed.predict_proba(frame)[:, 1]

    async def test(asking: Any) -> None:
        left = iter(ones(rows))

        async def client() -> None:
            for one in left:
                assert not isinstance(await asking.submit(one), Exception)

        await asyncio.gather(*(client() for _ in range(64)))
        counts = asking.lane.counts
        assert counts.requests == 640
        assert counts.calls * 5 <= counts.requests  # of 64 clients; single calls would be 640
        whole = await asking.submit(rows)
        assert whole.rows.columns["output"].tolist() == expected.tolist()
        single = await asyncio.gather(*(asking.submit(one) for one in ones(rows)))
        assert outputs(single) == expected.tolist()
        assert not Path(f"/proc/{asking.lane.pid}/maps").read_text().count("mlflow")

    with_lane(test, command=command(directory, served()))


def test_a_class_of_ones_own_with_named_outputs(with_lane: WithLane, tmp_path: Path) -> None:
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    class Greeting(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
            if (model_input["carrier"] == "bad").any():
                raise KeyError("no such carrier")
            assert [str(each) for each in model_input.dtypes[1:]] == ["float32", "int32", "bool"]
            return pd.DataFrame(
                {
                    "greeting": "hello " + model_input["carrier"],
                    "length": model_input["carrier"].str.len(),
                    "short": model_input["carrier"].str.len() < 3,
                    "place": [[1.0, float(len(each))] for each in model_input["carrier"]],
                }
            )

    directory = tmp_path / "model"
    columns = {"carrier": "string", "distance": "float", "seats": "integer", "weekend": "boolean"}
    signature = ModelSignature(Schema([ColSpec(kind, name) for name, kind in columns.items()]))
    mlflow.pyfunc.save_model(str(directory), python_model=Greeting(), signature=signature, pip_requirements=["pandas"])
    told = (
        OutputColumn("greeting", "string"),
        OutputColumn("length", "int64"),
        OutputColumn("short", "bool"),
        OutputColumn("place", "float64", 2),
    )

    async def test(asking: Any) -> None:
        requests = [
            Rows.of({"seats": [3], "weekend": [True], "distance": [1.5], "carrier": [each]})
            for each in ("ann", "bad", "bo")
        ]
        ann, bad, bo = await asyncio.gather(*map(asking.submit, requests))
        assert ann.rows.names == ("greeting", "length", "short", "place")
        assert ann.rows.columns["greeting"] == ["hello ann"]
        assert [bo.rows.columns[name][0] for name in ("length", "short")] == [2, True]
        assert bo.rows.columns["place"].tolist() == [[1.0, 2.0]]
        assert type(bad) is MillpondError
        assert bad.what == "version 3 of model 'x' failed: KeyError: 'no such carrier'"

    with_lane(test, command=command(directory, served("other", INPUTS, told)))


def test_a_model_of_one_unnamed_tensor(with_lane: WithLane, tmp_path: Path) -> None:
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    class Doubling(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
            assert isinstance(model_input, np.ndarray)
            return model_input * 2

    kind = np.dtype("float32")
    signature = ModelSignature(Schema([TensorSpec(kind, (-1, 3))]), Schema([TensorSpec(kind, (-1, 3))]))
    directory = tmp_path / "model"
    mlflow.pyfunc.save_model(str(directory), python_model=Doubling(), signature=signature, pip_requirements=["numpy"])
    inputs = {f"input_{number}": "float64" for number in range(3)}
    model = served("other", inputs, (OutputColumn("output", "float64", 3),), matrix=True)

    async def test(asking: Any) -> None:
        matrix = np.arange(12.0).reshape(4, 3)
        one = asking.submit(Rows(4, tuple(inputs), matrix=matrix))
        two = asking.submit(Rows.of({name: [1.0] for name in inputs}))
        assert (await one).rows.columns["output"].tolist() == (matrix * 2).tolist()
        assert (await two).rows.columns["output"].tolist() == [[2.0, 2.0, 2.0]]
        assert asking.lane.counts.calls == 1

    with_lane(test, command=command(directory, model))


def test_an_estimator_that_was_registered_by_somebody_else(
    with_lane: WithLane, frame: pd.DataFrame, rows: Rows, tmp_path: Path
) -> None:
    import mlflow.sklearn
    from sklearn.linear_model import LogisticRegression

    numbers = frame[["distance", "weekend"]]
    labels = np.where(frame["distance"] > 900, "far", "near")
    model = LogisticRegression().fit(numbers, labels)
    directory = tmp_path / "model"
    mlflow.sklearn.save_model(model, str(directory), pip_requirements=["scikit-learn"])  # skops, no signature
    inputs = {"distance": "float64", "weekend": "bool"}
    given = Rows.of({name: rows.columns[name] for name in inputs})

    async def test(asking: Any) -> None:
        reply = await asking.submit(given)
        assert reply.rows.columns["label"] == model.predict(numbers).tolist()
        assert set(reply.rows.columns["label"]) == {"far", "near"}

    told = (OutputColumn("label", "string"),)
    with_lane(test, command=command(directory, served("other", inputs, told)))


def test_an_artifact_that_is_corrupt(with_lane: WithLane, mixed: Any, rows: Rows, tmp_path: Path) -> None:
    import mlflow.sklearn

    directory = tmp_path / "model"
    mlflow.sklearn.save_model(
        mixed, str(directory), serialization_format="cloudpickle", pip_requirements=["scikit-learn"]
    )
    whole = (directory / "model.pkl").read_bytes()
    (directory / "model.pkl").write_bytes(whole[: len(whole) // 2])

    async def test(asking: Any) -> None:
        error = await asking.submit(rows.slice(0, 1))
        assert type(error) is Unavailable
        assert "does not start: " in error.what
        assert "pickle data was truncated" in asking.lane.state.reason
        assert asking.lane.counts.starts == 1

    with_lane(test, command=command(directory, served()))
