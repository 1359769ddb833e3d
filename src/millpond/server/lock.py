"""One running platform a project: a lock that the system takes back when its holder ends."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from millpond.core.errors import Conflict
from millpond.core.time import format_instant, now


class InstanceLock:
    """Held by the control process of a project; a context manager. Freed by the system however the holder ends.

    Raises:
        Conflict: On entry, where another process holds it; says which, and its address.
    """

    def __init__(self, run: Path) -> None:
        self._path = run / "up.lock"
        self._descriptor = -1

    def __enter__(self) -> InstanceLock:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise _taken(self._path) from error
        self._descriptor = descriptor
        self._write({"pid": os.getpid()})
        return self

    def publish(self, url: str, serving: str | None = None, grpc: str | None = None) -> None:
        """Say at which address the platform answers, and at which predictions are asked for directly."""
        addresses = {"url": url, **({"serving": serving} if serving else {}), **({"grpc": grpc} if grpc else {})}
        self._write({"pid": os.getpid(), **addresses, "started_at": format_instant(now())})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)

    def _write(self, holder: Mapping[str, Any]) -> None:
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(holder).encode(), 0)


def running_instance(run: Path) -> dict[str, Any] | None:
    """Who runs the platform of this project: "pid", and once it answers "url", "started_at", and "serving" and "grpc"
    where predictions can be asked for directly; None where nobody does.
    """
    try:
        descriptor = os.open(run / "up.lock", os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _holder(run / "up.lock")
    finally:
        os.close(descriptor)
    return None


def refuse_second(run: Path) -> None:
    """Pass where nobody runs the platform of this project.

    Raises:
        Conflict: Somebody does; says which process, and its address.
    """
    if running_instance(run) is not None:
        raise _taken(run / "up.lock")


def _holder(path: Path) -> dict[str, Any]:
    try:
        holder = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _taken(path: Path) -> Conflict:
    holder = _holder(path)
    where = f"at {holder['url']} (process {holder['pid']})" if "url" in holder else "in another process"
    hint = "open that address, or stop it with Ctrl-C in its terminal" + (
        f" or `kill {holder['pid']}`" if "pid" in holder else ""
    )
    return Conflict(f"The platform of this project runs already, {where}.", where=str(path), hint=hint)
