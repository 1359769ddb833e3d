"""The command `millpond skew`, as it is run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from millpond.platform.platform import Platform
from millpond.platform.predictions import predict_rows

pytestmark = pytest.mark.slow


def run(shop: Platform, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("millpond")), "--project", str(shop.settings.root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert "Traceback" not in done.stderr
    return done


def test_it_reports_and_fails_only_when_it_is_asked_to(shop: Platform, orders_to_ask: Any) -> None:
    predict_rows(shop, "returned", orders_to_ask(30))
    honest = run(shop, "skew", "returned", "--all", "--fail", "--json")
    assert honest.returncode == 0
    report = json.loads(honest.stdout)
    assert (report["clean"], report["looked_at"], report["sample"]) == (True, 30, None)
    assert report["page"] == "/models/returned/skew?version=1"

    shop.lake.overwrite("people", pa.table({"customer_id": ["c13"], "age": [-7], "town": ["Nirgendwo"]}))
    told = run(shop, "skew", "returned", "--sample", "30")
    assert told.returncode == 0
    assert "person__age: " in told.stdout
    assert "millpond.skew" in told.stdout
    assert "gone c" in told.stdout
    assert "millpond trace p_" in told.stderr
    failed = run(shop, "skew", "returned", "--fail", "--json")
    assert failed.returncode == 5
    assert json.loads(failed.stdout)["clean"] is False

    table = run(shop, "table", "show", "millpond.skew", "--json")
    assert table.returncode == 0


def test_bad_input_has_its_exit_code(shop: Platform) -> None:
    for arguments, code, word in (
        (("skew", "nothing"), 4, "nothing"),
        (("skew", "returned"), 4, "answered no prediction"),
        (("skew", "returned", "--sample", "0"), 6, "0 predictions"),
        (("skew", "returned", "--sample", "5", "--all"), 6, "exclude"),
        (("skew", "returned", "--since", "soon"), 6, "soon"),
        (("skew", "returned", "--since", "2026-01-02", "--until", "2026-01-01"), 6, "window ends"),
        (("skew", "returned", "--version", "one"), 2, "--version"),
    ):
        done = run(shop, *arguments)
        assert (done.returncode, word in done.stderr) == (code, True), (arguments, done.stderr)
