"""What a person waits for at the server: start to ready, one prediction over HTTP, and `--help`."""

from __future__ import annotations

import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks import processes

ROOT = Path(__file__).resolve().parents[1]
REQUESTS = 100
DEPARTURE = {
    "carrier": "UA",
    "origin": "EWR",
    "dest": "ORD",
    "distance": 719,
    "tailnum": "N847UA",
    "scheduled_at": "2013-12-10T20:15:00Z",
}


def run() -> list[dict[str, Any]]:
    """Walk the flights once, then measure."""
    millpond = str(Path(sys.executable).with_name("millpond"))
    helps = [seconds([millpond, "--help"]) for _ in range(7)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("millpond.toml", "definitions.py", "sources.py", "flights.sql"):
            shutil.copy(ROOT / "examples" / "flights" / file, folder)
        project = [millpond, "--project", str(folder)]
        for command in (["ingest"], ["train"], ["feature", "refresh"]):
            subprocess.run([*project, *command], check=True, capture_output=True)
        answers, ready, times = serve(project, folder)
    return [
        {
            "name": "millpond --help",
            "value": statistics.median(helps),
            "goal": 0.3,
            "unit": "s",
            "note": "median of 7",
        },
        {"name": "up: first answer", "value": answers, "goal": None, "unit": "s", "note": "console and API"},
        {
            "name": "up: ready to predict",
            "value": ready,
            "goal": None,
            "unit": "s",
            "note": "the worker has the champion",
        },
        {
            "name": "one prediction over HTTP, p50",
            "value": statistics.median(times) * 1000,
            "goal": None,
            "unit": "ms",
            "note": f"18 features looked up online, logged durably; {REQUESTS} requests one after another",
        },
        {
            "name": "one prediction over HTTP, p99",
            "value": sorted(times)[int(0.99 * len(times)) - 1] * 1000,
            "goal": None,
            "unit": "ms",
            "note": "",
        },
    ]


def seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def serve(project: list[str], folder: Path) -> tuple[float, float, list[float]]:
    began = time.perf_counter()
    process = subprocess.Popen(
        processes.kept([*project, "up", "--port", "0", "--json"]),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        announced = ""
        while not announced.rstrip().endswith("}"):
            assert process.stdout is not None
            announced += process.stdout.readline()
        answers = time.perf_counter() - began
        headers = {"authorization": f"Bearer {(folder / '.millpond' / 'token').read_text().strip()}"}
        with httpx.Client(base_url=json.loads(announced)["url"], headers=headers, timeout=60) as client:
            while client.get("/v2/health/ready").status_code != 200:
                time.sleep(0.05)
            ready = time.perf_counter() - began
            return answers, ready, [ask(client) for _ in range(REQUESTS)]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def ask(client: httpx.Client) -> float:
    inputs = [
        {"name": name, "shape": [1], "datatype": "INT64" if isinstance(value, int) else "BYTES", "data": [value]}
        for name, value in DEPARTURE.items()
    ]
    began = time.perf_counter()
    client.post("/v2/models/late_arrival/infer", json={"inputs": inputs}).raise_for_status()
    return time.perf_counter() - began
