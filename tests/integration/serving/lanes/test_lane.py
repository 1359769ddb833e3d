"""Real processes that raise, hang, leak, crash, print and fork; what they answer, and what is left of them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from millpond.core.child_processes import BackOff
from millpond.core.errors import DeadlineExceeded, MillpondError, Overloaded, RequestError, Unavailable
from millpond.serving.lanes.ports import Reply
from millpond.serving.rows import Rows

RAISE, EXIT, HANG, SEGFAULT, LEAK, PRINT, FORK, LEAVE, DENY, SHORT, GREEDY, SLOW = range(-1, -13, -1)
pytestmark = pytest.mark.slow
SOON = BackOff(first=0.1, longest=0.2)

WithLane = Callable[..., Any]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_lonely_request_goes_at_once_and_a_crowd_goes_together(with_lane: WithLane) -> None:
    async def test(asking: Any) -> None:
        assert asking.lane.state.state == "stopped"
        assert await asking.outputs(1) == [2]
        assert asking.lane.state == ("ready", "", "")
        for value in range(20):
            assert await asking.outputs(value) == [2 * value]
        counts = asking.lane.counts
        assert (counts.calls, counts.requests) == (21, 21)
        assert await asking.outputs(*range(640)) == [2 * each for each in range(640)]
        assert counts.requests == 661
        assert counts.calls == 22  # 640 requests at once: one call

    with_lane(test)


def test_while_the_process_is_busy_requests_gather_in_order(with_lane: WithLane) -> None:
    async def test(asking: Any) -> None:
        await asking.outputs(1)
        order: list[int] = []
        slow = asking.ask(SLOW)
        await asyncio.sleep(0.1)
        later = []
        for value in range(10):  # each in a turn of its own
            later.append(asking.ask(value))
            later[-1].add_done_callback(lambda _, value=value: order.append(value))
            await asyncio.sleep(0.001)
        assert asking.lane.waiting == 10
        await asyncio.gather(slow, *later)
        await asyncio.sleep(0)
        assert order == list(range(10))
        assert asking.lane.counts.calls == 1 + 1 + 3  # at most four rows a call
        assert later[9].result().meta["rows"] == 2

    with_lane(test, batch_rows=4, most_batch_rows=4)


def test_requests_of_many_rows_get_their_own_rows(with_lane: WithLane) -> None:
    async def test(asking: Any) -> None:
        requests = [asking.ask(*range(start, start + 1 + start % 5)) for start in range(50)]
        for start, reply in enumerate(await asyncio.gather(*requests)):
            assert reply.rows.columns["output"].tolist() == [2.0 * (start + each) for each in range(1 + start % 5)]
        reply = await asking.ask(*range(300_000))  # more than a socket takes at once
        assert float(reply.rows.columns["output"].sum()) == 300_000 * 299_999

    with_lane(test)


def test_only_the_guilty_get_the_error(with_lane: WithLane, tmp_path: Path) -> None:
    async def test(asking: Any) -> None:
        one, bad, two, denied, short = await asking.outputs(1, RAISE, 2, DENY, SHORT)
        assert (one, two) == (2, 4)
        assert type(bad) is MillpondError
        assert bad.what == "version 3 of model 'x' failed: ValueError: a value below zero"
        assert "child.py:" in bad.where
        assert type(denied) is RequestError
        assert (denied.what, denied.where, denied.hint) == ("the value is denied", "column x", "give another")
        assert "it gave 0 rows for 1" in str(short)
        assert asking.lane.counts.starts == 1

    with_lane(test)
    assert "ValueError: a value below zero" in (tmp_path / "lane.log").read_text()


@pytest.mark.parametrize(("how", "told"), [(EXIT, "exit code 3"), (SEGFAULT, "SIGSEGV"), (LEAVE, "SIGKILL")])
def test_a_process_that_ends_takes_only_its_own_request_along(with_lane: WithLane, how: int, told: str) -> None:
    async def test(asking: Any) -> None:
        one, bad, two = await asking.outputs(1, how, 2)
        assert (one, two) == (2, 4)
        assert bad.what == f"version 3 of model 'x' ended its process ({told}) while answering"
        assert await asking.outputs(3) == [6]
        assert asking.lane.state.state == "ready"
        assert asking.lane.counts.starts == 3

    with_lane(test, back_off=SOON)
    if how == LEAVE:
        found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
        assert "sleep 98765" not in found.stdout


def test_an_idle_process_that_is_killed_comes_back_by_itself(with_lane: WithLane) -> None:
    async def test(asking: Any) -> None:
        await asking.outputs(1)
        first = asking.lane.pid
        os.kill(first, signal.SIGKILL)
        until = time.monotonic() + 20
        while asking.lane.pid in (first, None) or asking.lane.state.state != "ready":
            assert time.monotonic() < until
            await asyncio.sleep(0.01)
        assert asking.lane.counts.calls == 1

    with_lane(test)


def test_a_call_that_hangs_is_ended(with_lane: WithLane) -> None:
    async def test(asking: Any) -> None:
        await asking.outputs(1)
        hanging = asking.ask(HANG)
        await asyncio.sleep(0.05)
        waiting = asking.ask(4)
        error = await hanging
        assert type(error) is DeadlineExceeded
        assert error.what == "version 3 of model 'x' took longer than 0.3 s for one call, and was ended"
        assert asking.lane.state.state == "failing"
        assert (await waiting).rows.columns["output"].tolist() == [8]

    with_lane(test, call_seconds=0.3, back_off=SOON)


def test_deadlines_and_callers_that_have_gone(with_lane: WithLane) -> None:
    async def test(asking: Any) -> None:
        await asking.outputs(1)
        slow = asking.ask(SLOW)
        await asyncio.sleep(0.02)
        late = asking.ask(2, deadline=time.monotonic() + 0.1)
        gone = asking.ask(3, gone=lambda: True)
        assert type(await late) is DeadlineExceeded
        assert type(await gone) is Unavailable
        assert not slow.done()
        assert isinstance(await slow, Reply)
        in_call = asking.ask(SLOW, deadline=time.monotonic() + 0.1)
        assert type(await in_call) is DeadlineExceeded
        assert await asking.outputs(5) == [10]
        assert asking.lane.counts.requests == 4  # what was late or gone was never sent

    with_lane(test)


def test_too_many_are_refused_at_once(with_lane: WithLane) -> None:
    async def test(asking: Any) -> None:
        answers = [asking.ask(each) for each in range(12)]  # the process is still starting
        refused = [each.result() for each in answers if each.done()]
        assert len(refused) == 2
        assert all(type(each) is Overloaded for each in refused)
        many = asking.ask(*range(200))
        assert type(many.result()) is Overloaded
        assert len([each for each in await asyncio.gather(*answers) if isinstance(each, Reply)]) == 10

    with_lane(test, waiting_requests=10, waiting_rows=100)


def test_output_goes_to_a_capped_log_and_never_into_the_answers(with_lane: WithLane, tmp_path: Path) -> None:
    async def test(asking: Any) -> None:
        for _ in range(3):
            (printed,) = await asyncio.gather(asking.ask(PRINT))
            assert printed.rows.count == 1
        assert await asking.outputs(1) == [2]

    with_lane(test)
    text = (tmp_path / "lane.log").read_bytes()
    assert b"garbage garbage" in text
    assert len(text) > 2_000_000


def test_a_fork_of_the_process_does_not_answer(with_lane: WithLane) -> None:
    async def test(asking: Any) -> None:
        reply = await asking.ask(FORK)
        assert reply.meta["pid"] == asking.lane.pid
        assert await asking.outputs(1, 2) == [2, 4]
        assert asking.lane.counts.starts == 1

    with_lane(test)


def test_a_process_that_leaks_is_replaced_between_calls(with_lane: WithLane) -> None:
    async def test(asking: Any) -> None:
        await asking.outputs(1)
        first = asking.lane.pid
        until = time.monotonic() + 30
        while asking.lane.pid == first:
            assert time.monotonic() < until
            if asking.lane.counts.requests < 5:
                assert not any(isinstance(each, Exception) for each in await asking.outputs(LEAK, 1))
            await asyncio.sleep(0.01)
        assert await asking.outputs(2) == [4]
        assert asking.lane.state.state == "ready"
        while alive(first):
            assert time.monotonic() < until
            await asyncio.sleep(0.05)

    with_lane(test, memory_bytes=180 << 20, memory_kill_bytes=1 << 30)


def test_a_call_that_takes_too_much_memory_is_ended(with_lane: WithLane) -> None:
    async def test(asking: Any) -> None:
        (error,) = await asking.outputs(GREEDY)
        assert "and may take 300 MB while answering" in error.what
        assert await asking.outputs(1) == [2]

    with_lane(test, memory_bytes=200 << 20, memory_kill_bytes=300 << 20, back_off=SOON)


@pytest.mark.parametrize(
    ("how", "limits", "reason"),
    [
        ("fail", {}, "ValueError: the artifact is corrupt"),
        ("exit", {}, "ended its process (exit code 7)"),
        ("hang", {"start_seconds": 0.4, "failed_starts": 1}, "it was not ready after 0.4 s"),
        ("big", {"memory_bytes": 100 << 20, "failed_starts": 1}, "when loaded, and may take 100 MB"),
    ],
)
def test_a_process_that_does_not_start(with_lane: WithLane, how: str, limits: Any, reason: str) -> None:
    async def test(asking: Any) -> None:
        error = await asking.ask(1)
        assert type(error) is Unavailable
        assert error.what.startswith("version 3 of model 'x' does not start: ")
        assert reason in error.what
        state = asking.lane.state
        assert state.state == "failing"
        assert reason in state.reason
        assert ("no such library" in state.log_tail) == (how == "exit")
        assert asking.ask(2).done()  # refused at once

    with_lane(test, how, **{"back_off": SOON, "failed_starts": 2, **limits})


def test_a_program_that_is_not_there(with_lane: WithLane) -> None:
    async def test(asking: Any) -> None:
        error = await asking.ask(1)
        assert type(error) is Unavailable
        assert "cannot be started" in asking.lane.state.log_tail

    with_lane(test, command=("/no/such/python", "x"), back_off=SOON, failed_starts=1)


def test_a_lane_recovers_when_what_was_missing_is_there(with_lane: WithLane, tmp_path: Path) -> None:
    child = tmp_path / "late.py"

    async def test(asking: Any) -> None:
        assert type(await asking.ask(1)) is Unavailable
        child.write_bytes(Path(__file__).with_name("child.py").read_bytes())
        until = time.monotonic() + 20
        while asking.lane.state.state != "ready":
            assert time.monotonic() < until
            await asyncio.sleep(0.05)
        assert await asking.outputs(1) == [2]

    with_lane(test, command=(sys.executable, str(child)), back_off=SOON, failed_starts=1)


def test_other_lanes_go_on_answering(with_lane: WithLane) -> None:
    async def test(asking: Any) -> None:
        async def other(good: Any) -> None:
            await asyncio.gather(asking.outputs(1), good.outputs(1))
            bad = asyncio.gather(asking.outputs(EXIT), asking.outputs(RAISE))
            for value in range(50):
                assert await good.outputs(value) == [2 * value]
            await bad
            assert good.lane.counts.starts == 1

        lane = type(asking.lane)(asking.lane._command, name="version 1 of model 'y'")
        try:
            await other(type(asking)(lane))
        finally:
            await lane.close()

    with_lane(test, back_off=SOON)


def test_what_is_in_flight_is_answered_before_the_end(with_lane: WithLane) -> None:
    async def test(asking: Any) -> None:
        await asking.outputs(1)
        pid = asking.lane.pid
        answers = [asking.ask(SLOW), asking.ask(1)]
        await asyncio.sleep(0.05)
        answers.append(asking.ask(2))
        await asking.lane.close(5)
        assert all(isinstance(each.result(), Reply) for each in answers)
        assert not alive(pid)
        assert type(asking.ask(1).result()) is Unavailable
        assert asking.lane.state.state == "stopped"

    with_lane(test)


def test_what_takes_longer_than_the_grace_is_unavailable(with_lane: WithLane) -> None:
    async def test(asking: Any) -> None:
        await asking.outputs(1)
        pid = asking.lane.pid
        hanging = asking.ask(HANG)
        await asking.lane.close(0.1)
        assert type(hanging.result()) is Unavailable
        assert not alive(pid)

    with_lane(test)


PARENT = """
import asyncio, sys
from millpond.serving.lanes.lane import Lane
from millpond.serving.rows import Rows

async def main():
    lane = Lane([sys.executable, sys.argv[1]], name="version 3 of model 'x'")
    answered = asyncio.get_running_loop().create_future()
    lane.submit(Rows.of({"x": [1.0]}), answered.set_result)
    await answered
    lane.submit(Rows.of({"x": [float(sys.argv[2])]}), print)
    await asyncio.sleep(0.1)
    print(lane.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("busy", [1, HANG])
def test_a_killed_parent_leaves_no_process(busy: int) -> None:
    command = [sys.executable, "-c", PARENT, str(Path(__file__).with_name("child.py")), str(busy)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    lines = iter(parent.stdout.readline, "")
    pid = int(next(line for line in lines if line.strip().isdigit()))
    assert alive(pid)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 10
    while alive(pid):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_rows_of_every_kind_travel(with_lane: WithLane) -> None:
    async def test(asking: Any) -> None:
        first = asking.submit(Rows.of({"x": [1.0, 2.0], "text": ["a", None], "flag": [True, None]}))
        other = asking.submit(Rows.of({"x": [3.0]}))  # other columns: a call of its own
        one, two = await asyncio.gather(first, other)
        assert one.rows.columns["output"].tolist() == [2.0, 4.0]
        assert two.rows.columns["output"].tolist() == [6.0]
        assert asking.lane.counts.calls == 2

    with_lane(test)
