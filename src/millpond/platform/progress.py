"""What a use case tells while it works: one step after another, each done, up to date, or failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

Status = Literal["started", "done", "up to date", "failed"]


@dataclass
class Step:
    """One step of the walk.

    Attributes:
        name: What is being done, such as `derive flights`.
        status: How it went; "up to date" means that nothing needed to be done.
        detail: What came of it, in a few words.
        seconds: How long it took so far.
    """

    name: str
    status: Status = "started"
    detail: str = ""
    seconds: float = 0.0
    _began: float = field(default_factory=time.perf_counter, repr=False)

    def up_to_date(self, detail: str = "") -> None:
        """Say that nothing needed to be done."""
        self.status, self.detail = "up to date", detail

    def finish(self, status: Status) -> None:
        """Close the step; one that said that it was up to date stays so."""
        if self.status == "started" or status == "failed":
            self.status = status
        self.seconds = time.perf_counter() - self._began


#: Called when a step starts, when its detail changes, and when it ends.
Listener = Callable[[Step], None]


def silent(step: Step) -> None:
    """A listener that listens to nothing."""


@contextmanager
def step(listener: Listener, name: str) -> Iterator[Step]:
    """Tell `listener` of a step around a block; an exception marks it failed and goes on."""
    current = Step(name)
    listener(current)
    try:
        yield current
    except BaseException:
        current.finish("failed")
        listener(current)
        raise
    current.finish("done")
    listener(current)
