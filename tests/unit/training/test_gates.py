from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pytest

import millpond as mp
from millpond.training.gates import Champion, ChampionScores, judge, score_champion

FLAT = {"test.roc_auc": 0.8, "baseline.test.roc_auc": 0.5, "test.log_loss": 0.4, "baseline.test.log_loss": 0.6}


def one(gate, champion=None, flat=FLAT):
    (result,) = judge([gate], "classification", flat, champion)
    return result


@pytest.mark.parametrize(
    ("gate", "passed", "other"),
    [
        (mp.at_least("roc_auc", 0.8), True, 0.8),
        (mp.at_least("roc_auc", 0.81), False, 0.81),
        (mp.at_most("log_loss", 0.4), True, 0.4),
        (mp.at_most("log_loss", 0.39), False, 0.39),
        (mp.beats_baseline("roc_auc"), True, 0.5),
        (mp.beats_baseline("roc_auc", by=0.35), False, 0.5),
        (mp.beats_baseline("log_loss", by=0.1), True, 0.6),
        (mp.beats_champion("roc_auc"), True, None),
    ],
)
def test_verdicts(gate, passed, other):
    result = one(gate)
    assert (result.passed, result.other) == (passed, other)
    assert result.gate == str(gate)
    assert result.reason


@pytest.mark.parametrize(("value", "passed"), [(0.79, True), (0.8, False), (0.81, False)])
def test_a_champion_must_be_beaten_not_equalled(value, passed):
    result = one(mp.beats_champion("roc_auc"), ChampionScores(3, {"roc_auc": value}))
    assert (result.passed, result.other) == (passed, value)
    assert "version 3" in result.reason


def test_what_cannot_be_compared_does_not_pass():
    undefined = one(mp.at_least("pr_auc", 0.1))
    assert not undefined.passed
    assert "not defined" in undefined.reason
    broken = one(mp.beats_champion("roc_auc"), ChampionScores(3, {}, "it could not predict the new test rows: boom"))
    assert not broken.passed
    assert "boom" in broken.reason
    missing = one(mp.beats_champion("log_loss"), ChampionScores(3, {"roc_auc": 0.7}))
    assert not missing.passed


ROWS = pa.table({"x": [0.1, 0.9, 0.4, 0.6]})
LABELS = np.array([0.0, 1, 0, 1])


def test_the_champion_is_scored_on_the_same_rows_at_its_own_threshold():
    def predict(rows):
        return rows["x"].to_pylist()

    assert score_champion(Champion(2, predict), "classification", ROWS, LABELS, 0.5).metrics["accuracy"] == 1
    own = score_champion(Champion(2, predict, threshold=0.7), "classification", ROWS, LABELS, 0.5)
    assert own.metrics["accuracy"] == 0.75
    assert own.metrics["roc_auc"] == 1


def raises(rows):
    raise KeyError("its input is gone")


@pytest.mark.parametrize(
    ("predict", "problem"),
    [
        (None, r"cannot predict the new test rows \(on its own test part it had test.roc_auc 0.7000\)"),
        (raises, "its input is gone"),
        (lambda rows: [0.5], "one finite number"),
        (lambda rows: [0.5, 0.5, float("nan"), 0.5], "one finite number"),
        (lambda rows: ["a"] * 4, "could not"),
    ],
)
def test_a_champion_that_fails_is_a_result(predict, problem):
    found = score_champion(Champion(2, predict, {"test.roc_auc": 0.7}), "classification", ROWS, LABELS, 0.5)
    assert found.metrics == {}
    assert re.search(problem, found.problem)
