"""Metrics of both tasks, and the trivial predictor that every model is compared with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from millpond.definitions.gates import METRICS
from millpond.training.data import Floats

#: What tunes a model and ranks its inputs, unless another is named.
DEFAULT_METRIC = {"classification": "roc_auc", "regression": "rmse"}


@dataclass(frozen=True)
class Baseline:
    """The trivial predictor: one number for every example.

    Attributes:
        output: Share of yes among the training examples, or the mean of the training labels.
        text: What it does, in words.
    """

    output: float
    text: str


def baseline(task: str, train_labels: Floats) -> Baseline:
    """The trivial predictor for these training labels."""
    output = float(train_labels.mean())
    if task == "classification":
        return Baseline(output, f"gives every example the training share of yes, {output:.1%}")
    return Baseline(output, f"gives every example the mean of the training labels, {output:.6g}")


def metrics(task: str, labels: Floats, outputs: Floats, threshold: float | None) -> dict[str, float]:
    """All metrics of a task.

    Args:
        task: "classification" or "regression".
        labels: 0.0 and 1.0, or numbers; at least one; no nulls.
        outputs: Probability of yes, or the predicted number, a label.
        threshold: Probability from which the answer is yes; ignored for regression.

    Returns:
        Metric -> value, in the order of `definitions.gates.METRICS`. A metric that is not defined on these labels
        (ROC AUC, PR AUC and R2 where all labels are equal) is absent; precision and F1 of no positive answers are 0.
    """
    if task == "regression":
        return regression_metrics(labels, outputs)
    return classification_metrics(labels, outputs, 0.5 if threshold is None else threshold)


def classification_metrics(labels: Floats, probabilities: Floats, threshold: float) -> dict[str, float]:
    """As `metrics`. PR AUC is the average precision; log loss is in nats, with probabilities kept from 0 and 1."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    counts = confusion(labels, probabilities, threshold)
    clipped = np.clip(probabilities, np.finfo(np.float64).eps, 1 - np.finfo(np.float64).eps)
    likelihood = labels * np.log(clipped) + (1 - labels) * np.log1p(-clipped)
    values: dict[str, float] = {}
    if 0 < labels.sum() < len(labels):
        values["roc_auc"] = float(roc_auc_score(labels, probabilities))
        values["pr_auc"] = float(average_precision_score(labels, probabilities))
    precision = _ratio(counts.true_yes, counts.true_yes + counts.false_yes)
    recall = _ratio(counts.true_yes, counts.true_yes + counts.false_no)
    return {
        **values,
        "log_loss": float(-likelihood.mean()),
        "brier": float(np.mean((probabilities - labels) ** 2)),
        "accuracy": (counts.true_yes + counts.true_no) / len(labels),
        "precision": precision,
        "recall": recall,
        "f1": _ratio(2 * precision * recall, precision + recall),
    }


def regression_metrics(labels: Floats, outputs: Floats) -> dict[str, float]:
    """As `metrics`. RMSE and MAE are in the label's own unit."""
    errors = outputs - labels
    values = {"rmse": float(np.sqrt(np.mean(errors**2))), "mae": float(np.mean(np.abs(errors)))}
    spread = float(np.sum((labels - labels.mean()) ** 2))
    if spread > 0:
        values["r2"] = float(1 - np.sum(errors**2) / spread)
    return values


@dataclass(frozen=True)
class Confusion:
    """How answers met the truth; rows. `false_yes`: the answer was yes, and wrong."""

    true_yes: int
    false_yes: int
    true_no: int
    false_no: int


def confusion(labels: Floats, probabilities: Floats, threshold: float) -> Confusion:
    """Count the answers; the answer is yes from the threshold on."""
    yes, truth = probabilities >= threshold, labels == 1
    return Confusion(
        int((yes & truth).sum()), int((yes & ~truth).sum()), int((~yes & ~truth).sum()), int((~yes & truth).sum())
    )


def best_threshold(labels: Floats, probabilities: Floats) -> float:
    """The threshold with the best F1 (the lowest of several equal ones).

    It lies midway between two neighbouring probabilities, so that the last bit of a probability, which may differ
    between two ways of computing it, does not turn an answer.
    """
    order = np.argsort(-probabilities, kind="stable")
    ranked = probabilities[order]
    hits = np.cumsum(labels[order])
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    f1 = 2 * hits[last] / (last + 1 + labels.sum())
    best = last[len(f1) - 1 - int(np.argmax(f1[::-1]))]
    below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
    return float((ranked[best] + below) / 2)


def is_better(task: str, metric: str, value: float, other: float, by: float = 0.0) -> bool:
    """Whether `value` beats `other` by more than `by`."""
    return value - other > by if METRICS[task][metric] else other - value > by


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
