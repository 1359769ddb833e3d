"""Keeps a server's processes together, and ends them all with it: `python keeper.py CORE|- COMMAND ...`.

It is the parent of the command and adopts every process whose own parent has ended, so a server's processes are always
the descendants of its keeper. When the command ends, when the keeper gets SIGTERM, and when whoever started the keeper
has ended in any way, the command gets SIGTERM and ten seconds, and what is left SIGKILL.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

_PDEATHSIG, _CHILD_SUBREAPER = 1, 36  # of prctl
_PATIENCE = 10.0


def descendants(process: int) -> list[int]:
    """Ids of the processes that a process started, and of those that they started."""
    found = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{process}/task").iterdir():
            for started in (task / "children").read_text().split():
                found += [int(started), *descendants(int(started))]
    return found


def keep(core: str, command: list[str]) -> int:
    """Run the command until it ends or is to end; its exit code."""
    parent, prctl = os.getppid(), ctypes.CDLL(None, use_errno=True).prctl
    signal.signal(signal.SIGTERM, _end)
    prctl(_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    prctl(_CHILD_SUBREAPER, 1, 0, 0, 0)
    if os.getppid() != parent:
        return 1
    if core != "-":
        os.sched_setaffinity(0, {int(core)})
    process = subprocess.Popen(command)
    code = 1
    try:
        while True:  # reaps adopted processes too
            ended, status = os.wait()
            if ended == process.pid:
                code = os.waitstatus_to_exitcode(status)
                break
    except SystemExit:
        _stop(process.pid)
    _kill_all()
    return code if code >= 0 else 128 - code


def _end(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit


def _stop(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGTERM)
    until = time.monotonic() + _PATIENCE
    with suppress(ChildProcessError):
        while time.monotonic() < until:
            ended, _ = os.waitpid(-1, os.WNOHANG)
            if ended == process:
                return
            if not ended:
                time.sleep(0.02)


def _kill_all() -> None:
    while left := descendants(os.getpid()):
        for each in left:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.wait()


if __name__ == "__main__":
    sys.exit(keep(sys.argv[1], sys.argv[2:]))
