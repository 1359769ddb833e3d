"""What the engine needs of a version's parts, and of who counts and logs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from millpond.serving.lanes.ports import Done
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
        """Contributions of the raw inputs. Called in any thread, while others do all else with the plan."""
        ...


class Process(Protocol):
    """A process of a version, which answers in batches; see `serving.lanes`."""

    def submit(
        self,
        rows: Rows,
        done: Done,
        *,
        deadline: float | None = None,
        gone: Callable[[], bool] = ...,
    ) -> None:
        """Have rows answered."""
        ...


class Log(Protocol):
    """The prediction log."""

    def append(self, record: LogRecord, done: Callable[[Exception | None], None]) -> None:
        """Log answers; `done` is called once they are durable, or with why they cannot be."""
        ...
