"""wrk on one core against a server on another, and what the server's processes use meanwhile."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchmarks import processes
from benchmarks.keeper import descendants
from benchmarks.processes import CLIENT_CORE, SERVER_CORE

_TICKS = os.sysconf("SC_CLK_TCK")
_SCRIPT = Path(__file__).with_name("rotate.lua")
_SETTLE = 5.0  # seconds that a server has for what it was asked when wrk hung up


@dataclass(frozen=True)
class Window:
    """What wrk and the processors showed during some seconds.

    Attributes:
        requests: Answered a second.
        p50, p99: Latency, microseconds.
        cpu: Processor time of all the server's processes, microseconds a request.
        failed: Requests that were not answered with success.
        client: Share of its core that wrk used; near 1, it could not ask any faster.
        foreign: Share of the server's core, or of wrk's where that is more, that others used.
    """

    requests: float
    p50: float
    p99: float
    cpu: float
    failed: int
    client: float
    foreign: float


class Tree:
    """A server's processes under its keeper, those it starts later included; also those whose parent has ended."""

    def __init__(self, keeper: subprocess.Popen[str]) -> None:
        self.keeper = keeper

    def ids(self) -> list[int]:
        return descendants(self.keeper.pid)

    def cpu(self) -> float:
        """Seconds so far."""
        return sum(map(_seconds, self.ids()))

    def memory(self) -> float:
        """MiB; what processes share is counted once (PSS)."""
        return sum(map(proportional_memory, self.ids()))

    def age(self) -> float:
        """Seconds since the first process started; 0 before."""
        return max(map(age, self.ids()), default=0.0)

    def find(self, *words: str) -> int | None:
        """The first process whose command line has all of these words."""
        for each in self.ids():
            with suppress(OSError):
                line = Path(f"/proc/{each}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if all(word in line for word in words):
                    return each
        return None

    def pin(self, core: int) -> None:
        """Keep every thread to one core; those that they start later inherit it."""
        for each in [self.keeper.pid, *self.ids()]:
            with suppress(OSError):
                for task in Path(f"/proc/{each}/task").iterdir():
                    with suppress(ProcessLookupError):
                        os.sched_setaffinity(int(task.name), {core})

    def settle(self) -> None:
        """Wait until the server has done what it was asked."""
        until = time.monotonic() + _SETTLE
        before = self.cpu()
        while time.monotonic() < until:
            time.sleep(0.15)
            now = self.cpu()
            if now - before < 0.04:
                return
            before = now


@contextmanager
def started(
    command: Sequence[str],
    folder: Path,
    log: Path,
    variables: Mapping[str, str],
    core: int | None,
    output: int | IO[str] | None = None,
    input: int = subprocess.DEVNULL,
) -> Iterator[Tree]:
    """Start a server on a core, or on all; its processes have ended when the block ends, and when we end."""
    with log.open("w") as said:
        keeper = subprocess.Popen(
            processes.kept(command, core),
            cwd=folder,
            env={**os.environ, **variables},
            stdin=input,
            stdout=said if output is None else output,
            stderr=said,
            text=True,
            start_new_session=True,
        )
        try:
            yield Tree(keeper)
        finally:
            keeper.terminate()
            keeper.wait()


def press(tree: Tree, url: str, file: Path, connections: int, seconds: int, token: str | None = None) -> Window:
    """One window of wrk.

    Raises:
        SystemExit: wrk cannot be run.
    """
    program = shutil.which("wrk")
    if program is None:
        raise SystemExit("The benchmark needs wrk on the PATH, and there is none: Debian's package wrk has it")
    command = ["taskset", "-c", str(CLIENT_CORE), program, "-t1", f"-c{connections}", f"-d{seconds}s"]
    command += ["--timeout", "30s", "-s", str(_SCRIPT), url, "--", str(file), *([f"Bearer {token}"] if token else [])]
    cpu, cores, began = tree.cpu(), _busy(), time.perf_counter()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 60)
    took = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = tree.cpu() - cpu
    client = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    server_busy, client_busy = (now - before for now, before in zip(_busy(), cores, strict=True))
    if done.returncode:
        raise SystemExit(f"wrk failed: {done.stderr.strip() or done.stdout.strip()}")
    figures = json.loads(done.stdout.strip().splitlines()[-1])
    answered = max(1, figures["requests"])
    return Window(
        requests=figures["requests"] / figures["microseconds"] * 1e6,
        p50=figures["p50"],
        p99=figures["p99"],
        cpu=cpu / answered * 1e6,
        failed=figures["failed"],
        client=client / took,
        foreign=max(0.0, server_busy - cpu, client_busy - client) / took,
    )


def undisturbed(tree: Tree, work: Callable[[], float]) -> tuple[float, float]:
    """What some work of a process on the server's core gives, and the share of that core that others used meanwhile."""
    cpu, busy, began = tree.cpu(), _busy()[0], time.perf_counter()
    found = work()
    took = time.perf_counter() - began
    return found, max(0.0, _busy()[0] - busy - (tree.cpu() - cpu)) / took


def _busy() -> list[float]:
    """Seconds that the server's and the client's core were not free since the machine started."""
    found = []
    lines = Path("/proc/stat").read_text().splitlines()
    for core in (SERVER_CORE, CLIENT_CORE):
        line = next(each for each in lines if each.startswith(f"cpu{core} "))
        user, nice, system, _, _, irq, soft, steal = (int(each) for each in line.split()[1:9])
        found.append((user + nice + system + irq + soft + steal) / _TICKS)
    return found


def proportional_memory(process: int) -> float:
    """PSS in MiB; 0 of a process that has ended."""
    with suppress(OSError):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    return 0.0


def age(process: int) -> float:
    """Seconds since a process started, to a hundredth; 0 of one that has ended."""
    with suppress(OSError):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / _TICKS
    return 0.0


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _seconds(process: int) -> float:
    with suppress(OSError):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS
    return 0.0
