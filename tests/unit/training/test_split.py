from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

import millpond as mp
from millpond.core.errors import TrainingError
from millpond.core.time import to_microseconds
from millpond.training.data import Labels, TrainingData
from millpond.training.split import boundaries, key_fraction, split_by_key, split_by_time, split_examples

DAY = timedelta(days=1)
START = datetime(2024, 1, 1, tzinfo=UTC)
STAMP = pa.timestamp("us", "UTC")


def micros(*days: float) -> np.ndarray:
    return np.array([to_microseconds(START + day * DAY) for day in days], dtype=np.int64)


def run(days, label, split, *, known=None, names=("no", "yes"), null_labels=0):
    """Split examples on the given days (None: no time); `known` are days too."""
    instant = [None if day is None else START + day * DAY for day in days]
    columns = {"id": list(range(len(days))), "at": pa.array(instant, STAMP), "x": [0.0] * len(days)}
    if known is not None:
        columns["known"] = pa.array([None if day is None else START + day * DAY for day in known], STAMP)
    rows = pa.table(columns)
    data = TrainingData(
        rows, ("id",), {"x": "float64"}, at="at", label_known="known" if known is not None else None,
        null_labels=null_labels,
    )  # fmt: skip
    return split_examples(split, data, rows, Labels(np.array(label, dtype=float), names), 'Model "late"')


BY_DATE = mp.Split(validation="2024-01-05", test="2024-01-09")
DAYS = list(range(12))
LABEL = [0, 1] * 6


def test_dates_split_at_midnight_utc_and_a_row_at_a_boundary_is_later():
    parts, summary = run(DAYS, LABEL, BY_DATE)
    assert parts.train.tolist() == [0, 1, 2, 3]
    assert parts.validation.tolist() == [4, 5, 6, 7]
    assert parts.test.tolist() == [8, 9, 10, 11]
    assert summary.by == "time"
    assert summary.validation_from == START + 4 * DAY
    assert summary.test_from == START + 8 * DAY
    assert (summary.train.rows, summary.train.positives, summary.train.mean_label) == (4, 2, 0.5)
    assert (summary.test.first, summary.test.last) == (START + 8 * DAY, START + 11 * DAY)


def test_labels_known_after_the_next_part_began_are_purged():
    known = [0, 1, 4, 4.5, 5, 6, None, 8, 20, 20, 20, None]
    parts, summary = run(DAYS, LABEL, mp.Split(validation="2024-01-05", test="2024-01-09"), known=known)
    assert parts.train.tolist() == [0, 1, 2], "known exactly at the boundary is known"
    assert parts.validation.tolist() == [4, 5, 7], "null means not known"
    assert parts.test.tolist() == [8, 9, 10, 11], "the test part is never purged"
    assert (summary.purged_train, summary.purged_validation) == (1, 1)


def test_everything_left_out_is_counted():
    days = [*DAYS[:-1], 40, None]
    label = [*LABEL[:2], np.nan, *LABEL[3:], 1]
    split = mp.Split(validation="2024-01-05", test="2024-01-09", end="2024-02-01")
    parts, summary = run(days, label, split, null_labels=5)
    assert 2 not in parts.train
    assert 11 not in parts.test
    assert (summary.null_labels, summary.null_times, summary.after_end) == (6, 1, 1)
    assert summary.end == datetime(2024, 2, 1, tzinfo=UTC)


def test_fractions_count_from_the_end():
    validation, test = boundaries(mp.Split(validation=0.2, test=0.1), micros(*range(100)), "m")
    assert (validation, test) == (micros(70)[0], micros(90)[0])


def test_a_fraction_within_equal_instants_takes_the_nearest_border():
    times = micros(*[0] * 50, *[1] * 20, *[2] * 25, *[3] * 5)
    assert boundaries(mp.Split(validation=0.2, test=0.1), times, "m") == tuple(micros(2, 3))
    assert boundaries(mp.Split(validation=0.2, test=0.25), times, "m") == tuple(micros(1, 2))


def test_too_few_instants_for_fractions():
    with pytest.raises(TrainingError, match="only 2 different instants"):
        boundaries(mp.Split(), micros(0, 0, 1), "m")


@pytest.mark.parametrize(
    ("days", "label", "known", "message", "hint"),
    [
        (DAYS[:8], LABEL[:8], None, "test part is empty .train 4, validation 4, test 0", "boundaries"),
        (DAYS[4:], LABEL[4:], None, "train part is empty", "boundaries"),
        (DAYS, LABEL, [9] * 12, "train part is empty .*4 purged from train", "label_known"),
        (DAYS, [0] * 8 + [0, 1, 0, 1], None, "all 4 examples of the train part have the label 'no'", "both classes"),
        (DAYS, [0, 1] * 4 + [1] * 4, None, "all 4 examples of the test part have the label 'yes'", "both classes"),
        (DAYS, [np.nan] * 12, None, "no examples are left to split .12 without label", "label"),
        ([None] * 12, LABEL, None, "no examples are left to split .0 without label, 12 without time", "at"),
    ],
)
def test_a_split_that_cannot_be_judged_is_refused(days, label, known, message, hint):
    with pytest.raises(TrainingError, match=message) as caught:
        run(days, label, BY_DATE, known=known)
    assert hint in caught.value.hint
    assert caught.value.where.startswith('Model "late", split')


def test_regression_takes_a_part_with_one_value():
    _, summary = run(DAYS, [3.0] * 12, BY_DATE, names=())
    assert summary.train.positives is None
    assert summary.train.mean_label == 3.0


def test_split_by_time_of_nothing():
    empty = np.array([], dtype=np.int64)
    parts = split_by_time(empty, empty, np.array([], dtype=bool), (1, 2))
    assert [len(part) for part in (parts.train, parts.validation, parts.test)] == [0, 0, 0]


def test_the_hash_of_a_key_is_fixed_for_ever():
    assert key_fraction(["AA1"]) == 0.8296261481664275  # printf str:AA1 | b2sum -l 64, its first 13 digits
    assert key_fraction([17, "x"]) == 0.34156542346425245
    assert key_fraction([1]) != key_fraction(["1"])
    assert key_fraction(["a", "b"]) != key_fraction(["ab", ""])
    berlin = datetime.fromisoformat("2024-01-01T01:00:00+01:00")
    assert key_fraction([berlin]) == key_fraction([START])
    assert 0 <= key_fraction([None, True, Decimal("1.5"), b"x"]) < 1


def test_keys_are_split_by_share_whatever_their_order():
    keys = np.arange(5000)
    parts = split_by_key(mp.Split(validation=0.2, test=0.1), [keys.tolist()], "m")
    assert abs(len(parts.test) - 500) < 70
    assert abs(len(parts.validation) - 1000) < 90
    order = np.random.default_rng(0).permutation(5000)
    shuffled = split_by_key(mp.Split(validation=0.2, test=0.1), [keys[order].tolist()], "m")
    assert set(order[shuffled.test]) == set(parts.test)
    assert set(order[shuffled.train]) == set(parts.train)


def test_a_split_by_key_needs_fractions_and_a_key():
    with pytest.raises(TrainingError, match="the examples have no time"):
        split_by_key(BY_DATE, [[1]], "m")
    with pytest.raises(TrainingError, match="neither a time nor a key"):
        split_by_key(mp.Split(), [], "m")
