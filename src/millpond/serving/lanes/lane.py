"""A batching queue before one child process."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from millpond.core import errors
from millpond.core.capped_log import CappedLog
from millpond.core.errors import MillpondError, Unavailable
from millpond.serving.lanes.host import frame_of, rows_of
from millpond.serving.lanes.keeper import Keeper
from millpond.serving.lanes.ports import Done, LaneCounts, LaneLimits, LaneState, Reply
from millpond.serving.lanes.process import LaneProcess
from millpond.serving.lanes.waiting import Queue, Waiting, deadline_exceeded
from millpond.serving.lanes.wire import Frame
from millpond.serving.rows import Rows, concatenate

_TICK = 0.05
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_MAX_THREADS", "LOKY_MAX_CPU_COUNT")


class Lane:
    """Answers requests by a child process, several in one call when they come while it is busy.

    A process that is idle gets a request at once, together with what else arrives in the same turn of the event loop.
    Requests are answered in order. Where a call of several fails or ends the process, each is tried once more, alone.
    The process is started again when it ends, when a call takes too long, and when it has taken too much memory.

    Everything happens in the thread of one event loop; no method blocks or raises.

    Args:
        command: The program and its arguments; it speaks `lanes.wire`, as `lanes.host` and `lanes.native` do.
        name: What errors call it, such as "version 3 of model 'x'".
        limits: How much, and how long.
        env: Added to this process' environment.
        cwd: Where the process runs; None means where this one does.
        log: File for what it prints, capped in size; None drops that, but for the tail.
        loop: The event loop; None means the one that runs at the first call.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        name: str,
        limits: LaneLimits | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        log: Path | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._command, self._name, self._cwd = tuple(command), name, cwd
        self._limits = limits or LaneLimits()
        self._env = {**os.environ, **child_environment(self._limits.threads), **(env or {})}
        self._log = CappedLog(log) if log is not None else None
        self._loop = loop
        self._queue = Queue(name, self._limits)
        self._keeper = Keeper(self._spawn, self, self._limits, self._running_loop)
        self._call: list[Waiting] = []
        self._number = 0
        self._called_at = 0.0
        self._killed_for_time = False
        self._flushing = False
        self._ticking: asyncio.TimerHandle | None = None
        self._closed = False
        self.counts = LaneCounts()

    @property
    def state(self) -> LaneState:
        return self._keeper.state

    @property
    def pid(self) -> int | None:
        """Of the process that answers; None where there is none."""
        process = self._keeper.process
        return process.pid if process is not None else None

    @property
    def waiting(self) -> int:
        """Requests whose call has not begun."""
        return len(self._queue)

    def start(self) -> None:
        """Start the process, if it was not yet; the first request does so too."""
        if not self._closed:
            self._keeper.start()
            self._tick_later()

    def submit(
        self,
        rows: Rows,
        done: Done,
        *,
        deadline: float | None = None,
        gone: Callable[[], bool] = lambda: False,
    ) -> None:
        """Answer some rows.

        Args:
            rows: At least one; requests of equal column names share calls.
            done: Called once with the reply or an error; may be before this returns.
            deadline: `time.monotonic()` at which the caller stops waiting, or None. Noticed at most 0.05 s late.
            gone: Whether the caller has gone meanwhile; a request that then still waits is not sent.

        Errors given to `done`:
            Overloaded: Too much waits already.
            DeadlineExceeded: The deadline passed, or the call took longer than a call may.
            Unavailable: The process cannot be started, the lane was closed, the wait was too long, the caller has gone.
            MillpondError: The model failed, or ended its process; names the version.
        """
        request = Waiting(rows, done, deadline, gone, time.monotonic() + self._limits.waiting_seconds)
        refusal = self._refusal() or self._queue.refused(request)
        if refusal is not None:
            self._answer(request, refusal)
            return
        self._queue.add(request)
        process = self._keeper.process
        if process is None:
            self.start()
        elif process.ready and not self._call and not self._flushing:
            self._flushing = True
            self._running_loop().call_soon(self._flush)
        if self._ticking is None:
            self._tick_later()

    async def close(self, grace: float = 5.0) -> None:
        """Take no more requests, answer those that there are for at most `grace` seconds, and end the process.

        What is not answered by then gets Unavailable. No process is left when it returns.
        """
        self._closed = True
        until = time.monotonic() + grace
        while (self._call or self._queue) and self._keeper.process is not None and time.monotonic() < until:
            await asyncio.sleep(0.01)
        unanswered, self._call = [*self._call, *self._queue.empty()], []
        for request in unanswered:
            self._answer(request, self._stopped())
        await self._keeper.close(kill=bool(unanswered))
        if self._ticking is not None:
            self._ticking.cancel()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def _spawn(
        self, *, heard: Callable[[LaneProcess, Frame], None], ended: Callable[[LaneProcess, str], None]
    ) -> LaneProcess:
        self.counts.starts += 1
        return LaneProcess(
            self._command,
            environment=self._env,
            directory=self._cwd,
            log=self._log,
            loop=self._running_loop(),
            heard=heard,
            ended=ended,
        )

    # What the keeper tells

    def came_up(self) -> None:
        if not self._call:
            self._keeper.change_over()
        self._flush()

    def answered(self, process: LaneProcess, frame: Frame) -> None:
        if self._call and process is self._keeper.process and frame.number == self._number:
            self._finished(frame)
        else:
            process.kill(f"sent {frame.kind!r} when nobody asked")

    def does_not_start(self) -> None:
        for request in self._queue.empty():
            self._answer(request, self._not_starting())

    def crashed(self, how: str) -> None:
        call, self._call = self._call, []
        if self._killed_for_time:
            self._killed_for_time = False
            for request in call:
                self._answer(request, self._took_too_long())
        else:
            self._failed(call, self._crashed(how))
        self._tick_later()
        self._flush()

    # Calls

    def _flush(self) -> None:
        """Begin the next call, if the process is free."""
        self._flushing = False
        while self._queue and not self._call:
            process = self._keeper.change_over()
            if process is None:
                return
            call, left = self._queue.take()
            for request, reason in left:
                self._answer(request, reason)
            if call:
                self._begin(process, call)

    def _begin(self, process: LaneProcess, call: list[Waiting]) -> None:
        self._call = call
        self._number += 1
        self._called_at = time.monotonic()
        try:
            rows = concatenate([each.rows for each in call])
            process.send(frame_of("call", self._number, rows))
        except Exception as error:  # values that fit no column: of one request, which then fails alone
            self._call = []
            self._failed(call, error)
            return
        self.counts.calls += 1
        self.counts.requests += len(call)
        self.counts.rows += rows.count

    def _finished(self, frame: Frame) -> None:
        call, self._call = self._call, []
        rows = sum(each.rows.count for each in call)
        if frame.kind == "answer" and frame.rows == rows:
            self._queue.learn(rows, time.monotonic() - self._called_at)
            self._flush()  # so that the process works while the answers are given
            self._deliver(call, rows_of(frame), frame.meta or {})
            return
        told = frame.meta or {}
        if frame.kind == "answer":
            told = {"what": f"it gave {frame.rows} rows for {rows}"}
        self._failed(call, error_told(told, self._name))
        self._flush()

    def _deliver(self, call: list[Waiting], rows: Rows, meta: Mapping[str, Any]) -> None:
        if len(call) == 1:
            self._answer(call[0], Reply(rows, meta))
            return
        start = 0
        for request in call:
            stop = start + request.rows.count
            self._answer(request, Reply(rows.slice(start, stop), meta))
            start = stop

    def _failed(self, call: list[Waiting], error: Exception) -> None:
        """The one that is guilty gets the error; of several, each is tried alone."""
        if len(call) == 1:
            self._answer(call[0], error)
            return
        again = [request for request in call if request.done is not None]
        for request in again:
            request.alone = True
        self._queue.put_back(again)

    def _answer(self, request: Waiting, answer: Reply | Exception) -> None:
        done, request.done = request.done, None
        if done is None:
            return
        try:
            done(answer)
        except Exception as error:
            context = {"message": f"answering a request to {self._name} failed", "exception": error}
            self._running_loop().call_exception_handler(context)

    # Time

    def _tick_later(self) -> None:
        if self._ticking is None:
            self._ticking = self._running_loop().call_later(_TICK, self._tick)

    def _tick(self) -> None:
        self._ticking = None
        now = time.monotonic()
        for request, reason in self._queue.expired():
            self._answer(request, reason)
        for request in self._call:
            if request.done is not None and request.deadline is not None and now >= request.deadline:
                self._answer(request, deadline_exceeded(self._name))
        process = self._keeper.process
        if process is not None and self._call and now - self._called_at > self._limits.call_seconds:
            self._killed_for_time = True
            process.kill(f"took longer than {self._limits.call_seconds:g} s for one call")
        self._keeper.tick()
        if self._call or self._queue or self._keeper.unsettled:
            self._tick_later()

    # Errors

    def _refusal(self) -> Unavailable | None:
        """Why no request can be taken now, or None."""
        if self._closed:
            return self._stopped()
        return self._not_starting() if self._keeper.hopeless else None

    def _stopped(self) -> Unavailable:
        return Unavailable(f"{self._name} was stopped", where=self._name, hint="ask again in a moment")

    def _not_starting(self) -> Unavailable:
        return Unavailable(
            f"{self._name} does not start: {self._keeper.hopeless}",
            where=self._name,
            hint="its log says more; it is tried again by itself",
        )

    def _crashed(self, how: str) -> MillpondError:
        return MillpondError(
            f"{self._name} {how} while answering",
            where=self._name,
            hint="its log says more; other requests are answered again as soon as it has started",
        )

    def _took_too_long(self) -> errors.DeadlineExceeded:
        return errors.DeadlineExceeded(
            f"{self._name} took longer than {self._limits.call_seconds:g} s for one call, and was ended",
            where=self._name,
            hint="send fewer rows in one request; if that is no reason, roll back to an earlier version",
        )


def child_environment(threads: int = LaneLimits.threads) -> dict[str, str]:
    """What is added to the environment of a process that answers for a model: threads of numerical libraries."""
    return {**dict.fromkeys(_THREADS, str(threads)), "PYTHONUNBUFFERED": "1"}


def error_told(told: Mapping[str, Any], name: str) -> MillpondError:
    """What a frame of kind "error" or "failed" says, as an exception.

    Args:
        told: Its meta.
        name: Of the process, such as "version 3 of model 'x'".
    """
    kind = getattr(errors, str(told.get("type", "")), None)
    what, where, hint = (str(told.get(key, "")) for key in ("what", "where", "hint"))
    if isinstance(kind, type) and issubclass(kind, MillpondError):
        return kind(what, where=where, hint=hint)
    return MillpondError(
        f"{name} failed: {what}",
        where=where or name,
        hint=hint or "look at the request's inputs and the model's log; roll back to an earlier version",
    )
