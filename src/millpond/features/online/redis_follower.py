"""Keeping a replica up with its original, in the background: one process of a server at a time does it."""

from __future__ import annotations

import logging
import mmap
import os
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from millpond.core.errors import Conflict, MillpondError, Unavailable
from millpond.core.time import from_microseconds
from millpond.features.online.bulk import collect
from millpond.features.online.redis_connection import Connection, LostState
from millpond.features.online.redis_leases import lock
from millpond.features.online.redis_original import meet
from millpond.features.online.redis_replica import Replica, received
from millpond.features.online.redis_staging import take_over

_log = logging.getLogger("millpond.online")

#: A replica that was up to date this long ago is not called stale.
GRACE_MICROSECONDS = 3_000_000
_BLOCK_MILLISECONDS = 500
_OPERATIONS = 200
_LEAST_PAUSE, _MOST_PAUSE = 0.05, 2.0
_LOOK_SECONDS = 0.2


class Pulse:
    """When a server's replica was last up to date, in a file that all its processes map.

    Args:
        folder: The replica's folder.
    """

    _BOTH = struct.Struct("=qq")

    def __init__(self, folder: Path) -> None:
        descriptor = os.open(folder / "synced", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(descriptor).st_size < self._BOTH.size:
                os.ftruncate(descriptor, self._BOTH.size)
            self._map = mmap.mmap(descriptor, self._BOTH.size)
        finally:
            os.close(descriptor)

    def beat(self, at: int) -> None:
        """It was up to date at an instant, in microseconds since 1970 UTC."""
        self._BOTH.pack_into(self._map, 0, at, 0)

    def lost(self) -> None:
        """The original does not answer, from now on."""
        synced, _ = self._BOTH.unpack_from(self._map, 0)
        self._BOTH.pack_into(self._map, 0, synced, 1)

    def synced_at(self) -> datetime | None:
        """As `OnlineStore.synced_at`."""
        synced, lost = self._BOTH.unpack_from(self._map, 0)
        if not lost and time.time_ns() // 1000 - synced <= GRACE_MICROSECONDS:
            return None
        return from_microseconds(synced)


class Follower:
    """Two threads: one applies operations, one takes over whole states of views meanwhile.

    Of all processes that share a replica's folder one leads, which the kernel lets go of with the process.
    """

    def __init__(self, connection: Connection, replica: Replica) -> None:
        self.connection = connection
        self.replica = replica
        self.pulse = Pulse(replica.folder)
        self.refusals: dict[str, MillpondError] = {}
        self._leading = False
        self._client: Any = None
        self._stop = threading.Event()
        self._met = threading.Event()
        self._to_stage = threading.Event()
        self._changed = threading.Condition()
        self._lock_file = os.open(replica.folder / "leader", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._threads = [
            threading.Thread(target=self._follow_always, name="millpond-follow", daemon=True),
            threading.Thread(target=self._stage_always, name="millpond-stage", daemon=True),
        ]

    def start(self, patience: float) -> None:
        """Begin, and wait a little for the replica to be up to date."""
        for each in self._threads:
            each.start()
        self.wait(lambda: self._met.is_set() or self.pulse.synced_at() is None, patience)

    def close(self) -> None:
        self._stop.set()
        self._to_stage.set()
        client = self._client
        if client is not None:
            with suppress(Exception):  # it may be closing by itself
                client.connection.disconnect()
        for each in self._threads:
            each.join()
        os.close(self._lock_file)

    def wait(self, done: Callable[[], bool], seconds: float) -> bool:
        """Wait until something is so that applying or taking over brings about; whether it is."""
        until = time.monotonic() + seconds
        while not done():
            if time.monotonic() > until or self._stop.is_set():
                return False
            with self._changed:  # another process may lead, and does not notify
                self._changed.wait(0.02 if self._leading else 0.002)
        return True

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _follow_always(self) -> None:
        pause, told = _LEAST_PAUSE, ""
        while not self._stop.is_set():
            if not self._leading:
                self._leading = lock(self._lock_file)
                if not self._leading:
                    self._stop.wait(_LOOK_SECONDS)
                    continue
            try:
                self._met.clear()
                self._follow()
            except LostState:  # met anew at once, which says what was lost
                self.pulse.lost()
                self._stop.wait(_LEAST_PAUSE)
                continue
            except (Unavailable, Conflict) as error:
                if self._stop.is_set():
                    return
                self._lost(error.what, told)
                told = error.what
            except Exception:
                if self._stop.is_set():  # the connection was closed under it
                    return
                self._lost("", told)
                _log.exception("The replica in %s cannot be kept up", self.replica.folder)
            pause = _LEAST_PAUSE if self._met.is_set() else min(2 * pause, _MOST_PAUSE)
            self._stop.wait(pause)

    def _lost(self, what: str, told: str) -> None:
        self.pulse.lost()
        if what != told:
            _log.warning("The replica in %s is on its own: %s", self.replica.folder, what)

    def _follow(self) -> None:
        connection, replica = self.connection, self.replica
        keys = connection.keys
        client = self._client = connection.single()
        try:
            with connection.errors():
                epoch = meet(connection, replica)
                while not self._stop.is_set():
                    started = time.time_ns() // 1000
                    found, sequence, trimmed = client.mget(keys.epoch, keys.sequence, keys.trimmed)
                    here, there = replica.sequence, int(sequence or 0)
                    if (found or b"").decode() != epoch or there < here or int(trimmed or 0) > here:
                        raise LostState
                    if there == here:
                        self._up_to_date(started)
                    if not self._apply_next(client, here, wait=there == here) and there > here:
                        raise LostState
        finally:
            self._client = None
            client.close()

    def _up_to_date(self, at: int) -> None:
        waiting = [each for each in self.replica.awaited() if each.operation]
        if waiting:
            self._to_stage.set()
        else:
            self.pulse.beat(at)
            if not self._met.is_set():
                self._met.set()
                self._notify()

    def _apply_next(self, client: Any, here: int, *, wait: bool) -> bool:
        keys = self.connection.keys
        block = {"block": _BLOCK_MILLISECONDS} if wait else {}
        found = client.xread({keys.log: f"{here}-0"}, count=_OPERATIONS, **block)
        if not found:
            return False
        operations = received(client, self.connection, found[0][1])
        if int(client.get(keys.trimmed) or 0) > here:
            raise LostState  # what comes with them may be gone
        self.replica.apply(operations)
        if any(each.kind in ("state", "drop") for each in operations):
            self._to_stage.set()
        self._notify()
        return True

    def _stage_always(self) -> None:
        while not self._stop.is_set():
            self._to_stage.wait(_LOOK_SECONDS)
            self._to_stage.clear()
            if not self._leading:
                continue
            try:
                for each in self.replica.awaited():
                    if each.operation and not self._stop.is_set():
                        self._stage(each.name.hex())
                if self._stop.is_set():
                    return
                collect(self.replica.environment)
            except Exception:
                _log.exception("States of views could not be taken over into %s", self.replica.folder)
                self._stop.wait(_MOST_PAUSE)

    def _stage(self, view: str) -> None:
        try:
            take_over(self.connection, self.replica, view)
            self.refusals.pop(view, None)
        except Unavailable:
            self._stop.wait(_LEAST_PAUSE)
        except MillpondError as error:
            if str(self.refusals.get(view)) != str(error):
                _log.error("The state of view %s could not be taken over: %s", view, error)
            self.refusals[view] = error
            self._stop.wait(_LOOK_SECONDS)
        self._notify()
