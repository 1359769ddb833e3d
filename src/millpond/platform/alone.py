"""One process at a time for work that would otherwise be done twice."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from millpond.core.errors import Conflict
from millpond.platform.platform import Platform
from millpond.platform.progress import step


@contextmanager
def alone(platform: Platform, name: str) -> Iterator[None]:
    """Hold the project's lock called `name` around a block; whoever comes second waits, and tells the listener so.

    Among the processes and threads of one machine. The kernel frees the lock when its holder ends, whatever ends it.
    Not re-entrant.
    """
    with _opened(platform, name) as descriptor:
        if not _locked(descriptor):
            with step(platform.listener, f"wait for {name}") as current:
                current.detail = "another process was at it"
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextmanager
def alone_or_refused(platform: Platform, name: str, what: str) -> Iterator[None]:
    """As `alone`, but whoever comes second is refused.

    Args:
        platform: The project.
        name: Of the lock.
        what: Says what goes on while it is held, such as "A batch is writing scores".

    Raises:
        Conflict: Somebody holds it.
    """
    with _opened(platform, name) as descriptor:
        if not _locked(descriptor):
            raise Conflict(what, hint="wait until that has ended")
        yield


@contextmanager
def _opened(platform: Platform, name: str) -> Iterator[int]:
    folder = platform.settings.run
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
