"""Judging gates: what a version must show before it may be promoted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from millpond.definitions.gates import Gate, LiveGate, MetricGate
from millpond.training.data import Floats
from millpond.training.metrics import is_better, metrics

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Champion:
    """The version that serves now.

    Attributes:
        number: Its number.
        predict: From test rows of the new training set (all its columns) to probabilities of yes, or numbers; None
            where the champion cannot predict them.
        metrics: What was recorded of it when it was trained, flat ("test.roc_auc").
        threshold: Its threshold; None takes that of the new version.
    """

    number: int
    predict: Callable[[pa.Table], Sequence[float]] | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    threshold: float | None = None


@dataclass(frozen=True)
class ChampionScores:
    """The champion on the test rows of the new version.

    Attributes:
        number: The champion's number.
        metrics: Metric -> value on the same test rows; empty where it could not predict them.
        problem: Why it could not, in words; empty where it could.
    """

    number: int
    metrics: Mapping[str, float]
    problem: str = ""


@dataclass(frozen=True)
class GateResult:
    """A judged gate.

    Attributes:
        gate: The gate's text, such as "roc_auc >= 0.7".
        passed: The verdict.
        value: What was judged: the new version's metric on the test part, or the worst share of live traffic; None
            where it is not defined.
        other: The bound, or the other's metric; None where there is none.
        reason: The verdict in words.
    """

    gate: str
    passed: bool
    value: float | None
    other: float | None
    reason: str


def score_champion(
    champion: Champion, task: str, rows: pa.Table, labels: Floats, threshold: float | None
) -> ChampionScores:
    """Evaluate the champion on the test rows. A champion that fails is a result, not an error."""
    if champion.predict is None:
        recorded = ", ".join(
            f"{name} {value:.4f}" for name, value in champion.metrics.items() if name.startswith("test.")
        )
        own = f" (on its own test part it had {recorded})" if recorded else ""
        return ChampionScores(champion.number, {}, f"it cannot predict the new test rows{own}")
    try:
        outputs = np.asarray(champion.predict(rows), dtype=np.float64)
    except Exception as error:  # whatever the older version's code raises must not stop the new one
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return ChampionScores(champion.number, {}, f"it could not predict the new test rows: {reason}")
    if outputs.shape != labels.shape or not np.isfinite(outputs).all():
        return ChampionScores(champion.number, {}, "it did not give one finite number for each test row")
    limit = threshold if champion.threshold is None else champion.threshold
    return ChampionScores(champion.number, metrics(task, labels, outputs, limit))


def judge(
    gates: Sequence[Gate],
    task: str,
    flat: Mapping[str, float],
    champion: ChampionScores | None,
    live: Mapping[LiveGate, GateResult] = MappingProxyType({}),
) -> tuple[GateResult, ...]:
    """Judge each gate, in order: those on metrics on the test part; for those on live traffic their given results.

    Args:
        gates: The declarations.
        task: The model's task.
        flat: Holds "test.<metric>" and "baseline.test.<metric>".
        champion: The champion on the same rows; None where no version serves.
        live: Results of the gates on live traffic; one that is not there fails.
    """
    return tuple(
        _judge(gate, task, flat, champion) if isinstance(gate, MetricGate) else live.get(gate, _unjudged(gate))
        for gate in gates
    )


def _unjudged(gate: LiveGate) -> GateResult:
    return GateResult(str(gate), False, None, None, "live traffic was not looked at")


def _judge(gate: MetricGate, task: str, flat: Mapping[str, float], champion: ChampionScores | None) -> GateResult:
    value = flat.get(f"test.{gate.metric}")
    if value is None:
        return GateResult(str(gate), False, None, None, f"{gate.metric} is not defined on this test part")
    if gate.kind in ("at_least", "at_most"):
        passed = value >= gate.bound if gate.kind == "at_least" else value <= gate.bound
        side = "at least" if gate.kind == "at_least" else "at most"
        reason = f"{gate.metric} is {value:.4f}; {side} {gate.bound:g} is needed"
        return GateResult(str(gate), passed, value, gate.bound, reason)
    if gate.kind == "beats_baseline":
        return _compared(gate, task, value, flat.get(f"baseline.test.{gate.metric}"), "the trivial baseline")
    if champion is None:
        return GateResult(str(gate), True, value, None, "no version serves yet, so there is no champion to beat")
    name = f"the champion (version {champion.number})"
    if champion.problem:
        return GateResult(str(gate), False, value, None, f"{name} could not be compared: {champion.problem}")
    return _compared(gate, task, value, champion.metrics.get(gate.metric), name)


def _compared(gate: MetricGate, task: str, value: float, other: float | None, name: str) -> GateResult:
    if other is None:
        return GateResult(str(gate), False, value, None, f"{gate.metric} of {name} is not defined on this test part")
    passed = is_better(task, gate.metric, value, other, gate.bound)
    margin = f" by more than {gate.bound:g}" if gate.bound else ""
    verb = "is better than" if passed else "is not better than"
    return GateResult(
        str(gate), passed, value, other, f"{gate.metric} {value:.4f} {verb} {other:.4f} of {name}{margin}"
    )
