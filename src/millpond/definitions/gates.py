"""What a new version must show before it may be promoted.

Gates on metrics are judged where a version is trained, on its test part; gates on live traffic by the platform, on the
prediction log.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from millpond.core.names import did_you_mean
from millpond.core.time import Duration
from millpond.definitions.place import Place, Problem, caller

MetricGateKind = Literal["at_least", "at_most", "beats_champion", "beats_baseline"]

#: Metrics by task, and whether more is better.
METRICS: dict[str, dict[str, bool]] = {
    "classification": {
        "roc_auc": True,
        "pr_auc": True,
        "log_loss": False,
        "brier": False,
        "accuracy": True,
        "precision": True,
        "recall": True,
        "f1": True,
    },
    "regression": {"rmse": False, "mae": False, "r2": True},
}


@dataclass(frozen=True)
class MetricGate:
    """One condition on the metrics of the test part.

    Attributes:
        kind: "at_least" and "at_most" compare with `bound`; "beats_champion" and "beats_baseline" with the other's
            metric on the same test rows, by more than `bound`.
        metric: A metric of the model's task.
        bound: In the metric's own unit.
    """

    kind: MetricGateKind
    metric: str
    bound: float = 0.0
    declared_at: Place = field(default_factory=caller, repr=False, compare=False)

    def describe(self) -> dict[str, Any]:
        return {"gate": self.kind, "metric": self.metric, "bound": self.bound}

    def __str__(self) -> str:
        if self.kind in ("at_least", "at_most"):
            return f"{self.metric} {'>=' if self.kind == 'at_least' else '<='} {self.bound:g}"
        other = self.kind.removeprefix("beats_")
        return f"{self.metric} better than {other}" + (f" by {self.bound:g}" if self.bound else "")

    def problems(self, subject: str, task: str) -> Iterator[Problem]:
        known = METRICS.get(task, {})
        if self.metric not in known:
            hint = did_you_mean(self.metric, known, noun="metrics")
            yield Problem(self.declared_at, subject, f"gates: {self.kind}", f"metric is {self.metric!r}", hint)


@dataclass(frozen=True)
class NoSkew:
    """A condition on live traffic: what was served is what the lake gives for the same instant.

    Attributes:
        max_share: Greatest share of a feature's values that may differ, or not be there to compare.
        min_compared: Values of a feature from which on that share is allowed; with fewer none may differ.
        over: How far before the newest prediction the traffic reaches that counts.
    """

    max_share: float = 0.0
    min_compared: int = 1000
    over: str = "7d"
    declared_at: Place = field(default_factory=caller, repr=False, compare=False)

    def describe(self) -> dict[str, Any]:
        window = Duration.parse(self.over).microseconds
        return {"gate": "no_skew", "max_share": self.max_share, "min_compared": self.min_compared, "over": window}

    def __str__(self) -> str:
        allowed = f" beyond {self.max_share:.4g} of the values" if self.max_share else ""
        return f"no skew{allowed} in {self.over} of live traffic"

    def problems(self, subject: str, task: str) -> Iterator[Problem]:  # noqa: ARG002 - as every gate
        def problem(argument: str, found: str, hint: str = "") -> Problem:
            return Problem(self.declared_at, subject, f"gates: no_skew: {argument}", found, hint)

        if not isinstance(self.max_share, (int, float)) or not 0 <= self.max_share < 1:
            yield problem("max_share", f"is {self.max_share!r}", "a share of the values: at least 0, and less than 1")
        if not isinstance(self.min_compared, int) or self.min_compared < 1:
            yield problem("min_compared", f"is {self.min_compared!r}", "a number of values: at least 1")
        try:
            Duration.parse(self.over)
        except (ValueError, TypeError) as error:
            yield problem("over", str(error))


#: Gates that are judged on the prediction log.
LiveGate = NoSkew
Gate = MetricGate | LiveGate


def at_least(metric: str, bound: float) -> MetricGate:
    """The metric is `>= bound`."""
    return MetricGate("at_least", metric, bound)


def at_most(metric: str, bound: float) -> MetricGate:
    """The metric is `<= bound`."""
    return MetricGate("at_most", metric, bound)


def beats_champion(metric: str, by: float = 0.0) -> MetricGate:
    """The metric is better than the champion's on the same test rows, by more than `by`. Passes where none serves."""
    return MetricGate("beats_champion", metric, by)


def beats_baseline(metric: str, by: float = 0.0) -> MetricGate:
    """The metric is better than that of a trivial predictor, by more than `by`."""
    return MetricGate("beats_baseline", metric, by)


def no_skew(*, max_share: float = 0.0, min_compared: int = 1000, over: str = "7d") -> NoSkew:
    """The features that the new version uses were served to the champion as the lake gives them for the same instants.

    Judged on the champion's logged predictions (those answered within `over` before its newest one; a sample of
    10,000), for the features that mean the same in both versions. What is measured already counts as long as neither
    predictions nor tables have changed since; else it is measured anew. Passes, and says so, where no version serves,
    nothing was served, or no feature means the same. A version that has itself served is judged on its own traffic
    when it is made champion again.

    Args:
        max_share: Greatest share of the values of any one feature that may differ; values that cannot be recomputed
            any more count as differing.
        min_compared: Values of a feature from which on that share is allowed. With fewer, a single different value
            fails the gate, for a share of few says little.
        over: A duration, such as "7d".
    """
    return NoSkew(max_share, min_compared, over)
