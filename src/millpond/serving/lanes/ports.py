"""The nouns of lanes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from millpond.core.child_processes import BackOff
from millpond.serving.rows import Rows


class Reply(NamedTuple):
    """What a lane answers to one request.

    Attributes:
        rows: Outputs of exactly the rows that were submitted, in order.
        meta: JSON values that hold for the whole batch.
    """

    rows: Rows
    meta: Mapping[str, Any]


Done: TypeAlias = Callable[[Reply | Exception], None]


@dataclass(frozen=True)
class LaneLimits:
    """How much a lane takes on, and how long its process may take.

    Attributes:
        batch_rows: Rows of several requests that go in one call, whatever it takes; one larger request goes alone.
        most_batch_rows: The same while a call of so many takes no longer than `batch_seconds`, by the calls before.
        batch_seconds: See `most_batch_rows`.
        batch_bytes: The same in bytes, as they lie in memory here.
        waiting_requests: Requests that may wait; more are refused.
        waiting_rows: Rows that may wait; a request that finds nobody waiting is always taken.
        waiting_bytes: The same in bytes.
        waiting_seconds: How long a request without a nearer deadline waits for its call to begin.
        call_seconds: How long one call may run; the process is killed then.
        start_seconds: How long the process may take until it is ready.
        failed_starts: Starts that fail in a row until requests are refused at once; starts go on meanwhile.
        memory_bytes: Resident memory from which on the process is replaced between two calls; None is no limit.
        memory_kill_bytes: Resident memory from which on it is killed, also within a call; None is half as much again
            as `memory_bytes`.
        threads: Threads of the model's numerical libraries.
        back_off: The wait before starts after the second end in a row.
    """

    batch_rows: int = 1024
    most_batch_rows: int = 8192
    batch_seconds: float = 0.25
    batch_bytes: int = 64 << 20
    waiting_requests: int = 4096
    waiting_rows: int = 65536
    waiting_bytes: int = 256 << 20
    waiting_seconds: float = 60.0
    call_seconds: float = 30.0
    start_seconds: float = 120.0
    failed_starts: int = 3
    memory_bytes: int | None = None
    memory_kill_bytes: int | None = None
    threads: int = 1
    back_off: BackOff = field(default_factory=BackOff)

    @property
    def killed_from(self) -> int | None:
        """Bytes of resident memory from which on the process is killed."""
        if self.memory_kill_bytes is None and self.memory_bytes is not None:
            return self.memory_bytes * 3 // 2
        return self.memory_kill_bytes


class LaneState(NamedTuple):
    """How a lane is.

    Attributes:
        state: "stopped" before the first request and after the end; "starting"; "ready"; "failing" from an end of the
            process or a failed start until it is ready again.
        reason: Why it is failing or stopped.
        log_tail: The last that the process printed, where it is failing.
    """

    state: Literal["stopped", "starting", "ready", "failing"]
    reason: str = ""
    log_tail: str = ""


@dataclass
class LaneCounts:
    """What a lane has done since it was made; `requests / calls` is the mean batch.

    Attributes:
        calls: Calls of the process.
        requests: Requests in those calls; one that is tried again counts again.
        rows: Rows in those calls.
        starts: Processes that were started.
    """

    calls: int = 0
    requests: int = 0
    rows: int = 0
    starts: int = 0
