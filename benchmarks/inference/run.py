"""Millpond and its peers over HTTP, in one run: every server on one core, wrk on another.

A server's answers are compared with the model's own before it is timed. Small requests are one row each, 1,000
different ones in turn; large requests are 1,000 rows each. Of a load's windows, the one with the most requests counts,
for every server alike. Processor time and memory are of all processes of a server together.

`python -m benchmarks inference [--only Millpond,Triton,...] [--quick]`
"""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import processes
from benchmarks.inference import goals, measure, ours, servers
from benchmarks.inference.load import SERVER_CORE, say
from benchmarks.inference.measure import EVERY, FEW, Effort, Measured

QUICK = Effort(seconds=1, windows=1)
FULL = Effort(seconds=2, windows=2)
ONCE = Effort(seconds=2, windows=1)  # of peers, on other models than the LightGBM


def run(only: Sequence[str] = (), quick: bool = False) -> list[dict[str, Any]]:
    """Measure every server, or some by name; rows for the results.

    Raises:
        SystemExit: A name is not known, or the models cannot be made. A server that fails has a row that says why.
    """
    known = [ours.NAME, *servers.HELLOS, *(each.name for each in servers.SERVERS)]
    if unknown := [name for name in only if name not in known]:
        raise SystemExit(f"there is no server {', '.join(unknown)}; there are {', '.join(known)}")
    previous = signal.signal(signal.SIGTERM, _terminated)  # servers are ended on the way out
    try:
        with tempfile.TemporaryDirectory(prefix="inference") as name:
            return list(_measured(Path(name), only or known, quick=quick))
    finally:
        signal.signal(signal.SIGTERM, previous)


def _terminated(*_: object) -> None:
    raise SystemExit("terminated")


def _measured(folder: Path, wanted: Sequence[str], *, quick: bool) -> Iterator[dict[str, Any]]:
    say("  making the models ...")
    processes.child("benchmarks.inference.project", "make", str(folder))
    bare = processes.child("benchmarks.inference.project", "bare", str(folder), "neighbours", str(SERVER_CORE))["rows"]
    full, once = (QUICK, QUICK) if quick else (FULL, ONCE)
    found: list[Measured] = []
    worker = ours.Worker(reason="not measured")
    if ours.NAME in wanted:
        mine, worker = ours.measure(folder, list(ours.LOADS), full)
        found += mine
    for name, launch in servers.HELLOS.items():
        if name in wanted:
            found.append(measure.hello(name, launch(), folder, full))
    for server in servers.SERVERS:
        for model in server.models if server.name in wanted else ():
            few = model != "lightgbm"
            found.append(measure.peer(server, folder, model, FEW if few else EVERY, once if few else full))
    yield from goals.rows(found, worker, bare)
    yield from goals.figures(found)
