"""What all who keep child processes share: how they are started, ended and started again."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from millpond.core import guarded_child

Watch = Literal["kernel", "pipe"]

#: How much processes give way, as `nice` counts: moving the log of a busy server takes a quarter of what answers do.
_NICE = 5

#: How this system tells a child that its parent has ended.
WATCH: Watch = "kernel" if sys.platform == "linux" else "pipe"


def guarded(command: Sequence[str], watch: Watch = WATCH) -> list[str]:
    """The command behind `guarded_child`, for a child of this process that ends when this process does.

    With "kernel" it ends with the thread that starts it; with "pipe" when its standard input ends, which is to be a
    pipe that this process holds. To be started as the leader of its own process group.
    """
    guard = str(Path(guarded_child.__file__))
    return [sys.executable, "-I", "-S", guard, str(os.getpid()), watch, *command]


def give_way() -> None:
    """Let this process give way to those that answer; of a processor that they take, it still gets a quarter."""
    os.nice(_NICE)
    # Where Linux groups processes by session, as on desktops, the value of the group is what counts among groups.
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(f"{_NICE}\n")


def kill_group(pid: int, how: signal.Signals) -> None:
    """Signal the process group that `pid` leads; nothing where it is gone."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, how)


@dataclass(frozen=True)
class BackOff:
    """Seconds to wait before a restart: `first`, doubled each time up to `longest`; from `first` again once a child
    has lived for `healthy` seconds.
    """

    first: float = 0.5
    longest: float = 30.0
    healthy: float = 60.0

    def after(self, failures: int) -> float:
        """The wait after so many ends in a row, from 1."""
        return float(min(self.first * 2 ** min(failures - 1, 30), self.longest))
