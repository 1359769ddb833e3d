"""Millpond under the same loads: `millpond up` on a project, asked at its serving port with a token."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from benchmarks import processes
from benchmarks.inference import bodies, load
from benchmarks.inference.bodies import Case
from benchmarks.inference.load import Tree, say
from benchmarks.inference.measure import EVERY, SMALL, Effort, Load, Measured, press, wait
from benchmarks.inference.project import millpond

NAME = "Millpond"
WORKER = "millpond.server.worker"
LOADS: dict[str, Sequence[Load]] = {"lightgbm": EVERY, "keyed": SMALL, "mixed": EVERY, "neighbours": EVERY}


@dataclass
class Worker:
    """The serving process.

    Attributes:
        ready: Seconds from its start to its first correct answer.
        memory: MiB, when all models have been asked.
    """

    ready: float = 0.0
    memory: float = 0.0


def measure(folder: Path, models: Sequence[str], effort: Effort) -> tuple[list[Measured], Worker]:
    """Measure Millpond on some models, all in one project; what keeps one from being measured is in `reason`."""
    found, worker = [Measured(NAME, model) for model in models], Worker()
    try:
        with _up(folder) as (tree, url, token):
            first = True
            for measured in found:
                _model(measured, tree, url, token, folder, effort)
                if first and not measured.reason:
                    worker.ready, first = measured.worker_age, False
            worker.memory = load.proportional_memory(tree.find(WORKER) or 0)
    except (SystemExit, OSError, subprocess.SubprocessError, httpx.HTTPError) as failed:
        for measured in found:
            measured.reason = measured.reason or str(failed)
    return found, worker
