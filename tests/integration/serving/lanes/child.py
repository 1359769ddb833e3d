"""A process of a lane that does what its rows tell it: doubles a number, or misbehaves.

python child.py [fail | exit | hang | big]
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from millpond.core.errors import RequestError
from millpond.serving.lanes.host import Handler, serve
from millpond.serving.rows import Rows

RAISE, EXIT, HANG, SEGFAULT, LEAK, PRINT, FORK, LEAVE, DENY, SHORT, GREEDY, SLOW = range(-1, -13, -1)
_leaked: list[Any] = []


def load() -> Handler:
    how = sys.argv[1] if len(sys.argv) > 1 else ""
    if how == "fail":
        raise ValueError("the artifact is corrupt")
    if how == "exit":
        print("no such library", flush=True)
        sys.exit(7)
    if how == "hang":
        time.sleep(100)
    if how == "big":
        _leaked.append(np.ones(40_000_000))
    return handle


def handle(rows: Rows) -> tuple[Rows, Mapping[str, Any]]:
    values = [float(each) for each in rows.columns["x"]]
    for value in values:
        if value < 0:
            misbehave(int(value))
    count = rows.count - 1 if SHORT in values else rows.count
    return Rows.of({"output": np.array(values[:count]) * 2}), {"pid": os.getpid(), "rows": rows.count}


def misbehave(how: int) -> None:
    if how == RAISE:
        raise ValueError("a value below zero")
    if how == DENY:
        raise RequestError("the value is denied", where="column x", hint="give another")
    if how == EXIT:
        os._exit(3)
    if how == HANG:
        time.sleep(100)
    if how == SLOW:
        time.sleep(0.3)
    if how == SEGFAULT:
        ctypes.string_at(0)
    if how == LEAK:
        _leaked.append(np.ones(10_000_000))
    if how == GREEDY:
        for _ in range(100):
            _leaked.append(np.ones(5_000_000))
            time.sleep(0.05)
    if how == PRINT:
        print("garbage " * 100_000, flush=True)
        os.write(1, bytes(range(256)))
    if how == FORK:
        os.fork()
    if how == LEAVE:
        subprocess.Popen(["sleep", "98765"])
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(serve(load))
