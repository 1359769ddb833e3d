"""Telling whether the process that began something still runs."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "-"


def _started(pid: int) -> str | None:
    """When a process started, as text that differs for every process that ever has the same id; None if it is gone."""
    if sys.platform == "linux":
        try:
            # The name in parentheses may itself hold spaces and parentheses; field 22 is counted from behind it.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else fields[19]
    shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return "_".join(shown.stdout.split()) or None


def own_identity() -> str:
    """This process, as text: boot, process id and start time."""
    return f"{_boot()}/{os.getpid()}/{_started(os.getpid())}"


def is_alive(identity: str) -> bool:
    """Whether the process of `identity` still runs. After a restart of the machine, or on another one, it does not."""
    boot, _, rest = identity.partition("/")
    pid, _, started = rest.partition("/")
    return boot == _boot() and pid.isdigit() and _started(int(pid)) == started
