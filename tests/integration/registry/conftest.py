"""Real pipelines, and candidates made of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from millpond.registry.environment import installed_packages, platform_name, python_version
from millpond.registry.mlflow_store import MLflowStore
from millpond.registry.ports import Candidate, CodeState, Lineage

INPUTS = {"distance": "float64", "hour": "int64", "weekend": "bool", "carrier": "string"}


def raw_inputs(rows: int) -> pd.DataFrame:
    random = np.random.default_rng(7)
    frame = pd.DataFrame(
        {
            "distance": random.gamma(2.0, 500.0, rows),
            "hour": random.integers(0, 24, rows).astype("float64"),
            "weekend": random.integers(0, 2, rows).astype("float64"),
            "carrier": pd.Series(random.choice(["AA", "B6", "UA"], rows), dtype=object),
        }
    )
    frame.loc[::7, "distance"] = np.nan
    frame.loc[::5, "carrier"] = None
    return frame


def pipeline(last: Any) -> Any:
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-1)
    columns = make_column_transformer(
        (encoder, ["carrier"]), (SimpleImputer(strategy="median"), ["distance", "hour", "weekend"])
    )
    return make_pipeline(columns, last)


def make_candidate(estimator: Any, task: str = "classification", **changes: Any) -> Candidate:
    frame = raw_inputs(20)
    output = estimator.predict_proba(frame)[:, 1] if task == "classification" else estimator.predict(frame)
    lineage = Lineage(
        training_set="training.late_arrival",
        training_set_snapshot=8123456789012345678,
        sources={"flights": 11, "weather": 22},
        definitions={"model": {"name": "late_arrival", "inputs": ["distance"]}},
        fingerprint="0123456789abcdef",
        code=CodeState(commit="c" * 40, branch="main", dirty=True, diff="diff --git a/ä b/ä\n+x\n"),
        packages=installed_packages(),
        python=python_version(),
        platform=platform_name(),
    )
    candidate = Candidate(
        model="late_arrival",
        task=task,
        estimator=estimator,
        inputs=INPUTS,
        threshold=0.4 if task == "classification" else None,
        metrics={"test.roc_auc": 0.75, "baseline.test.roc_auc": 0.5},
        params={"estimator": "lightgbm", "n_estimators": 20, "split": {"test": "2013-12-01"}},
        input_example=frame,
        expected=[float(value) for value in output],
        spec={"inputs": INPUTS, "views": ["airport_traffic"]},
        files={"report.html": b"<!doctype html><p>report", "code/flights.py": b"import millpond\n"},
        lineage=lineage,
        trained_by="ann",
        tags={"team": "delays"},
    )
    return replace(candidate, **changes)


@pytest.fixture(scope="session")
def candidate_of() -> Callable[..., Candidate]:
    return make_candidate


@pytest.fixture(scope="session")
def pipeline_of() -> Callable[[Any], Any]:
    return pipeline


@pytest.fixture(scope="session")
def training_rows() -> tuple[pd.DataFrame, np.ndarray]:
    frame = raw_inputs(2000)
    noise = np.random.default_rng(8).random(2000)
    return frame, (frame["hour"].to_numpy() > 12) ^ (noise < 0.2)


@pytest.fixture(scope="session")
def classifier(training_rows: tuple[pd.DataFrame, np.ndarray]) -> Any:
    from lightgbm import LGBMClassifier

    return pipeline(LGBMClassifier(n_estimators=20, n_jobs=1, random_state=1, verbose=-1)).fit(*training_rows)


@pytest.fixture(scope="session")
def candidate(classifier: Any) -> Candidate:
    return make_candidate(classifier)


@pytest.fixture
def store(tmp_path: Path) -> MLflowStore:
    return MLflowStore(tmp_path / "mlflow.db", tmp_path / "artifacts")


@pytest.fixture(scope="module")
def shared_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state of a project")


@pytest.fixture(scope="module")
def shared_store(shared_state: Path) -> MLflowStore:
    return MLflowStore(shared_state / "mlflow.db", shared_state / "artifacts")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database as it is made for a new project."""
    database = tmp_path_factory.mktemp("made") / "mlflow.db"
    MLflowStore(database, database.parent / "artifacts").make_ready()
    return database


@pytest.fixture
def made_state(empty_database: Path, tmp_path: Path) -> Path:
    """State in which the database exists already, which saves making it."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return tmp_path
