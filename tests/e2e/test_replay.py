"""What is served while events come in is what training would have seen: the first hours of December, replayed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

REPLAY = Path(__file__).resolve().parents[2] / "examples" / "flights" / "replay.py"


def test_nothing_differs(flights):
    command = [sys.executable, str(REPLAY), "--project", str(flights.folder), "--days", "0.6"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    asked = int(re.search(r"(\d+) predictions in", done.stdout)[1])
    compared, different = re.search(r"([\d,]+) feature values compared, (\d+) differ", done.stdout).groups()
    assert asked > 200
    assert int(compared.replace(",", "")) == asked * 21
    assert different == "0"
