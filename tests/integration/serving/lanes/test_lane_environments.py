"""Environments that uv builds, and versions with clashing packages side by side."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from millpond.core.errors import Unavailable
from millpond.serving.lanes.command import native_command
from millpond.serving.lanes.environments import environment_for, needs_of
from millpond.serving.lanes.lane import Lane
from millpond.serving.ports import OutputColumn, ServedModel
from millpond.serving.rows import Rows

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed")]

PACKAGE = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "pond-words"
version = "{version}.0"
"""
MODEL = """
import pond_words

class Model:
    def predict(self, frame):
        return [pond_words.say(each) for each in frame["word"]]
"""
MLMODEL = """
flavors:
  sklearn:
    pickled_model: model.pkl
    serialization_format: pickle
    code: code
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions of one package, of which only one can be installed at a time."""
    place = tmp_path_factory.mktemp("wheels")
    for version in (1, 2):
        source = place / f"source_{version}"
        (source / "pond_words").mkdir(parents=True)
        (source / "pyproject.toml").write_text(PACKAGE.format(version=version))
        (source / "pond_words" / "__init__.py").write_text(f"def say(word): return word + ' by {version}'\n")
        subprocess.run(["uv", "build", "--quiet", "--wheel", "-o", place, source], check=True)
    return place


@pytest.fixture
def model(tmp_path: Path, wheels: Path) -> Callable[[int], Path]:
    """A model directory that needs one of the versions."""

    def made(version: int) -> Path:
        directory = tmp_path / f"model_{version}"
        (directory / "code").mkdir(parents=True)
        (directory / "code" / "pond_model.py").write_text(MODEL)
        (directory / "MLmodel").write_text(MLMODEL)
        (directory / "model.pkl").write_bytes(b"cpond_model\nModel\n(t\x81.")  # a pickle of Model()
        (directory / "requirements.txt").write_text(
            f"--find-links {wheels}\nmillpond==0.0.1\n-e .\npond-words=={version}.0  # clashes\nnumpy\npandas\npyyaml\n"
        )
        (directory / "python_env.yaml").write_text(f"python: {sys.version_info.major}.{sys.version_info.minor}.0\n")
        return directory

    return made


def test_versions_with_clashing_packages_serve_side_by_side(model: Callable[[int], Path], tmp_path: Path) -> None:
    root = tmp_path / "environments"
    directories = [model(1), model(2)]
    pythons = [environment_for(*needs_of(each), root) for each in directories]
    assert len(set(pythons)) == 2
    assert all(Path(sys.executable) != each for each in pythons)
    kept = pythons[0].parent.parent.stat().st_ino
    assert environment_for(*needs_of(directories[0]), root) == pythons[0]
    assert pythons[0].parent.parent.stat().st_ino == kept

    async def main() -> None:
        lanes = []
        for number, (python, directory) in enumerate(zip(pythons, directories, strict=True), start=1):
            served = ServedModel(
                "talk", number, "other", None, (), None, {"word": "string"}, (OutputColumn("said", "string"),)
            )
            command = native_command(python, directory, served)
            lanes.append(Lane(command, name=f"version {number} of model 'talk'"))
        answered: list[asyncio.Future[Any]] = []
        for word in ("one", "two"):
            for lane in lanes:
                answered.append(asyncio.get_running_loop().create_future())
                lane.submit(Rows.of({"word": [word]}), answered[-1].set_result)
        replies = await asyncio.wait_for(asyncio.gather(*answered), 60)
        said = [each.rows.columns["said"][0] for each in replies]
        assert said == ["one by 1", "one by 2", "two by 1", "two by 2"]
        for lane in lanes:
            await lane.close()

    asyncio.run(main())


def test_builders_of_one_environment_wait_for_each_other(wheels: Path, tmp_path: Path) -> None:
    text = f"--find-links {wheels}\npond-words==1.0\n"
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: environment_for(text, "", tmp_path), range(4)))
    assert len(set(found)) == 1
    assert [each.name for each in tmp_path.iterdir() if each.is_dir()] == [found[0].parent.parent.name]


def test_a_builder_that_is_killed_leaves_nothing_that_counts(wheels: Path, tmp_path: Path) -> None:
    text = f"--find-links {wheels}\npond-words==2.0\n"
    code = (
        "import sys; from pathlib import Path; from millpond.serving.lanes.environments import environment_for\n"
        "environment_for(sys.argv[1], '', Path(sys.argv[2]))"
    )
    builder = subprocess.Popen([sys.executable, "-c", code, text, str(tmp_path)])
    until = time.monotonic() + 30
    while not list(tmp_path.glob("*.building-*")):
        assert time.monotonic() < until
        time.sleep(0.001)
    os.kill(builder.pid, signal.SIGKILL)
    builder.wait()
    python = environment_for(text, "", tmp_path)
    code = "import pond_words; print(pond_words.say('hi'))"
    said = subprocess.run([python, "-c", code], capture_output=True, check=True)
    assert said.stdout.strip() == b"hi by 2"


def test_packages_that_cannot_be_had(wheels: Path, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="pond-words==7") as caught:
        environment_for(f"--find-links {wheels}\npond-words==7.0\n", "", tmp_path)
    assert "uv said:" in caught.value.what
    assert not [each for each in tmp_path.iterdir() if each.is_dir()]
