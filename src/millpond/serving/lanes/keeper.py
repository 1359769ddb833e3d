"""Keeps the process of a lane: starts it, again when it ends, and replaces it when it has taken too much memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from millpond.serving.lanes.ports import LaneLimits, LaneState
from millpond.serving.lanes.process import LaneProcess
from millpond.serving.lanes.wire import Frame


class Spawn(Protocol):
    """Starts a process. Raises OSError."""

    def __call__(
        self, *, heard: Callable[[LaneProcess, Frame], None], ended: Callable[[LaneProcess, str], None]
    ) -> LaneProcess: ...


class Kept(Protocol):
    """Who is told how the process fares."""

    def came_up(self) -> None:
        """It is ready for a call."""

    def answered(self, process: LaneProcess, frame: Frame) -> None:
        """It has sent a frame."""

    def crashed(self, how: str) -> None:
        """The process that was ready has ended; another is on its way, or there already."""

    def does_not_start(self) -> None:
        """So many starts have failed that nobody should wait for the next."""


class Keeper:
    """See the module. In the thread of one event loop.

    Args:
        spawn: Starts a process.
        kept: Who is told.
        limits: How long and how much; its back-off lies between starts.
        loop: Gives the event loop.
    """

    def __init__(
        self, spawn: Spawn, kept: Kept, limits: LaneLimits, loop: Callable[[], asyncio.AbstractEventLoop]
    ) -> None:
        self._spawn, self._kept, self._limits, self._loop = spawn, kept, limits, loop
        self._process: LaneProcess | None = None
        self._spare: LaneProcess | None = None
        self._leaving: set[LaneProcess] = set()
        self._next_start: asyncio.TimerHandle | None = None
        self._crashes = self._failed_starts = self._failed_spares = 0
        self._spare_from = 0.0
        self._trouble = ("", "")
        self._closed = False

    @property
    def state(self) -> LaneState:
        if self._closed:
            return LaneState("stopped", "it was closed")
        if self._process is not None and self._process.ready:
            return LaneState("ready")
        if self._trouble[0]:
            return LaneState("failing", *self._trouble)
        return LaneState("stopped") if self._process is None else LaneState("starting")

    @property
    def process(self) -> LaneProcess | None:
        """The one that answers, or is to; None between two."""
        return self._process

    @property
    def hopeless(self) -> str:
        """Why so many starts in a row have failed; "" where that is not so."""
        return self._trouble[0] if self._failed_starts >= self._limits.failed_starts else ""

    @property
    def unsettled(self) -> bool:
        """Whether a process is starting, or is to, so that `tick` is to be called."""
        starting = self._process is not None and not self._process.ready
        return starting or self._spare is not None or self._next_start is not None

    def start(self) -> None:
        """Start a process, unless there is one or one is on its way."""
        if self._process is None and self._next_start is None:
            self._start()

    def change_over(self) -> LaneProcess | None:
        """Between two calls: the process for the next one, if it is ready; a replacement takes over where one is."""
        if self._spare is not None and self._spare.ready and self._process is not None:
            old, self._process, self._spare = self._process, self._spare, None
            self._failed_spares = 0
            self._leaving.add(old)
            old.close()
        return self._process if self._process is not None and self._process.ready else None

    def tick(self) -> None:
        """Watch memory, and the time that starting takes."""
        now = time.monotonic()
        if self._process is not None and self._process.ready and not self._closed:
            self._watch_memory(self._process, now)
        for process in (self._process, self._spare):
            if process is not None and not process.ready and now - process.began > self._limits.start_seconds:
                process.kill(f"it was not ready after {self._limits.start_seconds:g} s")

    async def close(self, *, kill: bool) -> None:
        """End all processes, and wait until they have ended.

        Args:
            kill: Whether the one that answers is still in a call, and is not to finish it.
        """
        self._closed = True
        if self._next_start is not None:
            self._next_start.cancel()
        processes = [each for each in (self._process, self._spare, *self._leaving) if each is not None]
        for process in processes:
            if process is self._process and process.ready and not kill:
                process.close()
            else:
                process.kill("was stopped")
        for process in processes:
            await process.gone

    def _start(self) -> None:
        self._next_start = None
        if self._closed:
            return
        try:
            self._process = self._spawn(heard=self._heard, ended=self._ended)
        except OSError as error:
            self._after_failed_start(f"its process cannot be started: {error}", "")

    def _start_later(self, seconds: float) -> None:
        if not self._closed and self._next_start is None and self._process is None:
            self._next_start = self._loop().call_later(seconds, self._start)

    def _heard(self, process: LaneProcess, frame: Frame) -> None:
        if process.ready:
            self._kept.answered(process, frame)
        elif frame.kind == "ready":
            self._came_up(process)
        elif frame.kind == "failed":
            if process is self._process:  # it says why: another start soon would end the same way
                self._failed_starts = max(self._failed_starts, self._limits.failed_starts - 1)
            process.kill(str((frame.meta or {}).get("what", "it cannot be loaded")))
        else:
            process.kill(f"sent {frame.kind!r} before it was ready")

    def _came_up(self, process: LaneProcess) -> None:
        limit, used = self._limits.memory_bytes, process.resident_bytes()
        if limit is not None and used > limit:
            process.kill(f"it takes {_megabytes(used)} when loaded, and may take {_megabytes(limit)}")
            return
        process.ready = True
        if process is self._process:
            self._failed_starts = 0
            self._trouble = ("", "")
        self._kept.came_up()

    def _ended(self, process: LaneProcess, how: str) -> None:
        if process in self._leaving:
            self._leaving.discard(process)
        elif process is self._spare:
            self._spare = None
            self._failed_spares += 1
            self._spare_from = time.monotonic() + self._limits.back_off.after(self._failed_spares)
        elif process is self._process:
            self._process, self._spare = self._spare, None
            if process.ready:
                self._after_crash(process, how)
            else:
                self._after_failed_start(how, process.log_tail)

    def _after_failed_start(self, why: str, log_tail: str) -> None:
        self._failed_starts += 1
        self._trouble = (why, log_tail)
        self._start_later(self._limits.back_off.after(self._failed_starts))
        if self.hopeless:
            self._kept.does_not_start()

    def _after_crash(self, process: LaneProcess, how: str) -> None:
        back_off = self._limits.back_off
        lived = time.monotonic() - process.began
        self._crashes = 1 if lived >= back_off.healthy else self._crashes + 1
        self._trouble = (how, process.log_tail)
        self._start_later(back_off.after(self._crashes - 1) if self._crashes > 1 else 0.0)
        self._kept.crashed(how)

    def _watch_memory(self, process: LaneProcess, now: float) -> None:
        limit, killed_from = self._limits.memory_bytes, self._limits.killed_from
        if killed_from is None:
            return
        used = process.resident_bytes()
        if used > killed_from:
            process.kill(f"took {_megabytes(used)} of memory, and may take {_megabytes(killed_from)}")
        elif limit is not None and used > limit and self._spare is None and now >= self._spare_from:
            try:
                self._spare = self._spawn(heard=self._heard, ended=self._ended)
            except OSError:
                self._spare_from = now + self._limits.back_off.longest


def _megabytes(size: int) -> str:
    return f"{size / (1 << 20):.0f} MB"
