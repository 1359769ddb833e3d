"""Segment files: appended to by one process, which holds a lock on them for as long as it may.

A segment begins with `MAGIC`; frames follow (`layout`), and zeros while it is written. Name endings: `.log` a segment,
`.new` one that is being made, `.torn` one that was drained and held bytes after its last whole frame (kept for a person
to look at). The writer holds an exclusive `flock`; the kernel drops it when the process ends, whatever ended it, and by
this the drain knows that a segment is finished.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from millpond.core.durable import sync_directory

logger = logging.getLogger(__name__)

MAGIC = b"MPPL\x00\x00\x00\x02"

#: Zeros that are written ahead of the frames. A sync within them need not change the file's size, and so does not wait
#: for the journal of the file system, nor for others who write to it.
AHEAD = 256 << 10


class SegmentFile:
    """A segment that this process writes. Not safe across threads, but for `sync`.

    Attributes:
        length: Its bytes.
        known: Numbers of the frames in it that records refer to.
        began: `time.monotonic()` when it was made.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.length = self._end = len(MAGIC)
        self.known: set[int] = set()
        self.began = time.monotonic()

    @classmethod
    def create(cls, spool: Path) -> SegmentFile:
        """Make a locked, durable, empty segment. Nobody sees a segment under its name that is not locked yet."""
        spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            name = spool / f"{time.time_ns():020d}-{os.getpid()}-{os.urandom(4).hex()}"
            fresh = name.with_suffix(".new")
            descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _write_all(descriptor, MAGIC, 0)
                os.fsync(descriptor)
                fresh.rename(name.with_suffix(".log"))
                sync_directory(spool)
            except (BlockingIOError, FileNotFoundError):
                # A drain took the file for the remains of a dead process.
                os.close(descriptor)
            except OSError:
                fresh.unlink(missing_ok=True)
                os.close(descriptor)
                raise
            else:
                return cls(descriptor)

    def append(self, frames: Sequence[bytes], needs: Mapping[int, bytes], *, sync: bool) -> None:
        """Add frames, and before them what they refer to where it is not there yet; all of it or nothing.

        Args:
            frames: The frames.
            needs: Number -> frame of what they refer to.
            sync: Whether it is to survive a loss of power when this returns; a kill of the process it does anyway.

        Raises:
            OSError: The file is as it was before.
        """
        fresh = [number for number in needs if number not in self.known]
        data = b"".join([*(needs[number] for number in fresh), *frames])
        try:
            self._write(data, AHEAD if sync else 0)
            if sync:
                os.fdatasync(self._descriptor)
        except OSError:
            try:
                self._cut()
                os.fsync(self._descriptor)
            except OSError:
                logger.exception("a refused write could not be taken back from the prediction log")
            raise
        self.length += len(data)
        self.known.update(fresh)

    def _write(self, data: bytes, ahead: int) -> None:
        stop = self.length + len(data)
        if ahead and stop > self._end:
            try:
                _write_all(self._descriptor, data + bytes(ahead), self.length)
            except OSError:  # the disk is nearly full
                self._cut()
            else:
                self._end = stop + ahead
                return
        _write_all(self._descriptor, data, self.length)
        self._end = max(self._end, stop)

    def _cut(self) -> None:
        """Take away what lies after the last frame that counts."""
        os.ftruncate(self._descriptor, self.length)
        self._end = self.length

    def sync(self) -> None:
        """Let what was appended survive a loss of power."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        with suppress(OSError):  # zeros do no harm
            self._cut()
        os.close(self._descriptor)


def segments(spool: Path) -> list[Path]:
    """The segments of a spool, oldest first."""
    return sorted(spool.glob("*.log"))


@contextmanager
def finished(path: Path) -> Iterator[bool]:
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


def _write_all(descriptor: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, at)
        view, at = view[written:], at + written
