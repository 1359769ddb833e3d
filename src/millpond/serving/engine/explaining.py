"""Explanations beside the event loop: they take milliseconds a row, and other requests go on meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Protocol, TypeAlias

import numpy as np

from millpond.core.errors import DeadlineExceeded, Overloaded, Unavailable
from millpond.serving.engine.ports import Plan
from millpond.serving.ports import Explanation
from millpond.serving.rows import Rows

#: Threads that explain; the kernels hold no lock of the interpreter while they do.
THREADS = 2
#: Requests that may wait for a thread or be explained; more are refused.
MOST_WAITING = 64
#: Rows that are explained between two looks at whether somebody still waits.
ROWS_AT_ONCE = 8

#: Given the explanation, or why there is none.
Explained: TypeAlias = Callable[[Explanation | Exception], None]


class Loop(Protocol):
    """The part of an event loop that is needed here."""

    def call_soon_threadsafe(self, callback: Callable[..., object], *arguments: Any) -> object: ...


class Explainer:
    """Explains in a few threads, oldest requests first. Used in the thread of one event loop.

    Args:
        loop: The event loop.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="explain")
        self._waiting = 0

    def explain(
        self,
        plan: Plan,
        rows: Rows,
        done: Explained,
        *,
        deadline: float | None = None,
        gone: Callable[[], bool] = lambda: False,
    ) -> None:
        """Have rows explained; never raises. `done` is called once, in the thread of the loop.

        Args:
            plan: Explains; see `ports.Plan.explain`.
            rows: Raw inputs.
            done: Where the explanation goes.
            deadline: `time.monotonic()` at which the caller stops waiting, or None.
            gone: Whether the caller has gone meanwhile. Asked in another thread.

        Errors given to `done`:
            Overloaded: Too many wait already.
            DeadlineExceeded: The deadline passed.
            Unavailable: The caller has gone, or this was closed.
            MillpondError: As `ports.Plan.explain`; and whatever else that raises.
        """
        if self._waiting >= MOST_WAITING:
            hint = "ask again in a moment, or for fewer explanations at once"
            done(Overloaded(f"{self._waiting} requests wait for explanations already", where="explain", hint=hint))
            return
        try:
            self._threads.submit(self._work, plan, rows, done, deadline, gone)
        except RuntimeError:
            done(Unavailable("no explanations are made any more", where="explain", hint="ask again in a moment"))
            return
        self._waiting += 1

    def close(self) -> None:
        """Begin nothing any more; those that wait are not told."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _work(self, plan: Plan, rows: Rows, done: Explained, deadline: float | None, gone: Callable[[], bool]) -> None:
        try:
            found: Explanation | Exception = _explained(plan, rows, deadline, gone)
        except Exception as error:
            found = error
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._finish, done, found)

    def _finish(self, done: Explained, found: Explanation | Exception) -> None:
        self._waiting -= 1
        done(found)


def _explained(plan: Plan, rows: Rows, deadline: float | None, gone: Callable[[], bool]) -> Explanation:
    parts: list[Explanation] = []
    for start in range(0, rows.count, ROWS_AT_ONCE):
        if gone():
            raise Unavailable("the caller has gone", where="explain")
        if deadline is not None and time.monotonic() >= deadline:
            raise DeadlineExceeded(
                f"{start} of {rows.count} rows were explained within the time that was given",
                where="explain",
                hint="give more time, or send fewer rows in one request",
            )
        parts.append(plan.explain(rows.slice(start, min(start + ROWS_AT_ONCE, rows.count))))
    first = parts[0]
    return Explanation(first.base, np.concatenate([each.contributions for each in parts]), first.unit)
