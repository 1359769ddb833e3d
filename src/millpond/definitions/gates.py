"""What a new version must show before it may be promoted. Judged in the `training` room."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from millpond.core.names import did_you_mean
from millpond.definitions.place import Place, Problem, caller

GateKind = Literal["at_least", "at_most", "beats_champion", "beats_baseline"]

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
class Gate:
    """One condition on the metrics of the test part.

    Attributes:
        kind: "at_least" and "at_most" compare with `bound`; "beats_champion" and "beats_baseline" with the other's
            metric on the same test rows, by more than `bound`.
        metric: A metric of the model's task.
        bound: In the metric's own unit.
    """

    kind: GateKind
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


def at_least(metric: str, bound: float) -> Gate:
    """The metric is `>= bound`."""
    return Gate("at_least", metric, bound)


def at_most(metric: str, bound: float) -> Gate:
    """The metric is `<= bound`."""
    return Gate("at_most", metric, bound)


def beats_champion(metric: str, by: float = 0.0) -> Gate:
    """The metric is better than the champion's on the same test rows, by more than `by`. Passes where none serves."""
    return Gate("beats_champion", metric, by)


def beats_baseline(metric: str, by: float = 0.0) -> Gate:
    """The metric is better than that of a trivial predictor, by more than `by`."""
    return Gate("beats_baseline", metric, by)
