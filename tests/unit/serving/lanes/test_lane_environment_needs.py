from __future__ import annotations

import sys
from pathlib import Path

import numpy
import pytest

from millpond.core.errors import MillpondError, Unavailable
from millpond.serving.lanes.environments import Needs, environment_for, needs_of

CONDA = """
dependencies:
- python=3.10.4
- pip<=25
- pip:
  - mlflow==3.0.0
  - numpy
"""


def test_needs_are_what_the_model_says(tmp_path: Path) -> None:
    assert needs_of(tmp_path) == Needs("", "")
    (tmp_path / "millpond").mkdir()
    (tmp_path / "millpond" / "environment.txt").write_text("all==1.0\n")
    assert needs_of(tmp_path) == Needs("all==1.0\n", "")
    (tmp_path / "conda.yaml").write_text(CONDA)
    assert needs_of(tmp_path) == Needs("mlflow==3.0.0\nnumpy\n", "3.10.4")
    (tmp_path / "requirements.txt").write_text("idna\n")
    (tmp_path / "python_env.yaml").write_text("python: 3.12.1\n")
    assert needs_of(tmp_path) == Needs("idna\n", "3.12.1")
    (tmp_path / "conda.yaml").write_text("a: [")
    with pytest.raises(MillpondError, match=r"conda\.yaml"):
        needs_of(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"numpy=={numpy.__version__}\n",
        "# a comment\nNumPy>=2 # why\npandas[performance]==0.0.1 ; python_version < '3'\n",
        "millpond==99\n-e .\n./local.whl\n/else/where.whl\nown @ file:///somewhere\n--index-url x\nnumpy \\\n  >=2\n",
        "millpond[spark]==99\n-r other.txt\nfile:///somewhere.whl\n",
    ],
)
def test_the_present_interpreter_is_used_where_it_has_all(text: str, tmp_path: Path) -> None:
    present = f"{sys.version_info.major}.{sys.version_info.minor}.99"
    assert environment_for(text, present, tmp_path) == Path(sys.executable)
    assert environment_for(text, "", tmp_path) == Path(sys.executable)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "python"), [("numpy==1.0\n", ""), ("no-such-package-here\n", ""), ("millpond-else\n", ""), ("", "3.7")]
)
def test_without_uv_the_error_says_how_to_get_it(
    text: str, python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(Unavailable, match="no uv") as caught:
        environment_for(text, python, tmp_path / "environments")
    assert "pip install uv" in caught.value.hint
