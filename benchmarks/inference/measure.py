"""One server on one model: started, checked, asked under every load."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx

from benchmarks import processes
from benchmarks.inference import bodies, load
from benchmarks.inference.bodies import MANY, Case
from benchmarks.inference.load import Tree, Window, say
from benchmarks.inference.servers import Launch, Server, refuse_occupied

_FIRST_ANSWER = 120.0  # seconds that a server has
CONNECTIONS = (1, 16, 64)


@dataclass(frozen=True)
class Load:
    """So many rows in each request, over so many connections that wait for their answer before they ask again."""

    rows: int
    connections: int

    def __str__(self) -> str:
        return f"{self.rows:,} row{'s' * (self.rows > 1)}, {self.connections} at once"


SMALL = tuple(Load(1, each) for each in CONNECTIONS)
EVERY = (*SMALL, *(Load(MANY, each) for each in CONNECTIONS))
FEW = (Load(1, 1), Load(1, 64), Load(MANY, 16))


@dataclass(frozen=True)
class Effort:
    """How long and how often it is measured.

    Attributes:
        seconds: Length of a window.
        windows: Windows of each load of the LightGBM; the best counts.
    """

    seconds: int = 2
    windows: int = 2


@dataclass
class Measured:
    """A server's figures on a model; `reason` says why there are none.

    Attributes:
        ready: Seconds from the start of its first process to its first correct answer.
        memory: MiB of all its processes after the small requests.
    """

    server: str
    model: str
    windows: dict[Load, Window] = field(default_factory=dict)
    ready: float = 0.0
    memory: float = 0.0
    reason: str = ""

    def requests(self, rows: int, connections: int) -> float:
        """Requests a second; 0 where they were not measured."""
        found = self.windows.get(Load(rows, connections))
        return found.requests if found else 0.0

    def most_rows(self) -> float:
        """The most rows a second in large requests, of all numbers of connections."""
        return max((each.requests * at.rows for at, each in self.windows.items() if at.rows == MANY), default=0.0)


def peer(server: Server, folder: Path, model: str, loads: Sequence[Load], effort: Effort) -> Measured:
    """Measure a peer; what keeps it from being measured is in `reason`."""
    measured = Measured(server.name, model)
    try:
        python = processes.peer(server.environment)
        case = Case.read(folder, model)
        with tempfile.TemporaryDirectory(dir=folder) as name:
            launch = server.launch(python, folder / "models" / model, Path(name), case)
            with _running(launch, folder) as tree, httpx.Client(timeout=30) as client:
                ask = partial(bodies.missing, case, server.body, server.read, client, launch.url)
                measured.ready = wait(tree, ask)
                bodies.check(case, server.body, server.read, client, launch.url)
                files = bodies.write(folder, case, server.body)
                press(measured, tree, launch.url, files, loads, effort)
    except (SystemExit, OSError, subprocess.SubprocessError, httpx.HTTPError) as failed:
        measured.reason = " ".join(str(failed).split())[:300] or type(failed).__name__
        say(f"  {server.name} on {model}: {measured.reason}")
    return measured


def hello(name: str, launch: Launch, folder: Path, effort: Effort) -> Measured:
    """Measure a server that says hello to the small requests of the LightGBM."""
    measured = Measured(name, "lightgbm")
    file = bodies.write(folder, Case.read(folder, "lightgbm"), bodies.open_inference)
    with _running(launch, folder) as tree:
        measured.ready = wait(tree, partial(_silent, launch.url))
        press(measured, tree, launch.url, file, SMALL, effort)
    return measured


def press(
    measured: Measured,
    tree: Tree,
    url: str,
    files: dict[int, Path],
    loads: Sequence[Load],
    effort: Effort,
    token: str | None = None,
) -> None:
    """Warm up, then measure each load; of several windows, the one with the most requests counts."""
    load.press(tree, url, files[1], 16, 1, token)
    for at in loads:
        windows = []
        for _ in range(effort.windows):
            tree.settle()
            windows.append(load.press(tree, url, files[at.rows], at.connections, effort.seconds, token))
        best = measured.windows[at] = max(windows, key=lambda each: each.requests)
        say(
            f"  {measured.server} on {measured.model}, {at}: {best.requests:,.0f}/s, p50 {best.p50:,.0f} µs, "
            f"p99 {best.p99:,.0f} µs, {best.cpu:,.0f} µs of processor a request"
        )
        if best.failed:
            raise SystemExit(f"{best.failed} requests failed at {at}")
        if at == Load(1, 64):
            measured.memory = tree.memory()


def wait(tree: Tree, missing: Callable[[], str], seconds: float = _FIRST_ANSWER) -> float:
    """Wait, at most so many seconds, until nothing is missing; seconds from the start of the server's first process.

    Raises:
        SystemExit: It ended, or took too long; what was missing is quoted.
    """
    until = time.monotonic() + seconds
    while (why := missing()) and time.monotonic() < until:
        if tree.process.poll() is not None:
            raise SystemExit(f"ended with {tree.process.returncode}")
        time.sleep(0.01)
    if why:
        raise SystemExit(f"gave no correct answer within {seconds:.0f} s: {why}")
    return load.age(tree.process.pid)


def _silent(url: str) -> str:
    try:
        answer = httpx.post(url, content=b"{}")
    except httpx.TransportError as error:
        return str(error)
    return "" if answer.is_success else f"answers {answer.status_code}"


@contextmanager
def _running(launch: Launch, folder: Path) -> Iterator[Tree]:
    """The server of a launch; when it fails, what it said last is quoted."""
    refuse_occupied(launch.url)
    log = folder / "server.log"
    try:
        with load.started(launch.command, processes.ROOT, log, launch.variables) as tree:
            yield tree
    except SystemExit as failed:
        lines = [line.strip(" |") for line in log.read_text(errors="replace").splitlines()]
        told = [line for line in lines if any(word in line.lower() for word in ("error", "unavailable", "exception"))]
        raise SystemExit(" | ".join([str(failed), *told[-2:]])) from None
