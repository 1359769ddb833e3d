"""A log file of a child process, capped in size."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

from millpond.core.time import format_instant, now

CAP_BYTES = 8 << 20


class CappedLog:
    """A log file. When it is full it becomes `NAME.log.1`, replacing the one before. Safe across threads.

    Writing never fails: what cannot be written, as on a full disk, is lost.
    """

    def __init__(self, path: Path, cap: int = CAP_BYTES) -> None:
        self._path = path
        self._cap = cap
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):
            path.touch(0o600)

    def write(self, data: bytes) -> None:
        with self._lock, suppress(OSError):
            size = self._path.stat().st_size if self._path.exists() else 0
            if size and size + len(data) > self._cap:
                self._path.replace(self._path.with_name(self._path.name + ".1"))
            with self._path.open("ab") as file:
                file.write(data)

    def note(self, text: str) -> None:
        """A line of the platform's own."""
        self.write(f"-- {format_instant(now())} millpond: {text}\n".encode())
