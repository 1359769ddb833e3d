"""Several processes at once, processes that are killed, and state that moves."""

from __future__ import annotations

import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from millpond.core.errors import NotFound
from millpond.registry.mlflow_store import MLflowStore
from millpond.registry.ports import Candidate

pytestmark = pytest.mark.slow

_REGISTER = textwrap.dedent("""
    import pickle, sys
    from pathlib import Path
    from millpond.registry.mlflow_store import MLflowStore

    state = Path(sys.argv[1])
    store = MLflowStore(state / "mlflow.db", state / "artifacts")
    candidate = pickle.loads((state / "candidate.pickle").read_bytes())
    print(store.register(candidate), flush=True)
""")


def start_registering(state: Path, candidate: Candidate) -> subprocess.Popen[str]:
    (state / "candidate.pickle").write_bytes(pickle.dumps(candidate))
    return subprocess.Popen(
        [sys.executable, "-c", _REGISTER, str(state)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def stop_outside_a_transaction(state: Path, process: subprocess.Popen[str]) -> None:
    """Halt the process at a moment at which it does not hold the database."""
    for _ in range(200):
        process.send_signal(signal.SIGSTOP)
        database = sqlite3.connect(f"file:{state / 'mlflow.db'}?mode=rw", uri=True, timeout=0.2, isolation_level=None)
        try:
            database.execute("BEGIN IMMEDIATE")
            database.execute("ROLLBACK")
        except sqlite3.OperationalError:
            process.send_signal(signal.SIGCONT)
            time.sleep(0.003)
        else:
            return
        finally:
            database.close()
    pytest.fail("the process never let go of the database")


def rows(state: Path, sql: str) -> list[tuple[object, ...]]:
    try:
        with sqlite3.connect(f"file:{state / 'mlflow.db'}?mode=rw", uri=True, timeout=10) as database:
            return database.execute(sql).fetchall()
    except sqlite3.OperationalError:
        return []


def test_two_processes_register_at_once_in_a_new_project(tmp_path: Path, candidate: Candidate) -> None:
    processes = [start_registering(tmp_path, candidate) for _ in range(2)]
    answers = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], answers
    said = sorted(line for out, _ in answers for line in out.split())
    assert said == [f"late_arrival/{number}" for number in (1, 2)]
    store = MLflowStore(tmp_path / "mlflow.db", tmp_path / "artifacts")
    versions = store.versions("late_arrival")
    assert [version.number for version in versions] == [1, 2]
    assert len({store.directory(version) for version in versions}) == 2
    assert rows(tmp_path, "SELECT count(*) FROM runs WHERE status = 'FINISHED'") == [(2,)]


def count(state: Path, sql: str) -> int:
    return len(rows(state, sql))


def test_killed_while_making_the_database(tmp_path: Path, candidate: Candidate) -> None:
    process = start_registering(tmp_path, candidate)
    wait_for((tmp_path / "mlflow.db.new").exists, process)
    process.kill()
    process.communicate(timeout=30)
    assert not (tmp_path / "mlflow.db").exists()
    store = MLflowStore(tmp_path / "mlflow.db", tmp_path / "artifacts")
    assert store.models() == []
    assert store.register(candidate).number == 1


def test_killed_at_each_step_of_registering(made_state: Path, candidate: Candidate) -> None:
    artifacts = made_state / "artifacts"
    moments: list[Callable[[], int]] = [
        lambda: count(made_state, "SELECT 1 FROM runs"),
        lambda: len(list(artifacts.rglob("model.pkl"))),
        lambda: count(made_state, "SELECT 1 FROM inputs"),  # the last record before the clean process is asked
    ]
    store = MLflowStore(made_state / "mlflow.db", artifacts)
    for reached in moments:
        before = reached()
        process = start_registering(made_state, candidate)
        wait_for(lambda reached=reached, before=before: reached() > before, process)  # type: ignore[misc]
        process.kill()
        process.communicate(timeout=30)
        assert process.returncode == -signal.SIGKILL
        assert store.models() == []
        assert store.versions("late_arrival") == []
        with pytest.raises(NotFound):
            store.version("late_arrival", 1)

    version = store.register(candidate)
    assert version.number == 1
    assert store.lineage(version) == candidate.lineage
    statuses = [status for (status,) in rows(made_state, "SELECT status FROM runs ORDER BY start_time")]
    assert statuses == ["KILLED"] * len(moments) + ["FINISHED"]
    client = store._connection.client
    models = client.search_logged_models([client.get_experiment_by_name("late_arrival").experiment_id])
    assert [str(model.status) for model in models].count("READY") == 1
    assert "PENDING" not in {str(model.status) for model in models}


def test_a_run_of_a_living_process_is_left_alone(made_state: Path, candidate: Candidate) -> None:
    store = MLflowStore(made_state / "mlflow.db", made_state / "artifacts")
    process = start_registering(made_state, candidate)
    wait_for(lambda: bool(rows(made_state, "SELECT 1 FROM runs")), process)
    stop_outside_a_transaction(made_state, process)
    try:
        assert store.register(candidate).number == 1
        assert rows(made_state, "SELECT count(*) FROM runs WHERE status = 'KILLED'") == [(0,)]
    finally:
        process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=240)
    assert (out, process.returncode) == ("late_arrival/2\n", 0), err


def test_the_state_directory_can_move(tmp_path: Path, candidate: Candidate) -> None:
    import mlflow.pyfunc

    old, new = tmp_path / "old", tmp_path / "the new place"
    store = MLflowStore(old / "mlflow.db", old / "artifacts")
    version = store.register(candidate)
    store.set_alias("late_arrival", "champion", 1)
    shutil.copytree(old, new)
    shutil.rmtree(old)

    moved = MLflowStore(new / "mlflow.db", new / "artifacts")
    champion = moved.version("late_arrival", "champion")
    assert (champion.number, champion.run_id, champion.metrics) == (1, version.run_id, version.metrics)
    assert moved.directory(champion).is_relative_to(new)
    assert moved.lineage(champion) == candidate.lineage
    assert moved.report(champion).read_bytes() == candidate.files["report.html"]
    model = mlflow.pyfunc.load_model(str(moved.directory(champion)))
    assert model.predict(candidate.input_example).tolist() == pytest.approx(list(candidate.expected), rel=1e-12)
    client = moved._connection.client
    downloaded = Path(client.download_artifacts(champion.run_id, "report.html"))
    assert downloaded.read_bytes() == candidate.files["report.html"]
    assert moved.register(candidate).number == 2
    assert not old.exists()


def test_a_lost_directory_is_named(made_state: Path, candidate: Candidate) -> None:
    store = MLflowStore(made_state / "mlflow.db", made_state / "artifacts")
    version = store.register(candidate)
    directory = store.directory(version)
    shutil.rmtree(directory)
    with pytest.raises(NotFound, match="files of late_arrival/1 are missing") as missing:
        store.spec(version)
    assert missing.value.where == str(directory)
