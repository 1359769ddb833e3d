"""Registering real pipelines with the real MLflow."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from millpond.core.errors import Unavailable, VersionRefused
from millpond.registry.mlflow_store import MLflowStore
from millpond.registry.ports import Candidate, Version

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def registered(shared_store: MLflowStore, candidate: Candidate) -> Version:
    return shared_store.register(candidate)


@pytest.fixture(scope="module")
def client(shared_store: MLflowStore, registered: Version) -> Any:
    return shared_store._connection.client


def test_the_directory_is_an_mlflow_model_with_everything(
    shared_store: MLflowStore, registered: Version, candidate: Candidate
) -> None:
    directory = shared_store.directory(registered)
    names = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    assert names == {
        "MLmodel",
        "model.pkl",
        "code/millpond_scorer.py",
        "conda.yaml",
        "python_env.yaml",
        "requirements.txt",
        "input_example.json",
        "serving_input_example.json",
        "millpond/spec.json",
        "millpond/lineage.json",
        "millpond/uncommitted.diff",
        "millpond/environment.txt",
        "millpond/expected.json",
        "millpond/report.html",
        "millpond/code/flights.py",
    }
    requirements = (directory / "requirements.txt").read_text().splitlines()
    packages = candidate.lineage.packages
    assert set(requirements) == {
        f"{name}=={packages[name]}" for name in ("mlflow", "cloudpickle", "numpy", "pandas", "scikit-learn", "lightgbm")
    }
    assert len((directory / "millpond" / "environment.txt").read_text().splitlines()) == len(packages)
    assert str(directory) not in (directory / "MLmodel").read_text()


def test_mlflow_knows_run_parameters_metrics_datasets_and_the_model(client: Any, registered: Version) -> None:
    run = client.get_run(registered.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"test.roc_auc": 0.75, "baseline.test.roc_auc": 0.5}
    assert run.data.params == {
        "estimator": "lightgbm",
        "n_estimators": "20",
        "split": json.dumps({"test": "2013-12-01"}),
    }
    assert run.data.tags["mlflow.source.git.commit"] == "c" * 40
    assert run.data.tags["mlflow.user"] == "ann"
    datasets = {one.dataset.name: one for one in run.inputs.dataset_inputs}
    assert set(datasets) == {"training.late_arrival", "flights", "weather"}
    training_set = datasets["training.late_arrival"].dataset
    assert training_set.source_type == "iceberg"
    assert json.loads(training_set.source) == {"table": "training.late_arrival", "snapshot_id": 8123456789012345678}
    (model,) = run.outputs.model_outputs
    logged = client.get_logged_model(model.model_id)
    assert str(logged.status) == "READY"
    assert {metric.key: metric.value for metric in logged.metrics} == run.data.metrics
    assert [file.path for file in client.list_artifacts(registered.run_id)] == ["report.html"]


def test_the_registry_of_mlflow_reads_the_same(client: Any, shared_store: MLflowStore, registered: Version) -> None:
    shared_store.set_alias("late_arrival", "challenger", registered.number)
    theirs = client.get_model_version_by_alias("late_arrival", "challenger")
    ours = shared_store.version("late_arrival", "challenger")
    assert int(theirs.version) == ours.number
    assert theirs.run_id == ours.run_id
    assert theirs.creation_timestamp == round(ours.created_at.timestamp() * 1000)
    assert theirs.aliases == ["challenger"]
    assert theirs.tags["millpond.fingerprint"] == ours.fingerprint
    assert client.get_model_version_download_uri("late_arrival", "1").startswith("mlflow-artifacts:/late_arrival/")


def test_a_version_deleted_in_mlflow_is_gone(client: Any, shared_store: MLflowStore, registered: Version) -> None:
    location = client.get_model_version_download_uri("late_arrival", "1")
    client.create_registered_model("other")
    extra = client.create_model_version("other", location, registered.run_id)
    assert shared_store.models() == ["late_arrival", "other"]
    client.delete_model_version("other", extra.version)
    assert shared_store.models() == ["late_arrival"]
    assert shared_store.versions("other") == []


def test_a_stranger_without_millpond_gets_probabilities(
    shared_store: MLflowStore, registered: Version, candidate: Candidate, tmp_path: Path
) -> None:
    script = textwrap.dedent("""
        import json, sys

        class NoMillpond:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] == "millpond":
                    raise ModuleNotFoundError(name)

        sys.meta_path.insert(0, NoMillpond())
        import mlflow.pyfunc, mlflow.sklearn
        model = mlflow.pyfunc.load_model(sys.argv[1])
        output = model.predict(model.input_example)
        print(json.dumps({
            "type": f"{type(output).__name__} {output.dtype} {output.shape}",
            "values": output.tolist(),
            "steps": list(mlflow.sklearn.load_model(sys.argv[1]).named_steps),
        }))
    """)
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, str(shared_store.directory(registered))],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["type"] == "ndarray float64 (20,)"
    assert answer["values"] == pytest.approx(list(candidate.expected), rel=1e-12)
    assert answer["steps"] == ["columntransformer", "lgbmclassifier"]


def test_absent_and_null_inputs_are_null(shared_store: MLflowStore, registered: Version, classifier: Any) -> None:
    import mlflow.pyfunc

    model = mlflow.pyfunc.load_model(str(shared_store.directory(registered)))
    nulls = {"distance": [np.nan] * 2, "hour": [3.0, 15.0], "weekend": [np.nan] * 2}
    frame = pd.DataFrame(nulls | {"carrier": pd.Series([None, None], dtype=object)})
    expected = classifier.predict_proba(frame)[:, 1]
    assert model.predict(pd.DataFrame({"hour": [3.0, 15.0]})).tolist() == expected.tolist()
    assert model.predict(frame[["carrier", "weekend", "hour", "distance"]]).tolist() == expected.tolist()
    # What a pandas user has by default: the string type of pandas 3, with NaN for null.
    typed = frame.assign(carrier=pd.Series([None, None], dtype="str"))
    assert model.predict(typed).tolist() == expected.tolist()


def test_the_rows_of_mlflow_models_serve_are_understood(
    shared_store: MLflowStore, registered: Version, candidate: Candidate
) -> None:
    import mlflow.pyfunc
    from mlflow.pyfunc.scoring_server import infer_and_parse_data

    directory = shared_store.directory(registered)
    model = mlflow.pyfunc.load_model(str(directory))
    body = json.loads((directory / "serving_input_example.json").read_text())
    rows = infer_and_parse_data(body, model.metadata.get_input_schema())
    assert model.predict(rows).tolist() == pytest.approx(list(candidate.expected), rel=1e-12)


def test_regression(
    shared_store: MLflowStore,
    candidate_of: Callable[..., Candidate],
    pipeline_of: Callable[[Any], Any],
    training_rows: tuple[pd.DataFrame, np.ndarray],
) -> None:
    import mlflow.pyfunc
    from sklearn.linear_model import Ridge

    frame, label = training_rows
    estimator = pipeline_of(Ridge()).fit(frame, label * 10.0 + frame["hour"])
    infinite = {"test.rmse": 1.5, "test.worst": math.inf, "test.unknown": math.nan}
    wanted = candidate_of(estimator, "regression", model="delay", metrics=infinite, files={})
    version = shared_store.register(wanted)
    assert version.metrics["test.rmse"] == 1.5
    assert math.isnan(version.metrics["test.unknown"])
    assert "test.worst" not in version.metrics
    model = mlflow.pyfunc.load_model(str(shared_store.directory(version)))
    assert model.predict(wanted.input_example).tolist() == pytest.approx(list(wanted.expected), rel=1e-12)


def test_registering_says_nothing_on_the_terminal(candidate: Candidate, tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import pickle, sys
        from pathlib import Path
        from millpond.registry.mlflow_store import MLflowStore

        candidate = pickle.loads(sys.stdin.buffer.read())
        store = MLflowStore(Path("mlflow.db"), Path("artifacts"))
        assert "mlflow" not in sys.modules
        store.register(candidate)
    """)
    import pickle

    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", script],
        input=pickle.dumps(candidate),
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert {path.name for path in tmp_path.iterdir()} <= {
        "mlflow.db", "mlflow.db-wal", "mlflow.db-shm", "mlflow.db.lock", "artifacts",
    }  # fmt: skip


def test_an_estimator_of_the_projects_own_code_travels_with_the_version(
    shared_store: MLflowStore,
    candidate_of: Callable[..., Candidate],
    training_rows: tuple[pd.DataFrame, np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "my_project"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "tables.py").write_text("LIMIT = 12\n\ndef late(hour):\n    return hour > LIMIT\n")
    (folder / "models.py").write_text(
        textwrap.dedent("""
            import numpy as np
            from sklearn.base import BaseEstimator, ClassifierMixin
            from my_project.tables import late

            class ByHour(ClassifierMixin, BaseEstimator):
                def fit(self, X, y):
                    self.classes_ = np.array([False, True])
                    return self

                def predict_proba(self, X):
                    yes = np.where(late(X["hour"].to_numpy()), 0.8, 0.2)
                    return np.column_stack([1 - yes, yes])

                def predict(self, X):
                    return self.predict_proba(X)[:, 1] > 0.5
        """)
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    from my_project.models import ByHour  # type: ignore[import-not-found]

    try:
        version = shared_store.register(candidate_of(ByHour().fit(*training_rows), model="by_hour"))
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "my_project"]:
            del sys.modules[name]
    assert version.number == 1


class NeedsFile:
    """Reads a file of the session when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        return np.ones(len(frame))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state
        raise FileNotFoundError(f"no such file: {self.path.name}")


class Drifts:
    """Answers with the id of its process."""

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        return np.full(len(frame), float(os.getpid()))


class Crashes:
    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        if "pytest" not in sys.modules:
            os.kill(os.getpid(), 11)
        return np.ones(len(frame))


class Hangs:
    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        import time

        while "pytest" not in sys.modules:
            time.sleep(0.1)
        return np.ones(len(frame))


class Locked:
    def __init__(self) -> None:
        import threading

        self.lock = threading.Lock()

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        return np.ones(len(frame))


@pytest.mark.parametrize(
    ("estimator", "reason"),
    [
        (NeedsFile(Path("session.bin")), "FileNotFoundError: no such file: session.bin"),
        (Drifts(), "for row 0 of the input example, and"),
        (Crashes(), "the process was ended by SIGSEGV"),
        (Hangs(), "it took longer than"),
        (Locked(), "cannot be written to a file"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_what_works_only_here_is_refused(
    shared_state: Path, candidate_of: Callable[..., Candidate], estimator: Any, reason: str
) -> None:
    limit = 6.0 if isinstance(estimator, Hangs) else 60.0
    store = MLflowStore(shared_state / "mlflow.db", shared_state / "artifacts", time_limit=limit)
    name = type(estimator).__name__.lower()
    with pytest.raises(VersionRefused) as refused:
        store.register(candidate_of(estimator, "regression", model=name))
    assert reason in refused.value.what
    assert refused.value.hint
    assert store.versions(name) == []
    assert name not in store.models()
    client = store._connection.client
    (run,) = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    assert run.info.status == "FAILED"
    assert reason in run.data.tags["millpond.refused"]


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/x", "spec.json", ""])
def test_files_stay_inside_the_version(
    shared_store: MLflowStore, classifier: Any, candidate_of: Callable[..., Candidate], name: str
) -> None:
    with pytest.raises(VersionRefused, match="no place for a file"):
        shared_store.register(candidate_of(classifier, model="outside", files={name: b""}))
    assert shared_store.versions("outside") == []


def test_no_example_no_version(store: MLflowStore, candidate: Candidate, candidate_of: Any, classifier: Any) -> None:
    empty = candidate_of(classifier, input_example=candidate.input_example.head(0), expected=[])
    with pytest.raises(VersionRefused, match="0 rows in its input example"):
        store.register(empty)


def test_the_database_is_in_wal_mode_and_has_statistics(shared_state: Path, registered: Version) -> None:
    import sqlite3

    with sqlite3.connect(shared_state / "mlflow.db") as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert database.execute("SELECT count(*) FROM sqlite_stat1").fetchone()[0] > 0
        absolute = [
            line for line in database.iterdump() if str(shared_state) in line or "file:/" in line or "mlruns" in line
        ]
    assert absolute == []


def test_a_place_that_cannot_be_written_is_named(made_state: Path, candidate: Candidate) -> None:
    (made_state / "artifacts").write_text("a file where the directory should be")
    store = MLflowStore(made_state / "mlflow.db", made_state / "artifacts")
    with pytest.raises(Unavailable, match="cannot be written: Not a directory") as failed:
        store.register(candidate)
    assert failed.value.where.startswith(str(made_state / "artifacts"))
    assert store.versions("late_arrival") == []


def test_threads_share_a_store(made_state: Path, candidate: Candidate) -> None:
    from concurrent.futures import ThreadPoolExecutor

    store = MLflowStore(made_state / "mlflow.db", made_state / "artifacts")
    with ThreadPoolExecutor(3) as pool:
        versions = list(pool.map(store.register, [candidate] * 3))
    assert sorted(version.number for version in versions) == [1, 2, 3]
