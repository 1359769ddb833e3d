"""The findings in plain words and numbers, for the report."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from math import isnan

from millpond.training.train import Trained

#: Where there is no value.
DASH = "\N{EN DASH}"

METRIC_NAMES: Mapping[str, tuple[str, str]] = {
    "roc_auc": ("ROC AUC", "how often a random yes is ranked above a random no; 0.5 is guessing, 1 is perfect"),
    "pr_auc": ("PR AUC", "average precision over all thresholds; guessing gives the share of yes"),
    "log_loss": ("Log loss", "how far the probabilities are from the truth; surprise in nats, lower is better"),
    "brier": ("Brier score", "mean squared distance of the probabilities from the truth; lower is better"),
    "accuracy": ("Accuracy", "share of right answers at the threshold"),
    "precision": ("Precision", "share of the yes answers that are right"),
    "recall": ("Recall", "share of the true yes that are found"),
    "f1": ("F1", "balance of precision and recall"),
    "rmse": ("RMSE", "typical error in the label's unit, where large errors weigh more; lower is better"),
    "mae": ("MAE", "mean absolute error in the label's unit; lower is better"),
    "r2": ("R²", "share of the label's variance that is explained; 0 is the mean, 1 is perfect"),
}


def number(value: float | None, digits: int = 4) -> str:
    """A number for a table: four significant digits below 1,000, else whole with separators; a dash for None."""
    if value is None or isnan(value):
        return DASH
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if value and abs(value) < 1e-4:
        return f"{value:.1e}"
    return f"{value:.{digits}f}" if abs(value) <= 1 else f"{value:.{digits}g}"


def short(value: float) -> str:
    """A number of the data: whole ones whole, others with four significant digits."""
    return f"{value:,.0f}" if value == int(value) else f"{value:.4g}"


def plain(value: object) -> str:
    """A value as a person writes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def count(value: float) -> str:
    """A whole number with separators."""
    return f"{value:,.0f}"


def percent(value: float | None) -> str:
    """A share as a percentage."""
    if value is None or isnan(value):
        return DASH
    return f"{value:.0%}" if value in (0, 1) else f"{value:.1%}"


def instant(value: datetime | None) -> str:
    """An instant in UTC: the day alone at midnight, else to the minute."""
    if value is None:
        return DASH
    return f"{value:%Y-%m-%d}" if (value.hour, value.minute, value.second) == (0, 0, 0) else f"{value:%Y-%m-%d %H:%M}"


def verdict(trained: Trained) -> str:
    """What the model can do, beside the baseline, and whether it may be promoted: one sentence."""
    test = trained.split.test
    when = f" from {test.first:%Y-%m-%d} to {test.last:%Y-%m-%d}" if test.first and test.last else ""
    seen = f"On {count(test.rows)} examples{when} that it had never seen, "
    return seen + _ability(trained) + "; " + _decision(trained) + "."


def _ability(trained: Trained) -> str:
    get = trained.metrics.get
    if trained.task == "regression":
        mae, other = trained.metrics["test.mae"], trained.metrics["baseline.test.mae"]
        change = f"{abs(1 - mae / other):.0%} {'less' if mae < other else 'more'} than" if other else "against"
        trivial = f"always answering the training mean ({number(other)})"
        return f"the model is off by {number(mae)} on average, {change} {trivial}"
    auc, recall, precision = get("test.roc_auc", 0.5), get("test.recall", 0.0), get("test.precision", 0.0)
    quality = "no better than guessing" if auc < 0.52 else "guessing would give 50%"
    yes, no = (f"“{name}”" for name in reversed(trained.classes))
    return (
        f"the model ranks a {yes} above a {no} in {auc:.0%} of pairs ({quality}), "
        f"and at its threshold finds {recall:.0%} of every {yes}, with {precision:.0%} of its alarms right"
    )


def _decision(trained: Trained) -> str:
    failed = [gate for gate in trained.gates if not gate.passed]
    if not trained.gates:
        return "no gate was declared, so nothing speaks against promoting it but this page"
    total = len(trained.gates)
    if not failed:
        return (
            "its one gate passed, so it may be promoted"
            if total == 1
            else f"all {total} gates passed, so it may be promoted"
        )
    names = ", ".join(gate.gate for gate in failed)
    return f"{len(failed)} of {total} gates failed ({names}), so it may not be promoted"
