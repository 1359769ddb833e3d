"""One server on one model: started, checked, asked under every load, by itself and in turn with Millpond."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import httpx

from benchmarks import processes
from benchmarks.inference import bodies, load
from benchmarks.inference.bodies import MANY, Case
from benchmarks.inference.load import Tree, Window, say
from benchmarks.inference.servers import Launch, Server, refuse_occupied

FAILURES = (SystemExit, OSError, ValueError, LookupError, subprocess.SubprocessError, httpx.HTTPError)
_FIRST_ANSWER = 240.0  # seconds that a server has
CONNECTIONS = (1, 16, 64)
CALM = 0.1  # share of a core that others may use in a window
SLOW = 300  # requests a second of 16 connections; so slow a server has longer windows for more


@dataclass(frozen=True)
class Load:
    """So many rows in each request, over so many connections that wait for their answer before they ask again."""

    rows: int
    connections: int

    def __str__(self) -> str:
        return f"{self.rows:,} row{'s' * (self.rows > 1)}, {self.connections} at once"


BUSY, LARGE = Load(1, 64), Load(MANY, 16)
SMALL = tuple(Load(1, each) for each in CONNECTIONS)
EVERY = (*SMALL, *(Load(MANY, each) for each in CONNECTIONS))


@dataclass(frozen=True)
class Effort:
    """How long the windows are, in seconds, and how many undisturbed ones of each load count."""

    seconds: int
    windows: int


@dataclass(frozen=True)
class Target:
    """A server that runs, asked for one model.

    Attributes:
        files: Its requests, by the number of rows in each.
    """

    tree: Tree
    url: str
    files: Mapping[int, Path]
    token: str | None = None

    def window(self, at: Load, seconds: int) -> Window:
        self.tree.settle()
        return load.press(self.tree, self.url, self.files[at.rows], at.connections, seconds, self.token)


class Asked(Protocol):
    """What can be measured in turn with something else."""

    def window(self, at: Load, seconds: int) -> Window:
        """Some seconds under a load."""
        ...


@dataclass(frozen=True)
class Bare:
    """A model's own call without a server, one after another, in a process on the servers' core."""

    tree: Tree

    def window(self, at: Load, seconds: int) -> Window:  # noqa: ARG002
        """See `Asked`; a request is one call with 1,000 rows."""
        requests, foreign = load.undisturbed(self.tree, partial(self._calls, seconds))
        return Window(requests, 0.0, 0.0, 0.0, 0, 0.0, foreign)

    def _calls(self, seconds: int) -> float:
        """Calls a second."""
        asked, told = self.tree.keeper.stdin, self.tree.keeper.stdout
        assert asked is not None
        assert told is not None
        print(seconds, file=asked, flush=True)
        line = told.readline()
        if not line:
            raise SystemExit(f"the bare call ended with {self.tree.keeper.wait()}")
        return float(line)


@dataclass(frozen=True)
class Pair:
    """Two servers in turn under the same load.

    Attributes:
        ratio: The median of the first's requests a second over the second's in the window after it.
        rates: The median requests a second of each.
        calm: Whether others left the cores alone.
    """

    ratio: float
    rates: tuple[float, float]
    calm: bool


@dataclass
class Measured:
    """A server's figures on a model; `reason` says why there are none.

    Attributes:
        pairs: Millpond on the same model, or another of its models, in turn with this.
        ready: Seconds from the start of its first process to its first correct answer; 0 where another model was first.
        memory: MiB of all its processes after the small requests.
    """

    server: str
    model: str
    windows: dict[Load, Window] = field(default_factory=dict)
    pairs: dict[Load, Pair] = field(default_factory=dict)
    ready: float = 0.0
    memory: float = 0.0
    reason: str = ""


def peer(
    server: Server, folder: Path, model: str, effort: Effort, beside: Target | None, turns: Sequence[Load]
) -> Measured:
    """Measure a peer, under some loads in turn with Millpond; what keeps it from being measured is in `reason`."""
    measured = Measured(server.name, model)
    try:
        python = processes.peer(server.environment)
        case = Case.read(folder, model)
        with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as name:
            launch = server.launch(python, folder / "models" / model, Path(name), case)
            with _running(launch, folder) as tree, httpx.Client(timeout=30) as client:
                ask = partial(bodies.missing, case, server.body, server.read, client, launch.url)
                measured.ready = wait(tree, ask)
                tree.pin(processes.SERVER_CORE)
                bodies.check(case, server.body, server.read, client, launch.url)
                target = Target(tree, launch.url, bodies.write(folder, case, server.body))
                press(measured, target, EVERY, effort, beside, turns)
    except FAILURES as failed:
        measured.reason = told(failed)
        say(f"  {server.name} on {model}: {measured.reason}")
    return measured


def hello(name: str, launch: Launch, folder: Path, effort: Effort, beside: Target | None) -> Measured:
    """Measure a server that says hello to the small requests of the LightGBM."""
    measured = Measured(name, "lightgbm")
    try:
        with _running(launch, folder) as tree:
            measured.ready = wait(tree, partial(_silent, launch.url))
            files = bodies.write(folder, Case.read(folder, "lightgbm"), bodies.open_inference)
            target = Target(tree, launch.url, files)
            press(measured, target, SMALL, effort, beside, [BUSY])
    except FAILURES as failed:
        measured.reason = told(failed)
        say(f"  {name}: {measured.reason}")
    return measured


def press(
    measured: Measured,
    target: Target,
    loads: Sequence[Load],
    effort: Effort,
    beside: Target | None = None,
    turns: Sequence[Load] = (),
) -> None:
    """Warm up, then measure each load: of the windows that others did not disturb, the one in the middle counts.

    Args:
        beside: Millpond, asked in turn under the loads of `turns`, so that whatever the machine does meets both.

    Raises:
        SystemExit: A request failed, or none was answered within a window.
    """
    warm = target.window(Load(1, 16), 1)
    for at in loads:
        seconds = _seconds(at, effort) * (2 if warm.requests < SLOW and at == BUSY else 1)

        def take(at: Load = at, seconds: int = seconds) -> list[Window]:
            asked = [beside, target] if beside and at in turns else [target]
            return [each.window(at, seconds) for each in asked]

        found = _calm(take, effort.windows)
        if failed := sum(each.failed for windows in found for each in windows):
            raise SystemExit(f"{failed} requests failed at {at}")
        if not all(each.requests for windows in found for each in windows):
            raise SystemExit(f"answered nothing within {seconds} s at {at}")
        own = sorted((windows[-1] for windows in found), key=lambda each: each.requests)
        middle = measured.windows[at] = own[(len(own) - 1) // 2]
        say(
            f"  {measured.server} on {measured.model}, {at}: {middle.requests:,.0f}/s, p50 {middle.p50:,.0f} µs, "
            f"p99 {middle.p99:,.0f} µs, {middle.cpu:,.0f} µs of processor a request, others {middle.foreign:.0%}"
        )
        if at == BUSY:
            measured.memory = target.tree.memory()
        if beside and at in turns:
            measured.pairs[at] = _pair(found)
            say(f"    Millpond in turn: {measured.pairs[at].ratio:.2f} x")


def in_turn(measured: Measured, first: Asked, second: Asked, effort: Effort, at: Load = BUSY) -> None:
    """Ask one of Millpond's models in turn with another, or with what does the same without a server."""
    seconds = _seconds(at, effort)
    found = _calm(lambda: [first.window(at, seconds), second.window(at, seconds)], effort.windows)
    measured.pairs[at] = _pair(found)


@contextmanager
def bare(folder: Path, model: str) -> Iterator[Bare]:
    """The bare call of a scikit-learn pipeline with a frame."""
    program = [sys.executable, "-m", "benchmarks.inference.peers.bare_call"]
    command = [*program, str(folder / "models" / model), str(folder / "cases" / f"{model}.json")]
    log, core = folder / "bare.log", processes.SERVER_CORE
    with load.started(command, processes.ROOT, log, {}, core, subprocess.PIPE, subprocess.PIPE) as tree:
        yield Bare(tree)


def _seconds(at: Load, effort: Effort) -> int:
    """Of large requests, those that are under way when a window ends are many of its own: it is made longer."""
    return effort.seconds * (1 if at.rows == 1 else 2 if at.connections == 1 else 4)


def _pair(found: Sequence[Sequence[Window]]) -> Pair:
    first, second = (statistics.median(windows[index].requests for windows in found) for index in (0, 1))
    ratio = statistics.median(mine.requests / its.requests for mine, its in found)
    return Pair(ratio, (first, second), all(each.foreign <= CALM for windows in found for each in windows))


def _calm(take: Callable[[], list[Window]], number: int) -> list[list[Window]]:
    """So many that others did not disturb; all, if after twice as many there is none."""
    found: list[list[Window]] = []
    calm: list[list[Window]] = []
    while len(calm) < number and len(found) < 2 * number:
        found.append(take())
        calm = [each for each in found if all(window.foreign <= CALM for window in each)]
    return calm or found


def wait(tree: Tree, missing: Callable[[], str], seconds: float = _FIRST_ANSWER) -> float:
    """Wait, at most so many seconds, until nothing is missing; seconds from the start of the server's first process.

    Raises:
        SystemExit: It ended, or took too long; what was missing is quoted.
    """
    until = time.monotonic() + seconds
    while (why := missing()) and time.monotonic() < until:
        if tree.keeper.poll() is not None:
            raise SystemExit(f"ended with {tree.keeper.returncode}")
        time.sleep(0.01)
    if why:
        raise SystemExit(f"gave no correct answer within {seconds:.0f} s: {why}")
    return tree.age()


def _silent(url: str) -> str:
    try:
        answer = httpx.post(url, content=b"{}")
    except httpx.TransportError as error:
        return str(error)
    return "" if answer.is_success else f"answers {answer.status_code}"


def told(failed: BaseException) -> str:
    """What a failure says, on one line."""
    return " ".join(str(failed).split())[:300] or type(failed).__name__


@contextmanager
def _running(launch: Launch, folder: Path) -> Iterator[Tree]:
    """The server of a launch; when it fails, what it said last is quoted."""
    refuse_occupied(launch.url)
    log = folder / "server.log"
    try:
        core = None if launch.roomy else processes.SERVER_CORE
        with load.started(launch.command, processes.ROOT, log, launch.variables, core) as tree:
            yield tree
    except SystemExit as failed:
        lines = [line.strip(" |") for line in log.read_text(errors="replace").splitlines()]
        said = [line for line in lines if any(word in line.lower() for word in ("error", "unavailable", "exception"))]
        raise SystemExit(" | ".join([str(failed), *said[-2:]])) from None
