"""What the engine needs of a version's parts, and of who counts and logs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from millpond.serving.ports import Explanation, LogRecord
from millpond.serving.rows import Column, Rows

#: Name of the column in which the featurizer process is told, and tells, the instant of each row.
AS_OF = "__as_of"


class Featured(NamedTuple):
    """Raw model inputs, and what they were read from; see `serving.ports.Featurized`. Instants are microseconds, UTC.

    Attributes:
        inputs: All raw inputs, in the order of `ServedModel.inputs`.
        as_of: The instant of each row.
        snapshots: Table -> snapshot id.
        events: Table -> position of the last pushed event that was seen; 0 is none.
        synced_at: Until when a replica that lost its original was complete, or None.
    """

    inputs: Rows
    as_of: Sequence[int]
    snapshots: Mapping[str, int]
    events: Mapping[str, int]
    synced_at: int | None = None


class InlineFeatures(Protocol):
    """Looks features up within some microseconds."""

    def look_up(self, rows: Rows, as_of: int | None) -> Featured | None:
        """The inputs of request rows; None where only the featurizer process can tell them, or that there are none."""
        ...


class Plan(Protocol):
    """A compiled version; see `serving.plans`."""

    def predict(self, rows: Rows) -> Mapping[str, Column]:
        """The outputs for raw inputs."""
        ...

    def explain(self, rows: Rows) -> Explanation:
        """Contributions of the raw inputs."""
        ...


class Reply(Protocol):
    """What a process answers: rows for exactly the rows that were asked, and what is common to their batch."""

    @property
    def rows(self) -> Rows: ...

    @property
    def meta(self) -> Mapping[str, Any]: ...


class Process(Protocol):
    """A process of a version, which answers in batches; see `serving.lanes`."""

    def submit(
        self,
        rows: Rows,
        done: Callable[[Any], None],
        *,
        deadline: float | None = None,
        gone: Callable[[], bool] = ...,
    ) -> None:
        """Have rows answered; `done` is given a `Reply`, or an exception."""
        ...


class Log(Protocol):
    """The prediction log."""

    def append(self, record: LogRecord, done: Callable[[Exception | None], None]) -> None:
        """Log answers; `done` is called once they are durable, or with why they cannot be."""
        ...


class Deployment(Protocol):
    """Which versions answer for a model; see `serving.traffic`."""

    @property
    def model(self) -> str: ...

    @property
    def live(self) -> int: ...

    @property
    def canary(self) -> int | None: ...

    @property
    def shadows(self) -> Sequence[int]: ...

    def choose(self, key: str | None) -> tuple[int, str]:
        """The version for a request, and its variant: "live" or "canary"."""
        ...


class Counts(Protocol):
    """Statistics of versions; see `serving.traffic`."""

    def observe(self, model: str, version: int, variant: str, rows: int, seconds: float, outcome: str) -> None:
        """Count a request: its outcome is "ok", "refused" (the caller's fault) or "failed" (the version's)."""
        ...

    def compare(self, model: str, version: int, variant: str, outputs: Column, reference: Column, flips: int) -> None:
        """Count how a version's outputs differ from those of the live one on the same rows."""
        ...
