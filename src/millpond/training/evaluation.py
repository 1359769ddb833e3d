"""What is known of a model on the test part: curves, calibration, confusion, residuals, slices, importance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from millpond.training.data import Floats
from millpond.training.importance import Importances
from millpond.training.metrics import Confusion, confusion
from millpond.training.slices import SliceMetrics

#: Points a curve is thinned to, at most; bins of a calibration table and of a histogram.
CURVE_POINTS = 200
CALIBRATION_BINS = 10
HISTOGRAM_BINS = 30
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@dataclass(frozen=True)
class Curve:
    """Points of a curve in order; at most 200."""

    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class CalibrationBin:
    """Test rows of neighbouring outputs: their mean output, and what was observed (share of yes, or mean label)."""

    predicted: float
    observed: float
    rows: int


@dataclass(frozen=True)
class ClassificationDetails:
    """Of a classifier on the test part.

    Attributes:
        roc: False positive rate to true positive rate.
        precision_recall: Recall to precision.
        confusion: At the threshold.
        threshold: Probability from which the answer is yes.
        threshold_source: "declared", or "best F1 on validation".
    """

    roc: Curve
    precision_recall: Curve
    confusion: Confusion
    threshold: float
    threshold_source: str


@dataclass(frozen=True)
class RegressionDetails:
    """Of a regressor on the test part. A residual is the predicted minus the true number, in the label's unit.

    Attributes:
        residual_quantiles: Share -> residual, at 1, 5, 25, 50, 75, 95 and 99 %.
        histogram_edges: Edges of the bins between the quantiles 1 % and 99 %; one more than there are counts.
        histogram_counts: Rows a bin; what lies outside is counted in the first and last bin.
    """

    residual_quantiles: dict[str, float]
    histogram_edges: tuple[float, ...]
    histogram_counts: tuple[int, ...]


@dataclass(frozen=True)
class Evaluation:
    """Everything found on the test part beside the flat metrics.

    Attributes:
        calibration: Up to ten bins of about equally many rows, by output; for regression too.
        slices: By the declared columns.
        importance: By permutation.
        classification: For that task, else None.
        regression: For that task, else None.
    """

    calibration: tuple[CalibrationBin, ...]
    slices: tuple[SliceMetrics, ...]
    importance: Importances
    classification: ClassificationDetails | None = None
    regression: RegressionDetails | None = None


def classification_details(labels: Floats, outputs: Floats, threshold: float, source: str) -> ClassificationDetails:
    """Curves and confusion. Both classes must occur in `labels`."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    false_rate, true_rate, _ = roc_curve(labels, outputs)
    precision, recall, _ = precision_recall_curve(labels, outputs, drop_intermediate=True)
    return ClassificationDetails(
        thin(false_rate, true_rate),
        thin(recall[::-1], precision[::-1]),
        confusion(labels, outputs, threshold),
        threshold,
        source,
    )


def regression_details(labels: Floats, outputs: Floats) -> RegressionDetails:
    """Residual quantiles and histogram."""
    residuals = outputs - labels
    quantiles = np.quantile(residuals, QUANTILES)
    low, high = float(quantiles[0]), float(quantiles[-1])
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(np.clip(residuals, low, high), bins=HISTOGRAM_BINS, range=(low, high))
    named = {f"{share:.0%}": float(value) for share, value in zip(QUANTILES, quantiles, strict=True)}
    return RegressionDetails(named, tuple(edges.tolist()), tuple(counts.tolist()))


def calibration(labels: Floats, outputs: Floats) -> tuple[CalibrationBin, ...]:
    """Rows in up to ten bins by output, of about equally many rows; equal outputs share a bin."""
    edges = np.unique(np.quantile(outputs, np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]))
    bins = np.searchsorted(edges, outputs, side="left")
    found = []
    for number in np.unique(bins):
        mask = bins == number
        found.append(CalibrationBin(float(outputs[mask].mean()), float(labels[mask].mean()), int(mask.sum())))
    return tuple(found)


def thin(x: Floats, y: Floats) -> Curve:
    """A curve with at most 200 points, evenly spread along its length; the first and the last stay."""
    if len(x) > CURVE_POINTS:
        steps = np.hypot(np.diff(x), np.diff(y))
        length = np.concatenate([[0.0], np.cumsum(steps)])
        picked = np.searchsorted(length, np.linspace(0, length[-1], CURVE_POINTS))
        picked = np.unique(np.concatenate([[0], picked[1:-1], [len(x) - 1]]))
        x, y = x[picked], y[picked]
    return Curve(tuple(x.tolist()), tuple(y.tolist()))
