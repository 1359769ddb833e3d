"""The prediction log: predictions are durable in the spool before they are answered, and reach the lake once.

The spool is a directory of segment files (format: `segments`). A writer appends to a segment of its own, on which it
holds an exclusive `flock` for as long as it may still write; the kernel drops that lock when the process ends, whatever
ended it, and by this the drain knows that a segment is finished. Name endings: `.log` a segment, `.new` one that is
being made, `.torn` one that was drained and held bytes after its last whole frame (kept for a person to look at).
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from millpond.core.errors import Unavailable
from millpond.serving.ports import Prediction
from millpond.serving.prediction_table import to_table
from millpond.serving.segments import MAGIC, decode_payload, encode_frame, frames_length, read_payloads

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

#: A segment is finished when it is this large, or this old in seconds.
MAX_SEGMENT_BYTES = 8 << 20
MAX_SEGMENT_SECONDS = 60.0


@dataclass
class _Batch:
    """Frames that share one fsync."""

    frames: list[bytes] = field(default_factory=list)
    done: bool = False
    error: OSError | None = None


class PredictionLog:
    """Writes predictions to the spool; a `PredictionSink`.

    Safe across threads, and across processes, each with a log of its own; not across a fork. What one call writes is
    kept whole or not at all. After kill -9 everything that `write` returned for is there.

    Args:
        spool: The directory; made when missing, readable by its owner only.
        max_bytes: Size from which a segment is finished.
        max_seconds: Age from which a segment is finished, also when nothing more is written.
    """

    def __init__(
        self, spool: Path, *, max_bytes: int = MAX_SEGMENT_BYTES, max_seconds: float = MAX_SEGMENT_SECONDS
    ) -> None:
        self._spool = spool
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._gather = threading.Lock()
        self._batch = _Batch()
        self._io = threading.Lock()
        self._segment: _Segment | None = None
        self._timer: threading.Timer | None = None

    def write(self, predictions: Sequence[Prediction]) -> None:
        """Append predictions; durable when it returns. Calls that arrive together share one fsync.

        Raises:
            Unavailable: The disk is full or failing; none of these predictions is in the log.
        """
        if not predictions:
            return
        frame = encode_frame(predictions)
        with self._gather:
            batch = self._batch
            batch.frames.append(frame)
        with self._io:
            # Whoever comes first commits for all that gathered while the last commit was under way.
            if not batch.done:
                with self._gather:
                    self._batch = _Batch()
                self._commit(batch)
        if batch.error is not None:
            raise Unavailable(
                f"the prediction log cannot be written: {batch.error.strerror or batch.error}",
                where=str(self._spool),
                hint="free space on that disk; predictions are refused until they can be logged",
            ) from batch.error

    def rotate(self) -> None:
        """Finish the present segment, so that it can be drained."""
        with self._io:
            self._finish()

    def close(self) -> None:
        """Finish the present segment. A later `write` begins a new one."""
        self.rotate()

    def _commit(self, batch: _Batch) -> None:
        try:
            if self._segment is None:
                self._segment = _Segment.create(self._spool)
                self._start_timer(self._segment)
            self._segment.append(b"".join(batch.frames))
        except OSError as error:
            batch.error = error
            self._finish()
        else:
            if self._segment.length >= self._max_bytes:
                self._finish()
        finally:
            batch.done = True

    def _start_timer(self, segment: _Segment) -> None:
        self._timer = threading.Timer(self._max_seconds, self._retire, [segment])
        self._timer.daemon = True
        self._timer.start()

    def _retire(self, segment: _Segment) -> None:
        with self._io:
            if self._segment is segment:
                self._finish()

    def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._segment is not None:
            self._segment.close()
        self._segment, self._timer = None, None


class _Segment:
    """A segment that this process writes. Not safe across threads."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.length = len(MAGIC)

    @classmethod
    def create(cls, spool: Path) -> _Segment:
        """Make a locked, durable, empty segment. Nobody sees a segment under its name that is not locked yet."""
        spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            name = spool / f"{time.time_ns():020d}-{os.getpid()}-{os.urandom(4).hex()}"
            fresh = name.with_suffix(".new")
            descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _write_all(descriptor, MAGIC)
                os.fsync(descriptor)
                fresh.rename(name.with_suffix(".log"))
                _sync_directory(spool)
            except (BlockingIOError, FileNotFoundError):
                # A drain took the file for the remains of a dead process.
                os.close(descriptor)
            except OSError:
                fresh.unlink(missing_ok=True)
                os.close(descriptor)
                raise
            else:
                return cls(descriptor)

    def append(self, data: bytes) -> None:
        """Add `data`, durable when it returns; after an OSError the file is as it was before."""
        try:
            _write_all(self._descriptor, data)
            os.fdatasync(self._descriptor)
        except OSError:
            try:
                os.ftruncate(self._descriptor, self.length)
                os.fsync(self._descriptor)
            except OSError:
                logger.exception("a refused write could not be taken back from the prediction log")
            raise
        self.length += len(data)

    def close(self) -> None:
        os.close(self._descriptor)


@dataclass(frozen=True)
class Drained:
    """What a drain did: segments and predictions moved, and segments set aside as `.torn`."""

    segments: int
    predictions: int
    torn: int


def drain(spool: Path, write: Callable[[pa.Table, str], object]) -> Drained:
    """Move the predictions of all finished segments to the lake, each exactly once, oldest segment first.

    One process drains at a time; others wait. A segment is removed after `write` has returned for it. A drain that
    was killed between the two is repeated with the same rows and the same token.

    Args:
        spool: The directory of the prediction log; may be missing.
        write: Takes the rows of one segment (`predictions_schema()`) and its token, and makes them durable; with a
            token that it has seen before it must do nothing.

    Raises:
        Whatever `write` raises; what was not written yet stays in the spool.
    """
    if not spool.is_dir():
        return Drained(0, 0, 0)
    segments = predictions = torn = 0
    with _drain_lock(spool):
        for path in sorted(spool.glob("*.new")):
            with _finished(path) as finished:
                if finished:
                    path.unlink(missing_ok=True)
        for path in _segments(spool):
            with _finished(path) as finished:
                if not finished:
                    continue
                payloads = list(read_payloads(path))
                found = [each for payload in payloads for each in decode_payload(payload)]
                if found:
                    write(to_table(found), path.stem)
                if path.stat().st_size > max(frames_length(payloads), len(MAGIC)):
                    logger.warning("%s held bytes after its last whole record; kept as .torn", path)
                    path.rename(path.with_suffix(".torn"))
                    torn += 1
                else:
                    path.unlink()
                _sync_directory(spool)
                segments += 1
                predictions += len(found)
    return Drained(segments, predictions, torn)


def find(spool: Path, prediction_id: str) -> Prediction | None:
    """The prediction of that id, if it is still in the spool. Sees what other processes have written.

    A drain puts predictions into the lake before it removes them here, so a caller that asks here first, and then in
    the lake, misses none.
    """
    needle = prediction_id.encode()
    for path in reversed(_segments(spool)):
        with suppress(FileNotFoundError):
            for payload in read_payloads(path):
                if needle in payload:
                    for prediction in decode_payload(payload):
                        if prediction.id == prediction_id:
                            return prediction
    return None


def pending(spool: Path) -> Iterator[Prediction]:
    """The predictions that are still in the spool, oldest segment first; live segments included."""
    for path in _segments(spool):
        with suppress(FileNotFoundError):
            for payload in read_payloads(path):
                yield from decode_payload(payload)


def _segments(spool: Path) -> list[Path]:
    return sorted(spool.glob("*.log"))


@contextmanager
def _drain_lock(spool: Path) -> Iterator[None]:
    descriptor = os.open(spool / "drain.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _finished(path: Path) -> Iterator[bool]:
    """Whether no process can write the file any more; it is locked meanwhile."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
