"""Real models, saved by MLflow in each of its formats, give the answers of the estimator itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millpond.serving.lanes.host import frame_of
from millpond.serving.lanes.native import Version, load
from millpond.serving.rows import Rows

pytestmark = pytest.mark.slow

#: What our own versions carry.
OURS = {"millpond": {"task": "classification"}}
INPUTS = {"distance": "float64", "seats": "int64", "carrier": "string"}


def to_frame(rows: Any, inputs: Mapping[str, str]) -> Any:
    import pandas as pd

    columns = {}
    for name, kind in inputs.items():
        values = rows.column(name).to_pylist()
        if kind == "string":
            columns[name] = pd.Series(values, dtype=object)
        else:
            columns[name] = pd.Series([float("nan") if each is None else float(each) for each in values])
    return pd.DataFrame(columns)


def version(task: str = "classification", inputs: Mapping[str, str] = INPUTS) -> Version:
    return Version(task, inputs, [("output", "float64", 0)], matrix=False)


def ask(directory: Path, of: Version, rows: Any) -> list[float]:
    """What the program of a native process answers, without the process."""
    answer = load(directory, of)(frame_of("call", 1, Rows.from_arrow(rows)))
    return np.asarray(answer.columns[0]).tolist()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def rows() -> Any:
    import pyarrow as pa

    random = np.random.default_rng(0)
    seats = [None if each < 20 else int(each) for each in random.integers(0, 300, 400)]
    return pa.table(
        {
            "distance": random.normal(800, 300, 400),
            "seats": pa.array(seats, pa.int64()),
            "carrier": [None if each == 3 else f"C{each}" for each in random.integers(0, 4, 400)],
        }
    )


def fitted(final: Any, rows: Any) -> Any:
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    prepare = make_column_transformer(
        (SimpleImputer(), ["distance", "seats"]),
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["carrier"]),
    )
    frame = to_frame(rows, INPUTS)
    label = frame["distance"] > 800 if hasattr(final, "predict_proba") else frame["distance"] / 7
    return make_pipeline(prepare, final).fit(frame, label)


@pytest.fixture(scope="module")
def forest(rows: Any) -> Any:
    import lightgbm

    return fitted(lightgbm.LGBMClassifier(n_estimators=20, n_jobs=1, verbose=-1), rows)


@pytest.fixture(scope="module", params=["cloudpickle", "pickle", "skops"])
def saved(request: pytest.FixtureRequest, forest: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import mlflow.sklearn
    import skops.io

    trusted = skops.io.get_untrusted_types(data=skops.io.dumps(forest))
    directory = tmp_path_factory.mktemp("models") / request.param
    mlflow.sklearn.save_model(
        forest,
        str(directory),
        serialization_format=request.param,
        pip_requirements=["scikit-learn"],
        skops_trusted_types=trusted,
        metadata=OURS,
    )
    return directory


def test_answers_are_the_estimators(saved: Path, forest: Any, rows: Any) -> None:
    expected = forest.predict_proba(to_frame(rows, INPUTS))[:, 1]
    assert ask(saved, version(), rows) == expected.tolist()
    answer = load(saved, version())
    one = [answer(frame_of("call", row, Rows.from_arrow(rows.slice(row, 1)))).columns[0][0] for row in range(20)]
    assert one == expected[:20].tolist()


def test_another_flavour_is_loaded_by_mlflow(forest: Any, rows: Any, tmp_path: Path) -> None:
    import mlflow.lightgbm
    import pyarrow as pa

    booster = forest[-1].booster_
    mlflow.lightgbm.save_model(booster, str(tmp_path / "model"), pip_requirements=["lightgbm"])
    prepared = forest[0].transform(to_frame(rows, INPUTS))
    given = pa.table({f"c{index}": prepared[:, index] for index in range(prepared.shape[1])})
    found = ask(tmp_path / "model", version(inputs=dict.fromkeys(given.column_names, "float64")), given)
    assert found == pytest.approx(forest.predict_proba(to_frame(rows, INPUTS))[:, 1], rel=1e-12)


def test_regression(rows: Any, tmp_path: Path) -> None:
    import mlflow.sklearn
    from sklearn.linear_model import LinearRegression

    model = fitted(LinearRegression(), rows)
    mlflow.sklearn.save_model(
        model,
        str(tmp_path / "model"),
        serialization_format="cloudpickle",
        pip_requirements=["scikit-learn"],
        metadata=OURS,
    )
    assert ask(tmp_path / "model", version("regression"), rows) == model.predict(to_frame(rows, INPUTS)).tolist()


def test_loading_imports_no_mlflow(forest: Any, rows: Any, tmp_path: Path) -> None:
    import mlflow.sklearn

    mlflow.sklearn.save_model(
        forest, str(tmp_path / "model"), serialization_format="cloudpickle", pip_requirements=["scikit-learn"]
    )
    program = (
        "import sys; from pathlib import Path; from millpond.serving.lanes.native import Version, load; "
        f"load(Path(sys.argv[1]), Version('classification', {INPUTS!r}, [('output', 'float64', 0)], False)); "
        "print('sklearn' in sys.modules, 'mlflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "model")], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["True", "False"]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("no MLmodel", "MLmodel"),
        ("no pickle", "model.pkl"),
        ("broken pickle", "invalid load key|stack underflow|unpickling"),
        ("broken MLmodel", "while parsing a flow node"),
        ("not a classifier", "predict_proba and two classes"),
    ],
)
def test_what_cannot_be_loaded(rows: Any, tmp_path: Path, damage: str, told: str) -> None:
    import mlflow.sklearn
    from sklearn.linear_model import LinearRegression

    directory = tmp_path / "model"
    mlflow.sklearn.save_model(
        fitted(LinearRegression(), rows),
        str(directory),
        serialization_format="cloudpickle",
        pip_requirements=["scikit-learn"],
    )
    if damage == "no MLmodel":
        (directory / "MLmodel").unlink()
    elif damage == "no pickle":
        (directory / "model.pkl").unlink()
    elif damage == "broken pickle":
        (directory / "model.pkl").write_bytes(b"\x80\x04broken")
    elif damage == "broken MLmodel":
        (directory / "MLmodel").write_text("flavors: [")
    with pytest.raises(Exception, match=told):
        load(directory, version())
