"""Leases: work on a thing that only one process of all servers does, and that ends with it."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from millpond.core.errors import Conflict, Unavailable
from millpond.features.online.redis_connection import Connection

_log = logging.getLogger("millpond.online")

#: How long the others wait for a server that went away in the middle.
LEASE_SECONDS = 30.0
_PATIENCE_SECONDS = 0.1


@contextmanager
def lease(connection: Connection, folder: Path, origin: str, name: str, taken: str) -> Iterator[tuple[str, str]]:
    """Be the only one of all servers that does a thing; name and holder of the lease, for `Connection.commit`.

    A lock file keeps the processes of this server apart, and the kernel frees it when its holder dies: a lease of this
    server is then taken over at once. One of another server runs out.

    Args:
        connection: Where the lease is.
        folder: The replica's folder, which the processes of this server share.
        origin: Id of this server.
        name: What is done.
        taken: What to say where another does it.

    Raises:
        Conflict: Another does it.
        Unavailable: Redis does not answer.
    """
    holder = f"{origin}:{uuid.uuid4().hex}"
    with _alone(folder, name, taken):
        _acquire(connection, origin, name, holder, taken)
        ended = threading.Event()
        renewing = threading.Thread(target=_renew, args=(connection, name, holder, ended), daemon=True)
        renewing.start()
        try:
            yield name, holder
        finally:
            ended.set()
            renewing.join()
            with suppress(Unavailable):
                connection.release(name, holder)


def lives(connection: Connection, name: str) -> bool:
    """Whether anybody holds a lease."""
    with connection.errors():
        return bool(connection.client.exists(connection.keys.lease(name)))


def hold(connection: Connection, origin: str, name: str, seconds: float, taken: str) -> None:
    """Hold a lease for this server from now on for `seconds`, without renewal.

    Raises:
        Conflict: Another server holds it.
    """
    key = connection.keys.lease(name)
    with connection.errors():
        if connection.client.set(key, origin, nx=True, px=int(seconds * 1000)):
            return
    if not connection.renew(name, origin, seconds):
        raise Conflict(taken, hint="wait until it has finished, then do it again")


def _acquire(connection: Connection, origin: str, name: str, holder: str, taken: str) -> None:
    key, milliseconds = connection.keys.lease(name), int(LEASE_SECONDS * 1000)
    with connection.errors():
        if connection.client.set(key, holder, nx=True, px=milliseconds):
            return
        before = (connection.client.get(key) or b"").decode()
        if before.startswith(f"{origin}:"):  # of a process that is dead, for its lock file is free
            connection.client.set(key, holder, px=milliseconds)
            return
        if not before and connection.client.set(key, holder, nx=True, px=milliseconds):
            return
    raise Conflict(taken, hint=f"wait until it has finished, or {LEASE_SECONDS:.0f} s after its server went away")


def _renew(connection: Connection, name: str, holder: str, ended: threading.Event) -> None:
    while not ended.wait(LEASE_SECONDS / 6):
        try:
            if not connection.renew(name, holder, LEASE_SECONDS):
                return  # what is committed under it will be refused
        except Unavailable as error:
            _log.warning("Lease %s could not be renewed: %s", name, error.what)


@contextmanager
def _alone(folder: Path, name: str, taken: str) -> Iterator[None]:
    path = folder / "locks" / f"shared-{name.encode().hex()[:200]}"
    path.parent.mkdir(exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        until = time.monotonic() + _PATIENCE_SECONDS
        while not lock(descriptor):
            if time.monotonic() > until:
                raise Conflict(taken, hint="wait until it has finished, then do it again")
            time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def lock(descriptor: int) -> bool:
    """Lock a file, if nobody has; closing it, or the end of the process, frees it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
