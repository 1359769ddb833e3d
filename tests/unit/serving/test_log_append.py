"""The face of the prediction log for an event loop, and what of answers it keeps."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millpond.core.errors import MillpondError, Overloaded, Unavailable
from millpond.serving.log.drain import drain, find, pending, pending_counts
from millpond.serving.log.ids import RowIds, is_sampled, may_be_left_out
from millpond.serving.log.spool import PredictionLog
from millpond.serving.log.tables import table_name
from millpond.serving.ports import LogPolicy
from millpond.serving.rows import Rows


def run(spool: Path, body: Callable[[PredictionLog], Any], **options: Any) -> Any:
    """Run a coroutine function of a log in an event loop; the log is closed after it."""

    async def go() -> Any:
        log = PredictionLog(spool, loop=asyncio.get_running_loop(), **options)
        try:
            return await asyncio.wait_for(body(log), 20)
        finally:
            log.close()

    return asyncio.run(go())


async def logged(log: PredictionLog, *records: Any) -> list[MillpondError | None]:
    """What is said of records that are appended in one turn of the loop."""
    loop, told = asyncio.get_running_loop(), []
    over = loop.create_future()

    def done(error: MillpondError | None) -> None:
        assert asyncio.get_running_loop() is loop
        told.append(error)
        if len(told) == len(records):
            over.set_result(told)

    for record in records:
        log.append(record, done)
    result: list[MillpondError | None] = await over
    return result


def ids(spool: Path) -> list[str]:
    rows = pending(spool, "late_arrival")
    return [] if rows is None else rows.column("prediction_id").to_pylist()


@pytest.mark.parametrize("sync", ["commit", "written"])
def test_records_of_one_turn_share_a_commit(
    spool: Path, make_record: Any, sync: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs: list[int] = []
    monkeypatch.setattr(os, "fdatasync", syncs.append)
    told = run(spool, lambda log: logged(log, *(make_record(number) for number in range(50))), sync=sync)
    assert told == [None] * 50
    assert len(syncs) == 1
    assert ids(spool) == [f"p_{number:08d}" for number in range(50)]


def test_what_was_written_is_synced_behind(spool: Path, make_record: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = threading.Event()
    monkeypatch.setattr(os, "fdatasync", lambda _descriptor: synced.set())

    async def body(log: PredictionLog) -> bool:
        await logged(log, make_record(0))
        return await asyncio.to_thread(synced.wait, 5)

    assert run(spool, body, sync="written")


def test_the_next_records_gather_while_a_commit_is_under_way(
    spool: Path, make_record: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, calls, sync = threading.Event(), [], os.fdatasync

    def slow_disk(descriptor: int) -> None:
        calls.append(descriptor)
        release.wait(5)
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", slow_disk)

    async def body(log: PredictionLog) -> None:
        first = asyncio.ensure_future(logged(log, make_record(0)))
        while not calls:
            await asyncio.sleep(0.001)
        others = [asyncio.ensure_future(logged(log, make_record(number))) for number in range(1, 40)]
        await asyncio.sleep(0.01)
        assert not first.done()
        release.set()
        assert [await each for each in (first, *others)] == [[None]] * 40

    run(spool, body)
    assert len(calls) == 2


def test_more_than_may_wait_is_refused(spool: Path, make_record: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(os, "fdatasync", lambda _descriptor: release.wait(5))

    async def body(log: PredictionLog) -> list[MillpondError | None]:
        told: list[MillpondError | None] = []
        for number in range(200):
            log.append(make_record(number), told.append)
            await asyncio.sleep(0)
        assert told
        assert all(isinstance(each, Overloaded) for each in told)
        release.set()
        while len(told) < 200:
            await asyncio.sleep(0.005)
        assert await logged(log, make_record(200)) == [None]
        return told

    told = run(spool, body, max_waiting=10_000)
    assert ids(spool) == [*(f"p_{number:08d}" for number in range(told.count(None))), "p_00000200"]


def test_a_disk_that_fails_refuses_the_whole_group_and_the_next_is_tried_again(
    spool: Path, make_record: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    async def body(log: PredictionLog) -> None:
        assert await logged(log, make_record(0)) == [None]
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", broken)
            for each in await logged(log, make_record(1), make_record(2)):
                assert isinstance(each, Unavailable)
                assert "the prediction log cannot be written: Input/output error" in each.what
                assert "free space" in each.hint
        assert await logged(log, make_record(3)) == [None]

    run(spool, body)
    assert ids(spool) == ["p_00000000", "p_00000003"]
    assert drain(spool, lambda *_: None).torn == 0


def test_a_value_of_another_type_harms_no_other_record(spool: Path, make_record: Any) -> None:
    odd = make_record(1, inputs=Rows.of({"distance": [1.0], "seats": ["many"]}))

    async def body(log: PredictionLog) -> list[MillpondError | None]:
        return await logged(log, make_record(0), odd, make_record(2))

    told = run(spool, body)
    assert sorted(each is None for each in told) == [False, True, True]
    assert "does not fit its log" in next(each for each in told if each is not None).what
    assert ids(spool) == ["p_00000000", "p_00000002"]


def test_a_callback_that_fails_harms_no_other(spool: Path, make_record: Any) -> None:
    async def body(log: PredictionLog) -> None:
        def failing(_error: object) -> None:
            raise ValueError("gone")

        log.append(make_record(0), failing)
        assert await logged(log, make_record(1)) == [None]

    run(spool, body)
    assert len(ids(spool)) == 2


def test_a_segment_that_grows_old_is_finished(spool: Path, make_record: Any) -> None:
    async def body(log: PredictionLog) -> int:
        await logged(log, make_record(0))
        moved = 0
        while not moved:
            await asyncio.sleep(0.01)
            moved = drain(spool, lambda *_: None).predictions
        return moved

    assert run(spool, body, max_seconds=0.05) == 1


def test_every_model_has_a_table_of_its_own(spool: Path, make_record: Any, make_served: Any) -> None:
    other = dataclasses.replace(make_served(), model="Other Model")
    log = PredictionLog(spool)
    log.write([make_record(0), make_record(1, served=other), make_record(2, 3)])
    log.close()
    assert pending_counts(spool) == {"late_arrival": 4, "Other Model": 1}
    written: dict[str, list[str]] = {}

    def write(table: str, rows: Any, token: str) -> None:
        assert token.endswith(f"-{table}")
        written[table] = rows.column("prediction_id").to_pylist()

    assert drain(spool, write).predictions == 5
    assert written == {
        "predictions.late_arrival": ["p_00000000", "p_00000002-0", "p_00000002-1", "p_00000002-2"],
        table_name("Other Model"): ["p_00000001"],
    }


def test_the_ids_of_many_rows_are_found(spool: Path, make_record: Any) -> None:
    log = PredictionLog(spool)
    log.write([make_record(number, 2) for number in range(20)])
    for identifier in ("p_00000007-1", "p_00000019-0"):
        model, rows = find(spool, identifier)
        assert model == "late_arrival"
        assert rows.column("prediction_id").to_pylist() == [identifier]
    assert find(spool, "p_00000007-2") is None
    assert find(spool, "p_00000007") is None
    assert list(RowIds("p_1", 1)) == ["p_1"]
    assert RowIds("p_1", 3)[1:] == ["p_1-1", "p_1-2"]


def test_a_share_of_requests_is_logged_and_the_others_answered(spool: Path, make_record: Any, make_served: Any) -> None:
    served = dataclasses.replace(make_served(), logging=LogPolicy(sample=0.25))
    records = [make_record(number, 1 + number % 2, served=served) for number in range(400)]

    async def body(log: PredictionLog) -> None:
        assert await logged(log, *records) == [None] * 400

    run(spool, body)
    there = set(ids(spool))
    for record in records:
        kept = is_sampled(record.answer.ids.base, 0.25)
        assert all((each in there) is kept for each in record.answer.ids)
        assert all(may_be_left_out(each, 0.25) or kept for each in record.answer.ids)
    assert 60 < sum(is_sampled(each.answer.ids.base, 0.25) for each in records) < 140
    blocking = PredictionLog(spool / "blocking")
    blocking.write(records)
    blocking.close()
    assert set(ids(spool / "blocking")) == there


@pytest.mark.parametrize("matrix", [False, True])
def test_redacted_values_never_touch_the_disk(spool: Path, make_record: Any, make_served: Any, matrix: bool) -> None:
    secret = 181.8125
    served = dataclasses.replace(make_served(), logging=LogPolicy(redact=("origin", "distance")))
    given = {"distance": [secret], "seats": [None if matrix else 7]}
    inputs = Rows(1, ("distance", "seats"), matrix=np.array([[secret, 7.0]])) if matrix else Rows.of(given)
    request = Rows.of({"origin": ["a-secret"], "scheduled_at": [5], "distance": [secret]})
    log = PredictionLog(spool)
    log.write([make_record(0, served=served, request=request, inputs=inputs)])
    log.write([make_record(1, served=served, request=inputs, inputs=inputs, raw=True)])
    log.close()
    [path] = spool.glob("*.log")
    content = path.read_bytes()
    assert b"a-secret" not in content
    assert np.float64(secret).tobytes() not in content
    rows = pending(spool, "late_arrival")
    assert rows.column("input__seats").to_pylist() == [7, 7]
    assert rows.column("request__scheduled_at").cast("int64").to_pylist() == [5, None]
    assert not {"request__origin", "request__distance", "input__distance"} & {*rows.column_names}
    assert np.float64(7).tobytes() in content or not matrix


def test_rows_that_are_the_inputs_too_are_held_once(spool: Path, make_record: Any) -> None:
    values = Rows.of({"distance": [1.5], "seats": [3]})
    log = PredictionLog(spool)
    log.write([make_record(0, request=values, inputs=values)])
    log.close()
    [row] = pending(spool, "late_arrival").to_pylist()
    assert (row["raw"], row["request__distance"], row["input__distance"]) == (False, 1.5, 1.5)
    assert (row["request__seats"], row["input__seats"]) == (3, 3)
    [path] = spool.glob("*.log")
    assert path.read_bytes().count(np.float64(1.5).tobytes()) == 1


def test_versions_whose_columns_changed_their_type_share_a_table(
    spool: Path, make_record: Any, make_served: Any
) -> None:
    first = make_served()
    second = dataclasses.replace(first, version=4, inputs={"distance": "string", "seats": "int64", "Seats": "bool"})
    log = PredictionLog(spool)
    changed = Rows.of({"distance": ["far"], "seats": [2], "Seats": [True]})
    log.write([make_record(0, served=first), make_record(1, served=second, inputs=changed)])
    log.close()
    old, new = pending(spool, "late_arrival").to_pylist()
    assert (old["input__distance"], old["input__distance@string"]) == (187.5, None)
    assert (new["input__distance"], new["input__distance@string"]) == (None, "far")
    assert (new["input__seats"], new["input__Seats@bool"]) == (2, True)
