"""What the faces show of releases, and what they ask for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

ReleaseMove = Literal["advance", "rollback", "abort"]


@dataclass(frozen=True)
class ReleaseRequest:
    """How a version is to take over; what is None is as the model declares, else as `mp.Release()` says.

    Attributes:
        version: The version.
        why: Kept in the audit log.
        steps: Shares of the requests, such as (0.05, 0.25, 1.0).
        every: Least time of a step, such as "10m"; "" waits to be told.
        shadow: How long it shadows first, such as "30m"; "" until it is told to go on; "no" not at all.
        requests: Least number of requests in a step.
        force: Begin although a gate on live traffic fails.
    """

    version: int | str
    why: str
    steps: tuple[float, ...] | None = None
    every: str | None = None
    shadow: str | None = None
    requests: int | None = None
    force: bool = False


@dataclass(frozen=True)
class RuleFinding:
    """What a rule said last: it "holds", "waits" for evidence, or is "broken"; `said` is why."""

    rule: str
    standing: str
    said: str


@dataclass(frozen=True)
class VariantCounts:
    """What serving processes counted of a version in the present step.

    Attributes:
        version: The version.
        variant: "live", "canary" or "shadow".
        requests: Requests that were put to it.
        rows: Rows that it answered.
        failed: Requests that failed by its fault.
        refused: Requests that were the caller's fault.
        errors: Its failures by kind, in words.
        p50_ms: Median latency in milliseconds; None without answers.
        p99_ms: That of which one answer in a hundred took longer.
        compared: Rows that the live version was asked for as well.
        mean_difference: Mean absolute difference of their outputs; None without any.
        greatest_difference: The greatest.
        flips: Of them, those with another yes-or-no answer.
    """

    version: int
    variant: str
    requests: int
    rows: int
    failed: int
    refused: int
    errors: str
    p50_ms: float | None
    p99_ms: float | None
    compared: int
    mean_difference: float | None
    greatest_difference: float | None
    flips: int


@dataclass(frozen=True)
class ReleaseView:
    """A release, or a promotion or rollback that was done at once.

    Attributes:
        id: Grows.
        model: The model's name.
        version: The version that takes over.
        against: The live version when it began.
        kind: "release", "promotion" or "rollback".
        state: "shadowing", "stepping", "promoting", "promoted", "rolled back" or "aborted".
        active: Whether it is under way.
        step: 0 before the first.
        share: Of the requests that the version answers.
        shares: Those of its steps.
        every: Least time of a step; None waits to be told.
        shadow: Least time of its shadow; None where it has none, or waits to be told.
        shadows: Whether it has a shadow.
        requests: Least number of requests in a step.
        rules: In words.
        who: Who began it.
        why: Why.
        started_at: UTC.
        step_started_at: UTC.
        ended_at: UTC, or None.
        findings: What the rules said last.
        variants: What was counted in the present step, or in the last.
    """

    id: int
    model: str
    version: int
    against: int | None
    kind: str
    state: str
    active: bool
    step: int
    share: float
    shares: tuple[float, ...]
    every: str | None
    shadow: str | None
    shadows: bool
    requests: int
    rules: tuple[str, ...]
    who: str
    why: str
    started_at: datetime
    step_started_at: datetime
    ended_at: datetime | None
    findings: tuple[RuleFinding, ...]
    variants: tuple[VariantCounts, ...]

    @property
    def where(self) -> str:
        """Where it is, in words."""
        if self.state == "shadowing":
            return "shadows the live version"
        if self.state == "stepping":
            return f"step {self.step} of {len(self.shares)}: {self.share * 100:.4g} % of the requests"
        if self.kind != "release" or self.state not in ("rolled back", "aborted"):
            return self.state
        if not 0 < self.step <= len(self.shares):
            return f"{self.state} while it shadowed"
        return f"{self.state} in step {self.step} of {len(self.shares)}, at {self.shares[self.step - 1] * 100:.4g} %"
