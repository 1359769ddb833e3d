"""Writing the prediction log: records that come together share one write and one sync.

What one turn of the event loop brought is committed at its end, by the loop itself: where the disk answers within a
millisecond, handing it to a thread and being told of it costs more than to wait, and what comes meanwhile makes the
next turn a large one. A slow disk is left to a thread; while a commit is under way there, the next records gather.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from millpond.core.errors import MillpondError, Overloaded, Unavailable
from millpond.serving.log.frames import Encoder, Group
from millpond.serving.log.ids import is_sampled, request_id_of
from millpond.serving.log.segments import SegmentFile
from millpond.serving.ports import LogRecord

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

logger = logging.getLogger(__name__)

#: When a record counts as logged: "commit" survives a loss of power; "written" survives a kill of every process,
#: and is synced every `SYNC_SECONDS`.
Sync = Literal["commit", "written"]

#: A segment is finished when it is this large, or this old in seconds.
MAX_SEGMENT_BYTES = 32 << 20
MAX_SEGMENT_SECONDS = 60.0
#: Bytes that may wait for the disk; more is refused.
MAX_WAITING_BYTES = 64 << 20
#: Seconds after which what was written is synced, where nobody waits for that.
SYNC_SECONDS = 0.01
#: Seconds that commits take, of late, from which on the thread makes them instead of the loop.
QUICK_SECONDS = 0.002
#: How much the last commit counts in what they take of late.
LAST_COUNTS = 1 / 16

Done = Callable[[MillpondError | None], None]


@dataclass(slots=True)
class _Waiting(Group):
    """Records that share one commit, and who waits for them."""

    dones: list[Done] = field(default_factory=list)
    calls: list[_Call] = field(default_factory=list)

    def take(self, group: Group) -> None:
        """Add the records of another group."""
        self.frames += group.frames
        self.needs |= group.needs
        self.size += group.size


class _Call:
    """A call of `write` that waits."""

    __slots__ = ("error", "over")

    def __init__(self) -> None:
        self.over = threading.Event()
        self.error: MillpondError | None = None


class PredictionLog:
    """Writes answers to the spool.

    `append` is for the thread of one event loop, `write` for any thread. Safe across processes, each with a log of its
    own; not across a fork. A record is kept whole or not at all. What is acknowledged is there after kill -9 of every
    process, and with `sync="commit"` after a loss of power. Of a version that logs a share of its requests, the others
    are acknowledged and not written (`ids.is_sampled`); redacted columns are not written.

    Args:
        spool: The directory; made when missing, readable by its owner only.
        loop: The event loop in whose thread `append` is called.
        sync: When a record is acknowledged.
        max_bytes: Size from which a segment is finished.
        max_seconds: Age from which a segment is finished, also when nothing more is written.
        max_waiting: Bytes that may wait for the disk.
    """

    def __init__(
        self,
        spool: Path,
        *,
        loop: AbstractEventLoop | None = None,
        sync: Sync = "commit",
        max_bytes: int = MAX_SEGMENT_BYTES,
        max_seconds: float = MAX_SEGMENT_SECONDS,
        max_waiting: int = MAX_WAITING_BYTES,
    ) -> None:
        self._spool = spool
        self._loop = loop
        self._sync: Sync = sync
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._max_waiting = max_waiting
        self._encoder = Encoder()
        # Guards what is gathered; held for microseconds.
        self._gather = threading.Lock()
        self._waiting = _Waiting()
        self._under_way = 0
        self._idle = True  # whether the thread has nothing to commit
        self._scheduled = False
        self._takes = 0.0  # seconds, of late
        self._closing = False
        self._thread: threading.Thread | None = None
        self._bell = threading.Lock()
        self._bell.acquire()
        # Held by whoever writes or finishes the segment.
        self._io = threading.Lock()
        self._segment: SegmentFile | None = None
        self._behind = _SyncBehind() if sync == "written" else None

    def append(self, record: LogRecord, done: Done) -> None:
        """Log the answers to a request. For the thread of the event loop; never raises.

        Records of one turn of the loop share a commit. `done` is called in that thread, once: with None when the
        record is logged, or with why it is not, and then it is nowhere. That may be before this returns.

        Errors given to `done`:
            Unavailable: The disk is full or failing, or too much waits for it.
            MillpondError: A value is not of its column's type.
        """
        served = record.answer.served
        share = served.logging.sample
        if share < 1.0 and not is_sampled(request_id_of(record.answer.ids), share):
            done(None)
            return
        ring = False
        error: MillpondError | None = None
        with self._gather:
            waiting = self._waiting
            if waiting.size + self._under_way >= self._max_waiting:
                error = self._too_much()
            else:
                try:
                    self._encoder.add(record, waiting)
                except Exception as wrong:
                    error = _not_loggable(served.model, wrong)
                else:
                    waiting.dones.append(done)
                    ring = self._idle and not self._scheduled
        if error is not None:
            done(error)
        elif ring:
            assert self._loop is not None
            self._scheduled = True
            self._loop.call_soon(self._end_turn)

    def write(self, records: Sequence[LogRecord]) -> None:
        """Log the answers to some requests; they are logged when this returns, all or none of them.

        Calls that arrive together share a commit.

        Raises:
            Unavailable: The disk is full or failing, or too much waits for it.
            MillpondError: A value is not of its column's type.
        """
        call, group = _Call(), Group()
        with self._gather:
            for record in records:
                served, ids = record.answer.served, record.answer.ids
                if ids and is_sampled(request_id_of(ids), served.logging.sample):
                    try:
                        self._encoder.add(record, group)
                    except Exception as wrong:
                        raise _not_loggable(served.model, wrong) from wrong
            if not group.frames:
                return
            if self._waiting.size + self._under_way >= self._max_waiting:
                raise self._too_much()
            self._waiting.take(group)
            self._waiting.calls.append(call)
        self._ring()
        call.over.wait()
        if call.error is not None:
            raise call.error

    def rotate(self) -> None:
        """Finish the present segment, so that it can be drained."""
        with self._io:
            self._finish()

    def close(self) -> None:
        """Log what waits, and finish the present segment. A later record begins a new one."""
        thread = self._thread
        if thread is not None or self._waiting.frames:
            self._closing = True
            self._ring()
            thread = self._thread
            if thread is not None:
                thread.join()
            self._closing = False
        if self._behind is not None:
            self._behind.stop()
        self.rotate()

    def _end_turn(self) -> None:
        """Commit what a turn of the loop gathered: here, or by the thread, which also begins each segment."""
        self._scheduled = False
        if self._segment is None or self._takes > QUICK_SECONDS:
            self._ring()
            return
        with self._gather:
            if not self._idle:
                return  # the thread takes it next
            group, self._waiting = self._waiting, _Waiting()
        if group.frames:
            error = self._commit(group)
            self._release(group, error)
            _tell(group.dones, error)

    def _ring(self) -> None:
        """Have the thread commit what waits."""
        with self._gather:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
                self._thread.start()
        with suppress(RuntimeError):  # it rings already
            self._bell.release()

    def _run(self) -> None:
        while True:
            self._bell.acquire(timeout=self._patience())
            while (group := self._take()) is not None:
                self._deliver(group, self._commit(group))
            self._retire()
            with self._gather:
                if self._closing and not self._waiting.frames:
                    self._thread = None
                    return

    def _patience(self) -> float:
        """Seconds until the present segment is old; -1 is for ever."""
        segment = self._segment
        return -1 if segment is None else max(0.0, segment.began + self._max_seconds - time.monotonic())

    def _take(self) -> _Waiting | None:
        with self._gather:
            group = self._waiting
            self._idle = not group.frames
            if self._idle:
                self._under_way = 0
                return None
            self._waiting, self._under_way = _Waiting(), group.size
            return group

    def _commit(self, group: _Waiting) -> MillpondError | None:
        with self._io:
            began = time.monotonic()
            try:
                if self._segment is None:
                    self._segment = SegmentFile.create(self._spool)
                self._segment.append(group.frames, group.needs, sync=self._behind is None)
                if self._behind is not None:
                    self._behind.wanted(self._segment)
            except OSError as error:
                self._finish()
                return self._refusal(error)
            except Exception as error:
                logger.exception("the prediction log failed")
                self._finish()
                return self._refusal(error)
            self._takes += LAST_COUNTS * (time.monotonic() - began - self._takes)
            if self._segment.length >= self._max_bytes:
                self._finish()
        return None

    def _deliver(self, group: _Waiting, error: MillpondError | None) -> None:
        self._release(group, error)
        if group.dones:
            assert self._loop is not None
            try:
                self._loop.call_soon_threadsafe(_tell, group.dones, error)
            except RuntimeError:
                logger.warning("the event loop has ended before %d records were logged", len(group.dones))

    @staticmethod
    def _release(group: _Waiting, error: MillpondError | None) -> None:
        for call in group.calls:
            call.error = error
            call.over.set()

    def _retire(self) -> None:
        with self._io:
            if self._segment is not None and time.monotonic() >= self._segment.began + self._max_seconds:
                self._finish()

    def _finish(self) -> None:
        if self._segment is not None:
            if self._behind is not None:
                self._behind.let_go()
            self._segment.close()
        self._segment = None

    def _refusal(self, error: Exception) -> Unavailable:
        said = (error.strerror if isinstance(error, OSError) else "") or str(error)
        refusal = Unavailable(
            f"the prediction log cannot be written: {said}",
            where=str(self._spool),
            hint="free space on that disk; predictions are refused until they can be logged",
        )
        refusal.__cause__ = error
        return refusal

    def _too_much(self) -> Overloaded:
        return Overloaded(
            f"{self._max_waiting >> 20} MB of predictions wait for the disk of the prediction log",
            where=str(self._spool),
            hint="ask again in a moment; where it lasts, the disk is too slow for this many predictions",
        )


class _SyncBehind:
    """Syncs segments some milliseconds after they were written, in a thread of its own."""

    def __init__(self) -> None:
        # Held while a descriptor is used, so that it is not closed meanwhile.
        self._using = threading.Lock()
        self._segment: SegmentFile | None = None
        self._news = threading.Event()
        self._thread: threading.Thread | None = None
        self._stopping = False

    def wanted(self, segment: SegmentFile) -> None:
        """Sync the segment soon."""
        self._segment = segment
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="prediction-log-sync", daemon=True)
            self._thread.start()
        self._news.set()

    def let_go(self) -> None:
        """Sync at once what is not synced yet, and forget the segment, which may be closed then."""
        with self._using:
            self._sync()
            self._segment = None

    def stop(self) -> None:
        if self._thread is not None:
            self._stopping = True
            self._news.set()
            self._thread.join()
        self._thread, self._stopping = None, False

    def _run(self) -> None:
        while not self._stopping:
            self._news.wait()
            time.sleep(SYNC_SECONDS)
            with self._using:
                self._sync()

    def _sync(self) -> None:
        if not self._news.is_set():
            return
        self._news.clear()
        if self._segment is not None:
            try:
                self._segment.sync()
            except OSError:
                logger.exception("predictions that were written may not survive a loss of power")


def _tell(dones: Sequence[Done], error: MillpondError | None) -> None:
    for done in dones:
        try:
            done(error)
        except Exception:
            logger.exception("an answer could not be given")


def _not_loggable(model: str, wrong: Exception) -> MillpondError:
    error = MillpondError(
        f"a prediction of {model!r} does not fit its log: {type(wrong).__name__}: {wrong}",
        where=f"model {model!r}",
        hint="its runtime gave outputs or inputs that are not of the types that the version declares",
    )
    error.__cause__ = wrong
    return error
