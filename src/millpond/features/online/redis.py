"""The online store in Redis or Valkey: the shared original, and a replica in LMDB on each server.

Writes go to Redis, as operations in one log, and are acknowledged when Redis has them and this server's replica has
applied them. Reads go to the replica alone and never wait for the network. See docs/guides/redis.md.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from millpond.core.errors import MissingExtra
from millpond.features.online.lmdb import LmdbStore
from millpond.features.online.ports import EntityKey, LoggedEvents, OnlineReader, OnlineView, Pushed, ViewState

if TYPE_CHECKING:
    import pyarrow as pa

try:
    import redis  # noqa: F401 - this module is imported where a store is opened
except ModuleNotFoundError as error:
    raise MissingExtra("redis is not installed", hint="install it: pip install 'millpond[redis]'") from error

from millpond.features.online import redis_landing, redis_publishing
from millpond.features.online.events import to_bytes
from millpond.features.online.redis_connection import Connection, Operation
from millpond.features.online.redis_follower import Follower
from millpond.features.online.redis_forgetting import forget
from millpond.features.online.redis_replica import Replica
from millpond.features.online.redis_shared import Shared

#: How long operations stay in Redis at least; a server that was away for longer copies whole states.
RETENTION = timedelta(days=1)
_TRIMS_PER_RETENTION = 48


class RedisStore:
    """`OnlineStore` of several servers. Safe across threads and processes, not across a fork.

    Processes of one server share the replica's folder; servers must not share one, nor start from a copy of one.
    `push`, `load`, `publish`, `pending`, `land`, `forget` and `drop` raise Unavailable while Redis does not answer;
    what they did not acknowledge may be done all the same, and doing it again does no harm. `read`, `states` and
    `landed` go on from the replica.

    Args:
        url: Of Redis or Valkey: redis://user:password@host:6379/0, rediss://..., unix:///path.
        replica: This server's replica; it is closed with this store.
        project: Name of the project; others may be in the same Redis.
        retention: How long operations stay in Redis at least.
        patience: Seconds to wait here for the replica to be up to date; it need not be.

    Raises:
        SettingsError: The URL is none of Redis.
    """

    def __init__(
        self,
        url: str,
        replica: LmdbStore,
        *,
        project: str,
        retention: timedelta = RETENTION,
        patience: float = 2.0,
    ) -> None:
        self._connection = Connection(url, project)
        self._local = replica
        self._replica = Replica(replica)
        self._follower = Follower(self._connection, self._replica)
        self._shared = Shared(self._connection, self._replica, self._follower)
        self._retention = retention
        self._trimmed_at = time.monotonic()
        self._closing = threading.Lock()
        self._closed = False
        self._follower.start(patience)

    def read(self) -> AbstractContextManager[OnlineReader]:
        return self._local.read()

    def states(self) -> list[ViewState]:
        return self._local.states()

    def synced_at(self) -> datetime | None:
        return self._follower.pulse.synced_at()

    def load(
        self, view: OnlineView, source: int, since: datetime | None, position: int, rows: pa.RecordBatchReader
    ) -> ViewState:
        return redis_publishing.load(self._shared, view, source, since, position, rows)

    def publish(
        self, view: OnlineView, source: int, grid: datetime, rows: pa.RecordBatchReader, *, full: bool
    ) -> ViewState:
        return redis_publishing.publish(self._shared, view, source, grid, rows, full=full)

    def push(self, table: str, key: Sequence[str], rows: pa.Table) -> Pushed:
        fresh, latest = self._replica.fresh(table, key, rows)
        if not fresh:
            return Pushed(latest, 0, rows.num_rows)
        events = rows if len(fresh) == rows.num_rows else rows.take(fresh)
        meta = {"table": table, "key": list(key), "events": len(fresh), "origin": self._replica.origin}
        operation = Operation("events", json.dumps(meta), len(fresh), to_bytes(events.replace_schema_metadata(None)))
        sequence = self._shared.commit(operation).sequence
        self._shared.applied(sequence)
        done = Pushed(**self._replica.result(sequence))
        return done._replace(duplicates=done.duplicates + rows.num_rows - len(fresh))

    def pending(self, table: str, limit: int = 100_000) -> LoggedEvents | None:
        """As the port says; from here to `land`, or for two minutes, no other server can do this.

        Raises:
            Conflict: Another server is landing events of this table, for longer than some seconds.
        """
        return redis_landing.pending(self._shared, table, limit)

    def landed(self, table: str) -> int:
        return self._local.landed(table)

    def land(self, table: str, position: int) -> None:
        redis_landing.land(self._shared, table, position)
        if time.monotonic() - self._trimmed_at >= self._retention.total_seconds() / _TRIMS_PER_RETENTION:
            self._trimmed_at = time.monotonic()
            redis_landing.trim(self._shared, self._retention)

    def forget(self, entity: str, key: EntityKey) -> int:
        return forget(self._shared, entity, key)

    def drop(self, view: OnlineView) -> None:
        redis_publishing.drop(self._shared, view)

    def close(self) -> None:
        """Stop following, and give the files back; calling it again does nothing."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        self._follower.close()
        self._connection.close()
        self._replica.close()
        self._local.close()
