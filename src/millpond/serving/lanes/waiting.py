"""Requests that wait for their call, in order, within limits."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from millpond.core.errors import DeadlineExceeded, Overloaded, Unavailable
from millpond.serving.lanes.ports import Done, LaneLimits
from millpond.serving.rows import Rows

if TYPE_CHECKING:
    from millpond.serving.rows import Column


class Waiting:
    """A request, until its `done` was called.

    Attributes:
        rows: Its rows.
        bytes: About how many bytes those take.
        done: Where its answer goes; None once it was answered.
        deadline: `time.monotonic()` at which its caller stops waiting, or None.
        until: When it stops waiting for its call to begin.
        gone: Whether its caller has gone.
        alone: Whether it must not share a call, as one that it shared has failed.
    """

    __slots__ = ("alone", "bytes", "deadline", "done", "gone", "rows", "until")

    def __init__(self, rows: Rows, done: Done, deadline: float | None, gone: Callable[[], bool], until: float) -> None:
        self.rows = rows
        self.bytes = _bytes(rows)
        self.done: Done | None = done
        self.deadline = deadline
        self.until = until if deadline is None else min(until, deadline)
        self.gone = gone
        self.alone = False


class Queue:
    """Waiting requests, oldest first. Each that leaves without a call is returned with the reason."""

    def __init__(self, name: str, limits: LaneLimits) -> None:
        self._name, self._limits = name, limits
        self._waiting: deque[Waiting] = deque()
        self._rows = self._bytes = 0
        self._batch_rows = limits.batch_rows

    def __len__(self) -> int:
        return len(self._waiting)

    def refused(self, request: Waiting) -> Overloaded | None:
        """Why a request cannot wait here, or None where it can."""
        limits = self._limits
        if not self._waiting:
            return None
        if len(self._waiting) >= limits.waiting_requests:
            full = f"{len(self._waiting)} requests wait already"
        elif self._rows + request.rows.count > limits.waiting_rows:
            full = f"{self._rows} rows wait already"
        elif self._bytes + request.bytes > limits.waiting_bytes:
            full = f"{self._bytes} bytes wait already"
        else:
            return None
        return Overloaded(
            f"{self._name} has too many requests: {full}",
            where=self._name,
            hint="ask again in a moment, send fewer requests at once, or add servers",
        )

    def add(self, request: Waiting) -> None:
        self._waiting.append(request)
        self._rows += request.rows.count
        self._bytes += request.bytes

    def put_back(self, requests: list[Waiting]) -> None:
        """Before all others, in order."""
        for request in reversed(requests):
            self._waiting.appendleft(request)
            self._rows += request.rows.count
            self._bytes += request.bytes

    def take(self) -> tuple[list[Waiting], list[tuple[Waiting, Exception]]]:
        """The requests of the next call: the oldest, and those behind it that may share it.

        Returns:
            Requests with the same columns; and those that fell out as their time is over or their caller has gone.
        """
        limits, now = self._limits, time.monotonic()
        taken: list[Waiting] = []
        left: list[tuple[Waiting, Exception]] = []
        rows = size = 0
        while self._waiting:
            request = self._waiting[0]
            reason = self._over(request, now)
            if reason is None and taken:
                first = taken[0]
                if (
                    first.alone
                    or request.alone
                    or rows + request.rows.count > self._batch_rows
                    or size + request.bytes > limits.batch_bytes
                    or request.rows.names != first.rows.names
                ):
                    break
            self._pop()
            if reason is not None:
                left.append((request, reason))
                continue
            taken.append(request)
            rows += request.rows.count
            size += request.bytes
        return taken, left

    def learn(self, rows: int, seconds: float) -> None:
        """Let as many rows share the next calls as this one says are answered soon.

        Args:
            rows: Of a call. Small calls tell what a call costs, and not what a row does; nothing is learnt of them.
            seconds: How long it took.
        """
        limits = self._limits
        if 2 * rows >= limits.batch_rows:
            soon = int(rows * limits.batch_seconds / max(seconds, 1e-6))
            self._batch_rows = max(limits.batch_rows, min(soon, limits.most_batch_rows))

    def expired(self) -> list[tuple[Waiting, Exception]]:
        """Those whose time is over; they leave."""
        now = time.monotonic()
        found = [(request, reason) for request in self._waiting if (reason := self._over(request, now)) is not None]
        if found:
            over = {id(request) for request, _ in found}
            kept = [request for request in self._waiting if id(request) not in over]
            self.empty()
            self.put_back(kept)
        return found

    def empty(self) -> list[Waiting]:
        """All of them; they leave."""
        found = list(self._waiting)
        self._waiting.clear()
        self._rows = self._bytes = 0
        return found

    def _pop(self) -> None:
        request = self._waiting.popleft()
        self._rows -= request.rows.count
        self._bytes -= request.bytes

    def _over(self, request: Waiting, now: float) -> Exception | None:
        if request.gone():
            return Unavailable("the caller has gone", where=self._name)
        if now < request.until:
            return None
        if request.deadline is not None and now >= request.deadline:
            return deadline_exceeded(self._name)
        return Unavailable(
            f"{self._name} did not come to this request within {self._limits.waiting_seconds:g} s",
            where=self._name,
            hint="its process is busy or starts again; ask again in a moment",
        )


def deadline_exceeded(name: str) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"{name} had no answer within the time that was given",
        where=name,
        hint="give more time, send fewer rows in one request, or ask again in a moment",
    )


def _bytes(rows: Rows) -> int:
    if rows.matrix is not None:
        return int(rows.matrix.nbytes)
    return sum(_column_bytes(column) for column in rows.given)


def _column_bytes(column: Column) -> int:
    if not isinstance(column, list):
        return int(column.nbytes)
    first: Any = column[0] if column else None
    if type(first) is not str and first is not None:
        return 8 * len(column)
    return 8 * len(column) + sum(len(each) for each in column if type(each) is str)
