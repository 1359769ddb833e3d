"""Millpond under the same loads: `millpond up` on a project, asked at its serving port with a token."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from benchmarks.inference import bodies, load
from benchmarks.inference.bodies import Case
from benchmarks.inference.load import Tree, say
from benchmarks.inference.measure import EVERY, SMALL, Effort, Load, Measured, press, wait

NAME = "Millpond"
WORKER = "millpond.server.worker"
LOADS: dict[str, Sequence[Load]] = {
    "lightgbm": EVERY,
    "keyed": SMALL,
    "mixed": EVERY,
    "sampled": SMALL,
    "neighbours": EVERY,
}
_AGAIN = 60.0  # seconds that each model has to answer, also after the serving process was killed


@dataclass
class Worker:
    """The serving process, with every model of the project.

    Attributes:
        memory: MiB, after all loads.
        ready: Seconds from its start to its first correct answer, when it replaced one that was killed.
        reason: Why there are no figures.
    """

    memory: float = 0.0
    ready: float = 0.0
    reason: str = ""


def measure(folder: Path, models: Sequence[str], effort: Effort) -> tuple[list[Measured], Worker]:
    """Measure Millpond on some models, all in one project; what keeps one from being measured is in its `reason`."""
    found, worker = [Measured(NAME, model) for model in models], Worker()
    try:
        with _up(folder) as (tree, url, token), _client(token) as client:
            for index, measured in enumerate(found):
                _model(measured, folder, tree, url, token, client, effort, asked=index > 0)
            first = next((each.model for each in found if not each.reason), None)
            if first is not None:
                _worker(worker, Case.read(folder, first), tree, _address(url, first), client)
    except (SystemExit, OSError, subprocess.SubprocessError, httpx.HTTPError) as failed:
        worker.reason = _text(failed)
        for measured in found:
            if not measured.windows:
                measured.reason = measured.reason or worker.reason
    return found, worker


def _model(
    measured: Measured,
    folder: Path,
    tree: Tree,
    url: str,
    token: str,
    client: httpx.Client,
    effort: Effort,
    *,
    asked: bool,
) -> None:
    case, address = Case.read(folder, measured.model), _address(url, measured.model)
    body, read = bodies.open_inference, bodies.read_tensors
    try:
        ready = wait(tree, partial(bodies.missing, case, body, read, client, address), _AGAIN)
        measured.ready = 0.0 if asked else ready
        bodies.check(case, body, read, client, address)
        press(measured, tree, address, bodies.write(folder, case, body), LOADS[measured.model], effort, token)
    except (SystemExit, subprocess.SubprocessError, httpx.HTTPError) as failed:
        measured.reason = _text(failed)
        say(f"  {NAME} on {measured.model}: {measured.reason}")


def _worker(worker: Worker, case: Case, tree: Tree, address: str, client: httpx.Client) -> None:
    """Its memory; then it is killed, and the next one is waited for: questions meanwhile wait at the port."""
    before = tree.find(WORKER)
    if before is None:
        raise SystemExit(f"there is no process of {WORKER}")
    worker.memory = load.proportional_memory(before)
    os.kill(before, signal.SIGKILL)
    until = time.monotonic() + _AGAIN
    while time.monotonic() < until:
        now = tree.find(WORKER)
        if now in (None, before):
            time.sleep(0.005)
        elif not bodies.missing(case, bodies.open_inference, bodies.read_tensors, client, address):
            worker.ready = load.age(now)
            return
    raise SystemExit(f"the serving process was not replaced within {_AGAIN:.0f} s")


@contextmanager
def _up(folder: Path) -> Iterator[tuple[Tree, str, str]]:
    """`millpond up`: its processes, the address for predictions, and a token."""
    project = folder / "project"
    command = [str(Path(sys.executable).with_name("millpond")), "--project", str(project), "up", "--port", "0"]
    with load.started([*command, "--json"], project, folder / "millpond.log", {}, subprocess.PIPE) as tree:
        announced = _announced(tree)
        _settle(announced["url"])
        yield tree, announced["serving"], (project / ".millpond" / "token").read_text().strip()


def _settle(url: str) -> None:
    """Let the control process load MLflow first, which takes seconds of the core that predictions are measured on."""
    until = time.monotonic() + _AGAIN
    while time.monotonic() < until:
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/healthz").json()["mlflow"] == "ready":
                return
        time.sleep(0.2)
    raise SystemExit(f"MLflow was not loaded within {_AGAIN:.0f} s")


def _announced(tree: Tree) -> dict[str, Any]:
    text = ""
    assert tree.process.stdout is not None
    while not text.rstrip().endswith("}"):
        line = tree.process.stdout.readline()
        if not line:
            raise SystemExit(f"`millpond up` ended with {tree.process.wait()}")
        text += line
    return dict(json.loads(text))


def _client(token: str) -> httpx.Client:
    return httpx.Client(headers={"authorization": f"Bearer {token}"}, timeout=30)


def _address(url: str, model: str) -> str:
    return f"{url}/v2/models/{model}/infer"


def _text(failed: BaseException) -> str:
    return " ".join(str(failed).split())[:300] or type(failed).__name__
