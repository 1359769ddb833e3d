"""Child processes: started, logged, started again when they end, and ended with the control process."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Literal

from millpond.core.capped_log import CappedLog
from millpond.core.child_processes import WATCH, BackOff, Watch, guarded, kill_group
from millpond.core.time import now

_log = logging.getLogger("millpond.server")

ChildState = Literal["starting", "running", "waiting", "stopped"]


@dataclass(frozen=True)
class Child:
    """A process that belongs to the platform.

    Attributes:
        name: Names its log, `NAME.log`.
        command: The program and its arguments.
        environment: Added to the control process' own.
        directory: Where it runs; None means where the control process does.
        socket: Its Unix socket; a stale one is removed before each start.
        inherited: Descriptors that it gets, under their own numbers, each time it is started.
        grace: Seconds between SIGTERM and SIGKILL on stop; None takes the supervisor's.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: Path | None = None
    socket: Path | None = None
    inherited: Sequence[int] = ()
    grace: float | None = None


@dataclass(frozen=True)
class ChildStatus:
    """How a child is.

    Attributes:
        name: As in `Child`.
        state: "waiting" between an end and the next start.
        pid: Its process id while it runs.
        restarts: Times it was started again.
        since: When it came into this state; UTC.
        exit_code: Of its last end; negative for a signal; None before the first.
    """

    name: str
    state: ChildState
    pid: int | None
    restarts: int
    since: datetime
    exit_code: int | None = None


class Supervisor:
    """Keeps children running until it is stopped.

    A child ends with the control process even when that is killed: on Linux by the kernel, which ties a child to the
    thread that started it; each child therefore has a thread here that lives as long as the supervisor. Elsewhere the
    child's guard watches a pipe. A child's own children must see to themselves.

    Args:
        logs: Directory of the logs; each is capped, with one older piece kept.
        back_off: How long to wait before restarts.
        grace: Seconds between SIGTERM and SIGKILL on stop.
        watch: "kernel" on Linux, "pipe" elsewhere.
    """

    def __init__(
        self, logs: Path, *, back_off: BackOff | None = None, grace: float = 3.0, watch: Watch | None = None
    ) -> None:
        self._logs = logs
        self._back_off = back_off or BackOff()
        self._grace = grace
        self._watch: Watch = watch or WATCH
        self._keepers: list[_Keeper] = []

    def start(self, child: Child) -> None:
        """Start a child, and keep it running. Returns at once; a command that is not there shows in its log."""
        log = CappedLog(self._logs / f"{child.name}.log")
        keeper = _Keeper(child, log, self._back_off, self._watch)
        self._keepers.append(keeper)
        keeper.start()

    def status(self) -> tuple[ChildStatus, ...]:
        return tuple(keeper.status for keeper in self._keepers)

    def stop(self) -> None:
        """End all children: SIGTERM to each process group, SIGKILL after the grace. None is left when it returns."""
        for keeper in self._keepers:
            keeper.end(signal.SIGTERM)
        began = time.monotonic()
        for keeper in sorted(self._keepers, key=self._grace_of):
            keeper.join(max(0.0, began + self._grace_of(keeper) - time.monotonic()))
            keeper.end(signal.SIGKILL)
        for keeper in self._keepers:
            keeper.join(5.0)

    def _grace_of(self, keeper: _Keeper) -> float:
        return self._grace if keeper.child.grace is None else keeper.child.grace


class _Keeper(threading.Thread):
    """Starts one child again and again."""

    def __init__(self, child: Child, log: CappedLog, back_off: BackOff, watch: Watch) -> None:
        super().__init__(name=f"keeper of {child.name}", daemon=True)
        self.child, self._output, self._back_off, self._watch = child, log, back_off, watch
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self.status = ChildStatus(child.name, "starting", None, 0, now())

    def run(self) -> None:
        failures = restarts = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            code = self._run_once(restarts)
            if self._stopping.is_set():
                break
            failures = 1 if time.monotonic() - began >= self._back_off.healthy else failures + 1
            wait = self._back_off.after(failures)
            restarts += 1
            _log.warning("%s ended with exit code %s; starting it again in %.1f s", self.child.name, code, wait)
            self._output.note(f"ended with exit code {code}; started again in {wait:.1f} s")
            self.status = ChildStatus(self.child.name, "waiting", None, restarts, now(), code)
            self._stopping.wait(wait)
        last = self._process.returncode if self._process is not None else None
        self.status = ChildStatus(self.child.name, "stopped", None, restarts, now(), last)

    def _run_once(self, restarts: int) -> int | None:
        """Start the child and wait for its end; its exit code, or None where it could not be started."""
        try:
            process = self._spawn()
        except OSError as error:
            self._output.note(f"cannot be started: {error}")
            return None
        if process is None:
            return None
        self.status = ChildStatus(self.child.name, "running", process.pid, restarts, now(), self.status.exit_code)
        code = process.wait()
        if process.stdin is not None:
            process.stdin.close()
        kill_group(process.pid, signal.SIGKILL)  # what the child has left behind
        return code

    def end(self, how: signal.Signals) -> None:
        self._stopping.set()
        with self._lock:
            process = self._process
        if process is not None and process.returncode is None:
            kill_group(process.pid, how)

    def _spawn(self) -> subprocess.Popen[bytes] | None:
        if self.child.socket is not None:
            self.child.socket.unlink(missing_ok=True)
        with self._lock:
            if self._stopping.is_set():
                return None
            process = subprocess.Popen(
                guarded(self.child.command, self._watch),
                stdin=subprocess.PIPE if self._watch == "pipe" else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self.child.directory,
                env={**os.environ, **self.child.environment},
                start_new_session=True,
                pass_fds=tuple(self.child.inherited),
            )
            self._process = process
        assert process.stdout is not None
        threading.Thread(target=_copy, args=(process.stdout, self._output), daemon=True).start()
        return process


def _copy(source: IO[bytes], log: CappedLog) -> None:
    """Until the child and all that inherited its output have ended; never lets the child wait."""
    with source:
        while chunk := os.read(source.fileno(), 65536):
            log.write(chunk)
