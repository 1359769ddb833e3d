"""A process of a version with one caller who waits."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from millpond.core.errors import MillpondError, RequestError, Unavailable
from millpond.serving.lanes.client import BlockingProcess
from millpond.serving.rows import Rows

CHILD = Path(__file__).with_name("child.py")
RAISE, EXIT, PRINT, DENY, SHORT = -1, -2, -6, -9, -10
NAME = "version 3 of model 'x'"


def process(folder: Path, *how: str) -> BlockingProcess:
    return BlockingProcess((sys.executable, str(CHILD), *how), name=NAME, log=folder / "batch.log")


def ask(running: BlockingProcess, *values: float) -> list[float]:
    found = running.call(Rows.of({"x": [float(each) for each in values]})).columns["output"]
    return [float(each) for each in found]


@pytest.mark.slow
def test_calls_are_answered_and_errors_end_nothing(tmp_path: Path) -> None:
    with process(tmp_path) as running:
        assert ask(running, 1, 2, 3) == [2, 4, 6]
        many = np.arange(300_000, dtype=float)
        assert ask(running, *many) == (many * 2).tolist()
        with pytest.raises(MillpondError, match="a value below zero"):
            ask(running, RAISE)
        with pytest.raises(RequestError, match="denied"):
            ask(running, DENY)
        with pytest.raises(MillpondError, match="gave 1 rows for 2"):
            ask(running, 1, SHORT)
        assert ask(running, 1, PRINT) == [2, 2 * PRINT]
        pid = running.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert b"garbage" in (tmp_path / "batch.log").read_bytes()


@pytest.mark.slow
def test_its_end_is_told(tmp_path: Path) -> None:
    with process(tmp_path) as running:
        with pytest.raises(Unavailable, match="ended its process \\(exit code 3\\)"):
            ask(running, EXIT)
        with pytest.raises(Unavailable, match="ended its process"):
            ask(running, 1)
    with (
        pytest.raises(Unavailable, match="does not start: ValueError: the artifact is corrupt"),
        process(tmp_path, "fail"),
    ):
        pass
    with pytest.raises(Unavailable, match="exit code 7.*no such library"), process(tmp_path, "exit"):
        pass
