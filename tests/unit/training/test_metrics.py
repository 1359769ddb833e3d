from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import f1_score, log_loss

from millpond.definitions.gates import METRICS
from millpond.training.evaluation import calibration, classification_details, regression_details, thin
from millpond.training.metrics import baseline, best_threshold, confusion, is_better, metrics


def sample(rows=400, seed=0):
    random = np.random.default_rng(seed)
    outputs = random.random(rows)
    return (random.random(rows) < outputs).astype(float), outputs


def test_classification_metrics_by_hand():
    labels, outputs = np.array([1.0, 0, 1, 0]), np.array([0.9, 0.8, 0.4, 0.1])
    found = metrics("classification", labels, outputs, 0.5)
    assert list(found) == list(METRICS["classification"])
    assert found["roc_auc"] == 0.75
    assert found["pr_auc"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["log_loss"] == pytest.approx(-(math.log(0.9) + math.log(0.2) + math.log(0.4) + math.log(0.9)) / 4)
    assert found["brier"] == pytest.approx((0.01 + 0.64 + 0.36 + 0.01) / 4)
    assert (found["accuracy"], found["precision"], found["recall"], found["f1"]) == (0.5, 0.5, 0.5, 0.5)


def test_log_loss_of_certain_and_wrong_is_finite_and_as_scikit_learn_has_it():
    labels, outputs = np.array([1.0, 0.0]), np.array([0.0, 0.0])
    assert metrics("classification", labels, outputs, 0.5)["log_loss"] == pytest.approx(log_loss(labels, outputs))


def test_what_is_not_defined_is_absent():
    found = metrics("classification", np.ones(3), np.array([0.2, 0.4, 0.3]), 0.9)
    assert "roc_auc" not in found
    assert "pr_auc" not in found
    assert (found["precision"], found["recall"], found["f1"]) == (0, 0, 0)
    assert "r2" not in metrics("regression", np.ones(3), np.zeros(3), None)


def test_regression_metrics_by_hand():
    found = metrics("regression", np.array([1.0, 2, 3]), np.array([1.0, 2, 6]), None)
    assert found == {"rmse": pytest.approx(math.sqrt(3)), "mae": 1.0, "r2": pytest.approx(1 - 9 / 2)}


def test_the_best_threshold_is_the_best_of_all_and_between_two_probabilities():
    for seed in range(5):
        labels, outputs = sample(200, seed)
        outputs = outputs.round(2)
        threshold = best_threshold(labels, outputs)
        best = max(f1_score(labels, outputs >= at) for at in np.unique(outputs))
        assert f1_score(labels, outputs >= threshold) == pytest.approx(best)
        assert threshold not in outputs


def test_the_lowest_of_equally_good_thresholds():
    # F1 is 2/3 from 0.9 on (1 of 1, half found) and from 0.2 on (2 of 4, all found)
    assert best_threshold(np.array([1.0, 0, 0, 1]), np.array([0.9, 0.5, 0.4, 0.2])) == pytest.approx(0.1)
    assert best_threshold(np.array([1.0, 0.0]), np.array([0.5, 0.5])) == 0.25


def test_confusion_counts_a_probability_at_the_threshold_as_yes():
    found = confusion(np.array([1.0, 0, 0, 1]), np.array([0.5, 0.5, 0.1, 0.2]), 0.5)
    assert (found.true_yes, found.false_yes, found.true_no, found.false_no) == (1, 1, 1, 1)


def test_better_knows_the_direction():
    assert is_better("classification", "roc_auc", 0.8, 0.7)
    assert not is_better("classification", "roc_auc", 0.8, 0.8)
    assert is_better("classification", "log_loss", 0.3, 0.4, by=0.05)
    assert not is_better("regression", "rmse", 0.38, 0.4, by=0.05)


def test_the_baseline_is_the_training_share_or_mean():
    assert baseline("classification", np.array([0.0, 1, 0, 0])).output == 0.25
    assert "25.0%" in baseline("classification", np.array([0.0, 1, 0, 0])).text
    assert baseline("regression", np.array([1.0, 2.0, 6.0])).output == 3


def test_curves_keep_their_ends_and_at_most_200_points():
    labels, outputs = sample(5000)
    found = classification_details(labels, outputs, 0.5, "declared")
    for curve in (found.roc, found.precision_recall):
        assert 100 < len(curve.x) <= 200
    assert (found.roc.x[0], found.roc.y[0], found.roc.x[-1], found.roc.y[-1]) == (0, 0, 1, 1)
    area = np.trapezoid(found.roc.y, found.roc.x)
    assert area == pytest.approx(metrics("classification", labels, outputs, 0.5)["roc_auc"], abs=2e-3)
    short = thin(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    assert (short.x, short.y) == ((0.0, 1.0), (0.0, 1.0))


def test_calibration_bins_hold_every_row_and_equal_outputs_share_one():
    labels, outputs = sample(1000)
    bins = calibration(labels, outputs)
    assert len(bins) == 10
    assert sum(each.rows for each in bins) == 1000
    assert all(abs(each.predicted - each.observed) < 0.15 for each in bins)
    assert [each.predicted for each in bins] == sorted(each.predicted for each in bins)
    (only,) = calibration(labels, np.full(1000, 0.5))
    assert only.rows == 1000


def test_residuals():
    labels = np.zeros(1000)
    found = regression_details(labels, np.random.default_rng(0).normal(size=1000))
    assert sum(found.histogram_counts) == 1000
    assert len(found.histogram_edges) == len(found.histogram_counts) + 1
    assert list(found.residual_quantiles) == ["1%", "5%", "25%", "50%", "75%", "95%", "99%"]
    assert sum(regression_details(labels, labels).histogram_counts) == 1000
