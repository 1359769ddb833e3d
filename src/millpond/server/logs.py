"""Logs of the platform's processes, in `.millpond/logs`, capped in size."""

from __future__ import annotations

import logging
import logging.handlers
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


def log_to(path: Path) -> logging.Handler:
    """Send what the control process logs (warnings, and Millpond's own information) to a capped file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=CAP_BYTES, backupCount=1, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    logging.getLogger("millpond").setLevel(logging.INFO)
    return handler
