from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from millpond.core.errors import DeadlineExceeded, Overloaded, Unavailable
from millpond.serving.lanes.ports import LaneLimits
from millpond.serving.lanes.waiting import Queue, Waiting
from millpond.serving.rows import Rows


def request(
    count: int = 1,
    *,
    names: tuple[str, ...] = ("x",),
    deadline: float | None = None,
    gone: Callable[[], bool] = lambda: False,
    until: float = 1e18,
) -> Waiting:
    rows = Rows(count, names, tuple([1.0] * count for _ in names))
    return Waiting(rows, lambda _: None, deadline, gone, until)


def queue(*requests: Waiting, **limits: int) -> Queue:
    made = Queue("version 3 of model 'x'", LaneLimits(**limits))
    for each in requests:
        made.add(each)
    return made


def test_the_oldest_go_first_up_to_the_limit() -> None:
    requests = [request(count) for count in (4, 3, 3, 1)]
    waiting = queue(*requests, batch_rows=7)
    assert waiting.take() == (requests[:2], [])
    assert waiting.take() == (requests[2:], [])
    assert waiting.take() == ([], [])


def test_one_that_is_too_large_for_a_batch_goes_alone() -> None:
    requests = [request(100), request(1)]
    assert queue(*requests, batch_rows=7).take()[0] == requests[:1]
    assert queue(*requests, batch_bytes=100).take()[0] == requests[:1]


def test_quick_calls_make_room_for_more_rows() -> None:
    waiting = queue(*[request(2) for _ in range(40)], batch_rows=4, most_batch_rows=16)
    for rows, seconds, taken in (
        (1, 0.001, 2),  # too small a call to tell
        (4, 0.001, 8),  # up to the most
        (4, 0.125, 4),  # as many as take a quarter of a second
        (8, 30.0, 2),
    ):
        waiting.learn(rows, seconds)
        assert len(waiting.take()[0]) == taken, (rows, seconds)


def test_only_equal_columns_share_a_call() -> None:
    requests = [request(), request(), request(names=("x", "y")), request()]
    waiting = queue(*requests)
    assert [len(waiting.take()[0]) for _ in range(3)] == [2, 1, 1]


def test_those_to_be_tried_alone_are_first_and_alone() -> None:
    failed, behind = [request(), request()], [request(), request()]
    for each in failed:
        each.alone = True
    waiting = queue(*behind)
    waiting.put_back(failed)
    assert [waiting.take()[0] for _ in range(3)] == [failed[:1], failed[1:], behind]


def test_those_whose_time_is_over_are_not_sent() -> None:
    now = time.monotonic()
    late, gone, old, good = (
        request(deadline=now - 1),
        request(gone=lambda: True),
        request(until=now - 1),
        request(deadline=now + 60),
    )
    taken, left = queue(late, gone, good, old).take()
    assert taken == [good]
    assert [type(reason) for _, reason in left] == [DeadlineExceeded, Unavailable, Unavailable]
    waiting = queue(late, gone, good, old)
    assert [each for each, _ in waiting.expired()] == [late, gone, old]
    assert len(waiting) == 1
    assert waiting.expired() == []


@pytest.mark.parametrize("limits", [{"waiting_requests": 2}, {"waiting_rows": 3}, {"waiting_bytes": 20}])
def test_more_than_may_wait_is_refused(limits: dict[str, int]) -> None:
    waiting = queue(request(), request(), **limits)
    refusal = waiting.refused(request(2))
    assert isinstance(refusal, Overloaded)
    assert "wait already" in refusal.what
    waiting.empty()
    assert waiting.refused(request(1_000_000)) is None


def test_bytes_are_counted_in_all_forms() -> None:
    def size(rows: Rows) -> int:
        return Waiting(rows, lambda _: None, None, lambda: False, 0.0).bytes

    assert size(Rows(2, ("a", "b"), matrix=np.zeros((2, 2)))) == 32
    assert size(Rows.of({"a": np.zeros(3), "b": [1.0] * 3})) == 48
    assert size(Rows.of({"a": ["x" * 1000, None]})) == 1016
