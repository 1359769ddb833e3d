"""The prediction log against what it promises: acknowledged is kept, moved once, in order; refused is nowhere."""

from __future__ import annotations

import math
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from millpond.serving.ports import Prediction
from millpond.serving.prediction_log import PredictionLog, drain, find, pending
from millpond.serving.prediction_table import from_row, to_table
from millpond.serving.segments import MAGIC, decode_payload, encode_frame, plain, read_payloads

INSTANTS = st.datetimes(timezones=st.just(UTC))
VALUES = st.dictionaries(
    st.text(max_size=8),
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=8) | INSTANTS,
    max_size=4,
)
PREDICTIONS = st.builds(
    Prediction,
    id=st.text(min_size=1, max_size=12),
    model=st.text(max_size=8),
    version=st.integers(1, 2**40),
    predicted_at=INSTANTS,
    as_of=INSTANTS,
    requested_by=st.text(max_size=8),
    output=st.floats(allow_nan=False, allow_infinity=False),
    answer=st.none() | st.booleans(),
    request=VALUES,
    inputs=VALUES,
    snapshots=st.dictionaries(st.text(max_size=8), st.integers(0, 2**63 - 1), max_size=3),
    latency_ms=st.floats(0, 1e6),
)


def same(one: Any, other: Any) -> bool:
    return one == other and (not isinstance(one, float) or math.copysign(1, one) == math.copysign(1, other))


@given(st.lists(PREDICTIONS, min_size=1, max_size=3))
@settings(max_examples=80, deadline=None)
def test_predictions_come_back_from_the_spool_and_from_the_lake(predictions: list[Prediction]) -> None:
    spooled = decode_payload(encode_frame(predictions)[8:])
    from_lake = [from_row(row) for row in to_table(spooled).to_pylist()]
    assert from_lake == spooled
    for found, given_ in zip(spooled, predictions, strict=True):
        assert found.inputs == {name: plain(value) for name, value in given_.inputs.items()}
        assert (found.id, found.as_of, found.answer) == (given_.id, given_.as_of, given_.answer)
        assert same(found.output, given_.output)
        assert found.snapshots == given_.snapshots


@given(st.lists(st.lists(PREDICTIONS, min_size=1, max_size=2), max_size=4), st.data())
@settings(max_examples=60, deadline=None)
def test_a_segment_cut_anywhere_is_the_whole_frames_before_the_cut(
    calls: list[list[Prediction]], data: st.DataObject
) -> None:
    frames = [encode_frame(call) for call in calls]
    whole = MAGIC + b"".join(frames)
    cut = data.draw(st.integers(0, len(whole)))
    ends = [len(MAGIC) + sum(map(len, frames[: count + 1])) for count in range(len(frames))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "1.log")
        path.write_bytes(whole[:cut])
        found = [each.id for payload in read_payloads(path) for each in decode_payload(payload)]
    assert found == [each.id for call, end in zip(calls, ends, strict=True) if end <= cut for each in call]


class Spool(RuleBasedStateMachine):
    """Two writers, crashes and drains in any order; the lake takes a token once."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.logs = [PredictionLog(self.folder, max_bytes=1_500) for _ in range(2)]
        self.acknowledged: list[str] = []
        self.lake: dict[str, list[str]] = {}

    def teardown(self) -> None:
        for log in self.logs:
            log.close()
        self.move(fail=False)
        assert self.moved() == set(self.acknowledged)
        shutil.rmtree(self.folder)

    def moved(self) -> set[str]:
        ids = [each for batch in self.lake.values() for each in batch]
        assert len(ids) == len(set(ids))
        return set(ids)

    def fresh(self, count: int) -> list[Prediction]:
        now = datetime(2013, 12, 1, tzinfo=UTC)
        start = len(self.acknowledged)
        ids = [f"p_{start + number:06d}" for number in range(count)]
        return [Prediction(each, "m", 1, now, now, "ann", 0.5, True, {"x": "y" * 50}, {}, {}, 1.0) for each in ids]

    @rule(which=st.integers(0, 1), count=st.integers(1, 4))
    def write(self, which: int, count: int) -> None:
        predictions = self.fresh(count)
        self.logs[which].write(predictions)
        self.acknowledged += [each.id for each in predictions]

    @rule(which=st.integers(0, 1))
    def rotate(self, which: int) -> None:
        self.logs[which].rotate()

    @rule(which=st.integers(0, 1), torn=st.integers(1, 200))
    def crash(self, which: int, torn: int) -> None:
        """The process dies in the middle of a write: its lock is gone, and its segment may have a torn tail."""
        before = set(self.folder.glob("*.log"))
        self.logs[which].write(self.fresh(1))
        self.acknowledged.append(f"p_{len(self.acknowledged):06d}")
        grown = set(self.folder.glob("*.log")) - before
        self.logs[which].close()
        for path in grown:
            with path.open("ab") as file:
                file.write(encode_frame(self.fresh(3))[:torn])
        self.logs[which] = PredictionLog(self.folder, max_bytes=1_500)

    @rule(fail=st.booleans())
    def move(self, fail: bool) -> None:
        def write(rows: Any, token: str) -> None:
            ids = rows.column("prediction_id").to_pylist()
            assert self.lake.setdefault(token, ids) == ids
            if fail:
                raise ConnectionError("gone after the commit")

        try:
            drain(self.folder, write)
        except ConnectionError:
            assert fail

    @invariant()
    def nothing_is_lost(self) -> None:
        waiting = [each.id for each in pending(self.folder)]
        assert len(waiting) == len(set(waiting))
        assert self.moved() | set(waiting) == set(self.acknowledged)
        if self.acknowledged:
            last = self.acknowledged[-1]
            assert last in self.moved() or find(self.folder, last) is not None


Spool.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestSpool = Spool.TestCase
