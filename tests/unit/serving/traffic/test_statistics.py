import json

import numpy as np
import pytest

from millpond.core.errors import DeadlineExceeded, MillpondError, NotFound, RequestError
from millpond.serving.traffic.histogram import Histogram
from millpond.serving.traffic.statistics import UNLIKE, Statistics, Tally, difference, merged, tallies_of


def test_answers_and_errors_are_counted_by_whose_fault_they_are():
    statistics = Statistics()
    for _ in range(3):
        statistics.observe("late", 2, "live", 4, 0.002)
    statistics.observe("late", 2, "live", 1, 0.5, RequestError("a column is missing"))
    statistics.observe("late", 2, "live", 1, 0.5, NotFound("no such version"))
    statistics.observe("late", 2, "live", 1, 0.5, DeadlineExceeded("too slow"))
    statistics.observe("late", 2, "live", 1, 0.5, MillpondError("the model raised"))
    tally = statistics.of("late", 2, "live")
    assert (tally.requests, tally.rows, tally.refused, tally.judged, tally.failed) == (7, 12, 2, 5, 2)
    assert tally.errors == {"DeadlineExceeded": 1, "MillpondError": 1}
    assert tally.latency.count == 3
    assert tally.latency.quantile(0.99) == pytest.approx(0.002, rel=0.023)


def test_what_belongs_to_another_step_is_counted_apart_and_in_the_totals():
    statistics = Statistics()
    statistics.observe("late", 2, "live", 1, 0.001)
    statistics.enter("late", "7.1")
    statistics.enter("late", "7.1")
    statistics.observe("late", 2, "live", 1, 0.001)
    statistics.observe("late", 3, "canary", 1, 0.001)
    statistics.enter("other", "9.1")
    snapshot = json.loads(json.dumps(statistics.snapshot(4, [("late", 3, "corrupt")])))
    assert snapshot["generation"] == 4
    assert snapshot["failed"] == [{"model": "late", "version": 3, "reason": "corrupt"}]
    step = tallies_of(snapshot, "late", "7.1")
    assert {name: each["requests"] for name, each in step.items()} == {"2/live": 1, "3/canary": 1}
    assert tallies_of(snapshot, "late", "") == {}
    totals = statistics.totals()
    assert totals["late", 2, "live"].requests == 2
    statistics.enter("late", "")
    assert statistics.totals()["late", 3, "canary"].requests == 1


def test_processes_add_up():
    parts = []
    for seconds in (0.001, 0.004):
        statistics = Statistics()
        statistics.enter("late", "7.1")
        for _ in range(10):
            statistics.observe("late", 3, "canary", 2, seconds)
        statistics.compare("late", 3, "canary", [0.5, 0.9], [0.5, 0.2], [True, True], [True, False])
        parts.append(tallies_of(statistics.snapshot(), "late", "7.1"))
    tally = merged(parts, 3, "canary")
    assert (tally.requests, tally.rows, tally.flips) == (20, 40, 2)
    assert tally.latency.quantile(0.5) == pytest.approx(0.001, rel=0.023)
    assert tally.latency.quantile(0.51) == pytest.approx(0.004, rel=0.023)
    assert tally.compared.count == 4
    assert tally.compared.zeros == 2
    assert tally.greatest == pytest.approx(0.7)
    assert merged(parts, 9, "canary").requests == 0


def test_the_json_of_a_tally_is_the_tally():
    tally = Tally()
    tally.answered(3, 0.01)
    tally.not_answered(MillpondError("raised"))
    tally.compare(0.25, flipped=True)
    tally.compare(UNLIKE)
    again = Tally.from_json(json.loads(json.dumps(tally.to_json(), allow_nan=False)))
    assert again.to_json() == tally.to_json()
    assert again.compared.above(1e9) == 1


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        (0.75, 0.5, 0.25),
        (3, 5, 2.0),
        (True, False, 1.0),
        ("cat", "cat", 0.0),
        ("cat", "dog", UNLIKE),
        (float("nan"), float("nan"), 0.0),
        (float("nan"), 0.5, UNLIKE),
        (np.array([0.1, 0.9]), np.array([0.3, 0.9]), 0.2),
        ([0.1, 0.9], [0.1, 0.9], 0.0),
        (np.float64(0.5), 0.25, 0.25),
    ],
)
def test_differences(one, other, apart):
    assert difference(one, other) == pytest.approx(apart)


def test_a_histogram_counts_only_what_is_surely_above():
    histogram = Histogram()
    for value in (0.0, 0.1, 0.2, 0.2001, 0.3, 5.0):
        histogram.add(value)
    assert histogram.above(0.2) == 2
    assert histogram.above(0.0) == 5
    assert histogram.mean == pytest.approx(5.8001 / 6)
    assert histogram.quantile(0.1) == 0.0
    assert Histogram().quantile(0.5) is None
