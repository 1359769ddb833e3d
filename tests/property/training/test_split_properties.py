"""The split against its meaning, on instants that tie, labels known late, early, never, and at boundaries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import millpond as mp
from millpond.core.errors import TrainingError
from millpond.training.split import boundaries, split_by_time

INSTANTS = st.lists(st.integers(0, 20), min_size=1, max_size=60)
FRACTIONS = st.floats(0.02, 0.45)


@given(INSTANTS, FRACTIONS, FRACTIONS)
@settings(max_examples=300, deadline=None)
def test_fractions_never_tear_an_instant_apart_and_leave_no_part_empty(times, validation, test):
    values = np.array(times, dtype=np.int64)
    if len(set(times)) < 3:
        with pytest.raises(TrainingError):
            boundaries(mp.Split(validation=validation, test=test), values, "m")
        return
    begins = boundaries(mp.Split(validation=validation, test=test), values, "m")
    parts = split_by_time(values, values, np.zeros(len(values), dtype=bool), begins)
    found = [set(values[part].tolist()) for part in (parts.train, parts.validation, parts.test)]
    assert all(found)
    assert max(found[0]) < min(found[1]) <= max(found[1]) < min(found[2])
    shares = [float((values >= at).mean()) for at in sorted(set(times))[2:]]
    chosen = float((values >= begins[1]).mean())
    assert abs(chosen - test) <= min(abs(share - test) for share in shares) + 1e-12


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_purging_agrees_with_a_plain_loop(data):
    times = data.draw(INSTANTS)
    known = data.draw(st.lists(st.one_of(st.none(), st.integers(0, 25)), min_size=len(times), max_size=len(times)))
    begins = sorted(data.draw(st.sets(st.integers(-1, 22), min_size=2, max_size=2)))
    unknown = np.array([value is None for value in known])
    parts = split_by_time(
        np.array(times, dtype=np.int64),
        np.array([value or 0 for value in known], dtype=np.int64),
        unknown,
        tuple(begins),
    )
    train, validation, test, purged = [], [], [], [0, 0]
    for row, (at, seen) in enumerate(zip(times, known, strict=True)):
        if at >= begins[1]:
            test.append(row)
        elif at >= begins[0]:
            late = seen is None or seen > begins[1]
            purged[1] += late
            if not late:
                validation.append(row)
        else:
            late = seen is None or seen > begins[0]
            purged[0] += late
            if not late:
                train.append(row)
    assert parts.train.tolist() == train
    assert parts.validation.tolist() == validation
    assert parts.test.tolist() == test
    assert [parts.purged_train, parts.purged_validation] == purged
    assert len(train) + len(validation) + len(test) + sum(purged) == len(times)
