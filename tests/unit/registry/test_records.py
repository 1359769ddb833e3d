from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import cloudpickle  # type: ignore[import-untyped]
import pytest

from millpond.registry.environment import canonical_name, installed_packages, lock_text, python_version
from millpond.registry.mlflow_connection import artifact_directory, tracking_uri
from millpond.registry.mlflow_store import MLflowStore
from millpond.registry.pickled import pinned_requirements, referenced_modules
from millpond.registry.ports import CodeState, Lineage
from millpond.registry.process_identity import is_alive, own_identity
from millpond.registry.records import lineage_from_json, lineage_to_json
from millpond.registry.verify import Mismatch, compare


def test_lineage_survives_as_json() -> None:
    code = CodeState(commit=None, branch=None, dirty=True, diff="+ä\n")
    lineage = Lineage("training.x", 2**62, {"a": 1}, {"m": {"ü": [1, None]}}, "f", code, {"p": "1"}, "3.11", "Linux")
    text = lineage_to_json(lineage)
    assert lineage_from_json(text, "+ä\n") == lineage
    assert '"ü"' in text


def test_the_environment_is_pinned_exactly() -> None:
    packages = installed_packages()
    assert packages["mlflow"] == packages["mlflow-skinny"]
    assert list(packages) == sorted(packages)
    assert all(name == canonical_name(name) for name in packages)
    assert re.fullmatch(r"([a-z0-9-]+==[^\s=]+\n)+", lock_text(packages))
    assert python_version().split(".")[0] == "3"


def test_modules_of_a_pickle_without_loading_it() -> None:
    class Local:
        """Written into the pickle, with the module that its method uses."""

        def text(self) -> str:
            return str(os.getpid())

    pickled = cloudpickle.dumps([Local(), Path("x"), re.compile("y"), "json", {"numpy": 1}], protocol=4)
    modules = referenced_modules(pickled)
    assert "pathlib" in modules
    assert "re" in modules
    assert "os" in modules
    # Strings that happen to be names of modules are data.
    assert not {"json", "numpy"} & modules


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_modules_are_found_in_every_pickle_protocol(protocol: int) -> None:
    import pickle
    from collections import OrderedDict
    from decimal import Decimal

    pickled = pickle.dumps([OrderedDict(), Decimal(1), OrderedDict(), Decimal(2), "fractions"], protocol=protocol)
    assert (
        {"collections", "decimal"} <= referenced_modules(pickled) <= {"collections", "decimal", "copyreg", "builtins"}
    )


def test_requirements_are_those_of_the_pickle_and_a_fixed_base() -> None:
    pins = pinned_requirements({"lightgbm.sklearn", "json", "not_installed.module", "millpond.training"})
    names = [pin.partition("==")[0] for pin in pins]
    assert names == ["cloudpickle", "lightgbm", "millpond", "mlflow", "numpy", "pandas", "scikit-learn"]
    assert f"lightgbm=={installed_packages()['lightgbm']}" in pins


def test_a_process_is_alive_until_it_ends() -> None:
    assert is_alive(own_identity())
    code = "from millpond.registry.process_identity import own_identity; print(own_identity(), flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    identity = child.stdout.readline().strip()
    assert is_alive(identity)
    child.kill()
    deadline = time.monotonic() + 5
    while is_alive(identity) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(identity)
    child.communicate()
    assert not is_alive(identity)


def test_another_process_with_the_same_id_is_another_process() -> None:
    boot, pid, started = own_identity().split("/")
    assert not is_alive(f"{boot}/{pid}/{int(started) - 1}")
    assert not is_alive(f"another-boot/{pid}/{started}")
    assert not is_alive("nonsense")
    assert not is_alive("")


def test_predictions_are_compared_to_a_billionth() -> None:
    compare([0.1, -2e10, 0.0], [0.1 * (1 + 1e-10), -2e10, 0.0])
    for expected, got in [([0.1], [0.1 * (1 + 1e-8)]), ([0.0], [1e-12]), ([0.1], [float("nan")]), ([1.0], [])]:
        with pytest.raises(Mismatch):
            compare(expected, got)


def test_artifact_uris_stay_inside_the_directory(tmp_path: Path) -> None:
    assert artifact_directory("mlflow-artifacts:/m/models/x", tmp_path) == tmp_path / "m" / "models" / "x"
    for uri in ("mlflow-artifacts:/../x", "mlflow-artifacts:/a/%2e%2e/%2e%2e/x", "file:///etc", "models:/m-1", ""):
        with pytest.raises(ValueError, match="no artifact of this store"):
            artifact_directory(uri, tmp_path)
    assert tracking_uri(Path("/a b/ü#/mlflow.db")) == "sqlite:////a b/%C3%BC%23/mlflow.db"


def test_reading_needs_no_mlflow_and_makes_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from millpond.core.errors import NotFound\n"
        "import millpond.registry.mlflow_app, millpond.registry.git, millpond.registry.verify\n"
        "from millpond.registry.mlflow_store import MLflowStore\n"
        "store = MLflowStore(Path('mlflow.db'), Path('artifacts'))\n"
        "assert store.models() == [] and store.versions('m') == []\n"
        "try: store.version('m', 'champion')\n"
        "except NotFound as error: print(error.what)\n"
        "heavy = {'mlflow', 'pandas', 'numpy', 'sklearn', 'sqlalchemy', 'pyarrow', 'fastapi', 'cloudpickle'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.stderr, done.stdout) == ("", "there is no version of model 'm'\n")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    from millpond.core.errors import Unavailable

    (tmp_path / "mlflow.db").write_text("no database, and long enough to be looked at as one" * 50)
    store = MLflowStore(tmp_path / "mlflow.db", tmp_path / "artifacts")
    with pytest.raises(Unavailable, match="damaged") as damaged:
        store.versions("m")
    assert damaged.value.where == str(tmp_path / "mlflow.db")
