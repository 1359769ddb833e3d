"""The original and this server's replica of it, for the verbs that need both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from millpond.core.errors import Unavailable
from millpond.features.online.redis_connection import Committed, Connection, LostState, Operation
from millpond.features.online.redis_follower import Follower
from millpond.features.online.redis_replica import Replica

#: How long a writer waits for its own replica.
_EVENTS_SECONDS, _STATE_SECONDS = 15.0, 900.0


@dataclass(frozen=True)
class Shared:
    """What a store is made of."""

    connection: Connection
    replica: Replica
    follower: Follower

    def commit(
        self,
        operation: Operation | None,
        *,
        lease: tuple[str, str] = ("", ""),
        commands: Sequence[Sequence[str | bytes]] = (),
    ) -> Committed:
        """Append an operation to the original; see `Connection.commit`.

        Raises:
            Unavailable: Redis does not answer, or has lost what this replica holds and gets it back just now.
        """
        epoch = self.replica.epoch
        if not epoch:
            with self.connection.errors():
                self.connection.client.ping()  # says what is wrong
            self.follower.wait(lambda: bool(self.replica.epoch), _EVENTS_SECONDS)
            epoch = self.replica.epoch
        try:
            return self.connection.commit(epoch, self.replica.sequence, operation, lease=lease, commands=commands)
        except LostState as cause:
            raise Unavailable(
                "Redis has lost what this server's replica holds",
                where=self.connection.where,
                hint="it gets it back from the replicas: do it again in a moment, and see the log for what was lost",
            ) from cause

    def applied(self, sequence: int) -> None:
        """Wait until this server's replica has applied an operation.

        Raises:
            Unavailable: It has not in time.
        """
        self._wait(lambda: self.replica.sequence >= sequence, _EVENTS_SECONDS)

    def taken_over(self, view: str, sequence: int) -> None:
        """Wait until this server's replica has the state of a view that an operation put in place.

        Raises:
            MillpondError: It cannot have it.
        """
        self.applied(sequence)

        def done() -> bool:
            return self.replica.staged(view) >= sequence or view in self.follower.refusals

        self._wait(done, _STATE_SECONDS)
        refusal = self.follower.refusals.get(view)
        if refusal is not None and self.replica.staged(view) < sequence:
            raise refusal

    def _wait(self, done: Callable[[], bool], seconds: float) -> None:
        if not self.follower.wait(done, seconds):
            raise Unavailable(
                "It is durable in Redis, and this server's replica has not applied it yet",
                where=self.connection.where,
                hint="doing it again does no harm; the replica catches up as soon as it can",
            )
