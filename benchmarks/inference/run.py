"""Millpond and its peers over HTTP, in one run: every server on one core, wrk on another.

A server's answers are compared with the model's own before it is timed. Small requests are one row each, 1,000
different ones in turn; large requests are 1,000 rows each. Processor time and memory are of all processes of a server
together. Windows in which others used the cores are taken again; of those that are left, the one in the middle counts.
Ratios are of windows of the two servers in turn, while Millpond keeps running.

`python -m benchmarks inference [--only Millpond,Triton,...] [--quick] [--write]`
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks import processes
from benchmarks.inference import figures, goals, measure, ours, servers
from benchmarks.inference.figures import Figures
from benchmarks.inference.load import say
from benchmarks.inference.measure import Effort, Measured

QUICK, FULL = Effort(seconds=1, windows=1), Effort(seconds=1, windows=3)


def run(only: Sequence[str] = (), quick: bool = False, keep: Callable[[Figures], object] = lambda _: None) -> Figures:
    """Measure every server, or some by name; ratios to Millpond need it among them.

    Args:
        only: Names of servers; none are all.
        quick: One window a load.
        keep: Given the figures so far after each server, so that those are not lost when the run is cut off.

    Raises:
        SystemExit: A name is not known, or the models cannot be made. A server that fails has a row that says why.
    """
    known = [ours.NAME, *servers.HELLOS, *(each.name for each in servers.SERVERS)]
    if unknown := [name for name in only if name not in known]:
        raise SystemExit(f"there is no server {', '.join(unknown)}; there are {', '.join(known)}")
    with tempfile.TemporaryDirectory(prefix="inference", ignore_cleanup_errors=True) as name:
        say("  making the models ...")
        processes.child("benchmarks.inference.project", "make", name)
        return _measured(Path(name), only or known, QUICK if quick else FULL, keep)


def _measured(folder: Path, wanted: Sequence[str], effort: Effort, keep: Callable[[Figures], object]) -> Figures:
    found: list[Measured] = []
    with ExitStack() as stack:
        mine = None
        if ours.NAME in wanted:
            mine = stack.enter_context(ours.running(folder, effort))
            found += mine.found
        targets = mine.targets if mine else {}
        for name, launch in servers.HELLOS.items():
            if name in wanted:
                found.append(measure.hello(name, launch(), folder, effort, targets.get("lightgbm")))
        for server in servers.SERVERS:
            for model in server.models if server.name in wanted else ():
                turns = goals.turns(server.name, model)
                found.append(measure.peer(server, folder, model, effort, targets.get(model), turns))
            keep(figures.of(found, [], quick=effort is QUICK))
        worker = mine.worker if mine else ours.Worker(reason="not measured")
    return figures.of(found, list(goals.rows(found, worker)), quick=effort is QUICK)
