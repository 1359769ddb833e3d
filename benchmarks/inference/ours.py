"""Millpond under the same loads: `millpond up` on a project, asked at its serving port with a token."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from benchmarks import processes
from benchmarks.inference import bodies, load
from benchmarks.inference.bodies import Case
from benchmarks.inference.load import Tree, say
from benchmarks.inference.measure import (
    EVERY,
    FAILURES,
    LARGE,
    SMALL,
    Effort,
    Load,
    Measured,
    Target,
    bare,
    in_turn,
    press,
    told,
    wait,
)

NAME = "Millpond"
WORKER = "millpond.server.worker"
LOADS: dict[str, Sequence[Load]] = {
    "lightgbm": EVERY,
    "keyed": SMALL,
    "mixed": EVERY,
    "sampled": SMALL,
    "neighbours": EVERY,
}
TURNS = {"keyed": "lightgbm", "mixed": "sampled"}  # models that are measured in turn
NATIVE = "neighbours"  # answered by its own process, in turn with the bare call of its estimator
_AGAIN = 60.0  # seconds that each model has to answer, also after the serving process was killed
_UP = 240.0  # seconds that the control process has to load MLflow, as long as peers have to start


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


@dataclass
class Ours:
    """Millpond, measured; it runs on, for peers to be measured in turn with.

    Attributes:
        targets: By model, of those that answer.
    """

    found: list[Measured]
    worker: Worker
    targets: dict[str, Target] = field(default_factory=dict)


@contextmanager
def running(folder: Path, effort: Effort) -> Iterator[Ours]:
    """Measure Millpond on every model, all in one project; what keeps one from being measured is in its `reason`."""
    ours = Ours([Measured(NAME, model) for model in LOADS], Worker())
    with ExitStack() as stack:
        try:
            tree, url, token = stack.enter_context(_up(folder))
            with _client(token) as client:
                for measured in ours.found:
                    target = Target(tree, _address(url, measured.model), {}, token)
                    _model(ours, measured, folder, target, client, effort)
                first = next(iter(ours.targets), None)
                if first is not None:
                    _worker(ours.worker, Case.read(folder, first), tree, _address(url, first), client)
        except FAILURES as failed:
            ours.worker.reason = told(failed)
            for measured in ours.found:
                if not measured.windows:
                    measured.reason = measured.reason or ours.worker.reason
        yield ours


def _model(ours: Ours, measured: Measured, folder: Path, target: Target, client: httpx.Client, effort: Effort) -> None:
    model, (body, read) = measured.model, (bodies.open_inference, bodies.read_tensors)
    try:
        case = Case.read(folder, model)
        ready = wait(target.tree, partial(bodies.missing, case, body, read, client, target.url), _AGAIN)
        measured.ready = 0.0 if ours.targets else ready
        bodies.check(case, body, read, client, target.url)
        target = replace(target, files=bodies.write(folder, case, body))
        press(measured, target, LOADS[model], effort)
        ours.targets[model] = target
        for first, second in TURNS.items():
            if model in (first, second) and {first, second} <= {*ours.targets}:
                by = next(each for each in ours.found if each.model == first)
                in_turn(by, ours.targets[first], ours.targets[second], effort)
        if model == NATIVE:
            with bare(folder, model) as call:
                in_turn(measured, target, call, effort, LARGE)
    except FAILURES as failed:
        measured.reason = told(failed)
        say(f"  {NAME} on {model}: {measured.reason}")


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
    log, core = folder / "millpond.log", processes.SERVER_CORE
    with load.started([*command, "--json"], project, log, {}, core, subprocess.PIPE) as tree:
        announced = _announced(tree)
        _settle(announced["url"])
        yield tree, announced["serving"], (project / ".millpond" / "token").read_text().strip()


def _settle(url: str) -> None:
    """Let the control process load MLflow first, which takes seconds of the core that predictions are measured on."""
    until = time.monotonic() + _UP
    while time.monotonic() < until:
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/healthz").json()["mlflow"] == "ready":
                return
        time.sleep(0.2)
    raise SystemExit(f"MLflow was not loaded within {_UP:.0f} s")


def _announced(tree: Tree) -> dict[str, Any]:
    text = ""
    assert tree.keeper.stdout is not None
    while not text.rstrip().endswith("}"):
        line = tree.keeper.stdout.readline()
        if not line:
            raise SystemExit(f"`millpond up` ended with {tree.keeper.wait()}")
        text += line
    return dict(json.loads(text))


def _client(token: str) -> httpx.Client:
    return httpx.Client(headers={"authorization": f"Bearer {token}"}, timeout=30)


def _address(url: str, model: str) -> str:
    return f"{url}/v2/models/{model}/infer"
