from __future__ import annotations

import errno
import os
import resource
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from millpond.core.errors import Unavailable
from millpond.serving.prediction_log import Drained, PredictionLog, drain, find, pending
from millpond.serving.prediction_table import from_row, predictions_schema, to_table
from millpond.serving.segments import MAGIC, encode_frame, read_payloads


class Lake:
    """Keeps what was written under each token, once, as the lake does."""

    def __init__(self) -> None:
        self.written: dict[str, pa.Table] = {}

    def __call__(self, rows: pa.Table, token: str) -> None:
        if token in self.written:
            assert self.written[token].equals(rows)
        self.written.setdefault(token, rows)

    @property
    def ids(self) -> list[str]:
        return [each for rows in self.written.values() for each in rows.column("prediction_id").to_pylist()]


def segments(spool: Path) -> list[Path]:
    return sorted(spool.glob("*.log"))


def test_a_write_is_found_and_drained_once(spool: Path, make_prediction: Any) -> None:
    log, lake = PredictionLog(spool), Lake()
    log.write([make_prediction(0), make_prediction(1)])
    log.write([make_prediction(2)])
    assert find(spool, "p_00000001").output == 1 / 7
    assert find(spool, "p_0000000") is None
    assert drain(spool, lake) == Drained(0, 0, 0)  # its writer may still write
    log.close()
    assert drain(spool, lake) == Drained(1, 3, 0)
    assert lake.ids == ["p_00000000", "p_00000001", "p_00000002"]
    assert drain(spool, lake) == Drained(0, 0, 0)
    assert find(spool, "p_00000001") is None
    assert [path.name for path in spool.iterdir()] == ["drain.lock"]


def test_a_closed_log_can_be_written_again(spool: Path, make_prediction: Any) -> None:
    log = PredictionLog(spool)
    log.write([make_prediction(0)])
    log.close()
    log.write([make_prediction(1)])
    assert [each.id for each in pending(spool)] == ["p_00000000", "p_00000001"]
    assert len(segments(spool)) == 2


def test_nothing_to_write_makes_nothing(spool: Path) -> None:
    PredictionLog(spool).write([])
    assert not spool.exists()
    assert drain(spool, Lake()) == Drained(0, 0, 0)
    assert find(spool, "p_1") is None


def test_only_the_owner_can_read(spool: Path, make_prediction: Any) -> None:
    log = PredictionLog(spool)
    log.write([make_prediction()])
    assert stat.S_IMODE(spool.stat().st_mode) == 0o700
    assert stat.S_IMODE(segments(spool)[0].stat().st_mode) == 0o600


def test_segments_are_finished_by_size(spool: Path, make_prediction: Any) -> None:
    log, lake = PredictionLog(spool, max_bytes=1_000), Lake()
    for number in range(10):
        log.write([make_prediction(number)])
    drained = drain(spool, lake)
    assert drained.segments >= 3
    log.close()
    drain(spool, lake)
    assert lake.ids == [f"p_{number:08d}" for number in range(10)]


def test_segments_are_finished_by_age_though_nothing_more_is_written(spool: Path, make_prediction: Any) -> None:
    log, lake = PredictionLog(spool, max_seconds=0.05), Lake()
    log.write([make_prediction()])
    deadline = time.monotonic() + 5
    while not drain(spool, lake).segments and time.monotonic() < deadline:
        time.sleep(0.01)
    assert lake.ids == ["p_00000000"]
    log.write([make_prediction(1)])
    assert find(spool, "p_00000001") is not None


def test_one_fsync_serves_requests_that_arrive_together(
    spool: Path, make_prediction: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, release, sync = 24, threading.Event(), os.fdatasync
    calls: list[int] = []

    def slow_disk(descriptor: int) -> None:
        calls.append(descriptor)
        release.wait(5)
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", slow_disk)
    log = PredictionLog(spool)
    threads = [threading.Thread(target=log.write, args=([make_prediction(number)],)) for number in range(count)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 5
    while len(log._batch.frames) < count - 1 and time.monotonic() < deadline:
        time.sleep(0.005)
    release.set()
    for thread in threads:
        thread.join()
    assert len(calls) <= 3
    assert {each.id for each in pending(spool)} == {f"p_{number:08d}" for number in range(count)}


@pytest.mark.parametrize("cut", [1, 7, 8, 9, 100, 300])
def test_a_torn_tail_is_not_counted_and_kept_aside(spool: Path, make_prediction: Any, cut: int) -> None:
    log, lake = PredictionLog(spool), Lake()
    log.write([make_prediction(0)])
    log.close()
    (path,) = segments(spool)
    with path.open("ab") as file:
        file.write(encode_frame([make_prediction(1)])[:cut])
    assert [each.id for each in pending(spool)] == ["p_00000000"]
    assert drain(spool, lake) == Drained(1, 1, 1)
    assert lake.ids == ["p_00000000"]
    assert drain(spool, lake) == Drained(0, 0, 0)
    (kept,) = spool.glob("*.torn")
    assert kept.stem in lake.written


@pytest.mark.parametrize("tail", [b"\0" * 4096, b"\xff" * 64])
def test_a_tail_of_other_bytes_ends_the_segment(spool: Path, make_prediction: Any, tail: bytes) -> None:
    log = PredictionLog(spool)
    log.write([make_prediction(0)])
    log.close()
    with segments(spool)[0].open("ab") as file:
        file.write(tail)
    assert [each.id for each in pending(spool)] == ["p_00000000"]


def test_a_changed_byte_is_noticed(spool: Path, make_prediction: Any) -> None:
    log = PredictionLog(spool)
    log.write([make_prediction(0)])
    log.close()
    (path,) = segments(spool)
    whole = path.read_bytes()
    for position in range(len(MAGIC), len(whole), 37):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert list(read_payloads(path)) == []


def test_an_empty_or_foreign_file_is_no_segment(spool: Path) -> None:
    spool.mkdir()
    (spool / "1-1-a.log").write_bytes(b"")
    (spool / "1-1-b.log").write_bytes(b"something else, kept aside")
    (spool / "1-1-c.new").write_bytes(MAGIC)
    lake = Lake()
    assert drain(spool, lake) == Drained(2, 0, 1)
    assert lake.written == {}
    assert sorted(path.name for path in spool.iterdir()) == ["1-1-b.torn", "drain.lock"]


def test_a_drain_that_fails_is_repeated_whole(spool: Path, make_prediction: Any) -> None:
    log = PredictionLog(spool, max_bytes=1)
    for number in range(3):
        log.write([make_prediction(number)])
    lake = Lake()

    def failing(rows: pa.Table, token: str) -> None:
        if len(lake.written) == 1:
            lake(rows, token)
            raise OSError("the lake went away after it had committed")
        lake(rows, token)

    with pytest.raises(OSError, match="went away"):
        drain(spool, failing)
    assert len(segments(spool)) == 2
    assert drain(spool, lake) == Drained(2, 2, 0)
    assert lake.ids == ["p_00000000", "p_00000001", "p_00000002"]


def test_drains_at_the_same_time_take_turns(spool: Path, make_prediction: Any) -> None:
    log = PredictionLog(spool, max_bytes=1)
    for number in range(20):
        log.write([make_prediction(number)])
    calls: list[str] = []

    def write(rows: pa.Table, token: str) -> None:
        calls.append(token)

    threads = [threading.Thread(target=drain, args=(spool, write)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == len(set(calls)) == 20


def test_many_threads_write_while_another_drains(spool: Path, make_prediction: Any) -> None:
    log, lake = PredictionLog(spool, max_bytes=4_000), Lake()
    stop = threading.Event()

    def write(start: int) -> None:
        for number in range(start, start + 25):
            log.write([make_prediction(number)])
            assert find(spool, f"p_{number:08d}") or f"p_{number:08d}" in lake.ids

    def move() -> None:
        while not stop.is_set():
            drain(spool, lake)

    mover = threading.Thread(target=move)
    writers = [threading.Thread(target=write, args=(1_000 * each,)) for each in range(4)]
    for thread in (mover, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    mover.join()
    log.close()
    drain(spool, lake)
    assert sorted(lake.ids) == sorted(f"p_{1_000 * each + i:08d}" for each in range(4) for i in range(25))


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes: a write then fails, perhaps after a part of it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_write_that_fails_halfway_leaves_nothing(spool: Path, make_prediction: Any) -> None:
    log, lake = PredictionLog(spool), Lake()
    log.write([make_prediction(0)])
    (path,) = segments(spool)
    size = path.stat().st_size
    with largest_file(size + 100), pytest.raises(Unavailable) as caught:
        log.write([make_prediction(1)])
    assert caught.value.__cause__.errno == errno.EFBIG  # type: ignore[union-attr]
    assert "cannot be written" in caught.value.what
    assert path.stat().st_size == size
    log.write([make_prediction(2)])
    log.close()
    assert drain(spool, lake).torn == 0
    assert lake.ids == ["p_00000000", "p_00000002"]


def test_a_segment_that_cannot_be_begun_leaves_nothing(spool: Path, make_prediction: Any) -> None:
    log = PredictionLog(spool)
    with largest_file(4), pytest.raises(Unavailable):
        log.write([make_prediction(0)])
    assert list(spool.iterdir()) == []
    log.write([make_prediction(1)])
    assert [each.id for each in pending(spool)] == ["p_00000001"]


def test_a_spool_that_is_a_file(tmp_path: Path, make_prediction: Any) -> None:
    (tmp_path / "spool").write_text("")
    with pytest.raises(Unavailable, match="prediction log cannot be written"):
        PredictionLog(tmp_path / "spool").write([make_prediction()])


def test_rows_of_the_lake_table_come_back_as_predictions(spool: Path, make_prediction: Any) -> None:
    odd = {"ratio": float("nan"), "limit": float("inf"), "name": 'é"\n', "count": 2**60, "flag": True, "none": None}
    log = PredictionLog(spool)
    log.write([make_prediction(3, inputs=odd, answer=None)])
    (spooled,) = pending(spool)
    rows = to_table([spooled])
    assert rows.schema.equals(predictions_schema())
    rows.validate(full=True)
    (row,) = rows.to_pylist()
    back = from_row(row)
    assert back == spooled
    assert back.output == 3 / 7
    assert back.inputs == {**odd, "ratio": None, "limit": "inf"}
    assert back.request["scheduled_at"] == "2013-12-01T08:00:00Z"
    assert back.snapshots == {"flights": 8_123_456_789_012_345_678}
