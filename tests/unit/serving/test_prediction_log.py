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
from millpond.serving.log import segments as files
from millpond.serving.log.drain import Drained, drain, find, pending, pending_counts
from millpond.serving.log.frames import Encoder, Group
from millpond.serving.log.reading import read_segment
from millpond.serving.log.segments import MAGIC
from millpond.serving.log.spool import PredictionLog


class Lake:
    """Keeps what was written under each token, once, as the lake does."""

    def __init__(self) -> None:
        self.written: dict[str, pa.Table] = {}

    def __call__(self, table: str, rows: pa.Table, token: str) -> None:
        assert table == "predictions.late_arrival"
        if token in self.written:
            assert self.written[token].equals(rows)
        self.written.setdefault(token, rows)

    @property
    def ids(self) -> list[str]:
        return [each for rows in self.written.values() for each in rows.column("prediction_id").to_pylist()]


def waiting(spool: Path) -> list[str]:
    """Ids of predictions that are in the spool."""
    rows = pending(spool, "late_arrival")
    return [] if rows is None else rows.column("prediction_id").to_pylist()


def frames(*records: Any) -> bytes:
    """What a writer would add to a segment for them."""
    group, encoder = Group(), Encoder()
    for record in records:
        encoder.add(record, group)
    return b"".join([*group.needs.values(), *group.frames])


def segments(spool: Path) -> list[Path]:
    return sorted(spool.glob("*.log"))


def test_a_write_is_found_and_drained_once(spool: Path, make_record: Any) -> None:
    log, lake = PredictionLog(spool), Lake()
    log.write([make_record(0), make_record(1)])
    log.write([make_record(2)])
    model, found = find(spool, "p_00000001")
    assert model == "late_arrival"
    assert found.column("output").to_pylist() == [1 / 7]
    assert find(spool, "p_0000000") is None
    assert pending_counts(spool) == {"late_arrival": 3}
    assert drain(spool, lake) == Drained(0, 0, 0)  # its writer may still write
    log.close()
    assert drain(spool, lake) == Drained(1, 3, 0)
    assert lake.ids == ["p_00000000", "p_00000001", "p_00000002"]
    assert drain(spool, lake) == Drained(0, 0, 0)
    assert find(spool, "p_00000001") is None
    assert [path.name for path in spool.iterdir()] == ["drain.lock"]


def test_a_closed_log_can_be_written_again(spool: Path, make_record: Any) -> None:
    log = PredictionLog(spool)
    log.write([make_record(0)])
    log.close()
    log.write([make_record(1)])
    assert waiting(spool) == ["p_00000000", "p_00000001"]
    assert len(segments(spool)) == 2


def test_nothing_to_write_makes_nothing(spool: Path) -> None:
    PredictionLog(spool).write([])
    assert not spool.exists()
    assert drain(spool, Lake()) == Drained(0, 0, 0)
    assert find(spool, "p_1") is None


def test_only_the_owner_can_read(spool: Path, make_record: Any) -> None:
    log = PredictionLog(spool)
    log.write([make_record()])
    assert stat.S_IMODE(spool.stat().st_mode) == 0o700
    assert stat.S_IMODE(segments(spool)[0].stat().st_mode) == 0o600


def test_segments_are_finished_by_size(spool: Path, make_record: Any) -> None:
    log, lake = PredictionLog(spool, max_bytes=1_000), Lake()
    for number in range(10):
        log.write([make_record(number)])
    drained = drain(spool, lake)
    assert drained.segments >= 3
    log.close()
    drain(spool, lake)
    assert lake.ids == [f"p_{number:08d}" for number in range(10)]


def test_segments_are_finished_by_age_though_nothing_more_is_written(spool: Path, make_record: Any) -> None:
    log, lake = PredictionLog(spool, max_seconds=0.05), Lake()
    log.write([make_record()])
    deadline = time.monotonic() + 5
    while not drain(spool, lake).segments and time.monotonic() < deadline:
        time.sleep(0.01)
    assert lake.ids == ["p_00000000"]
    log.write([make_record(1)])
    assert find(spool, "p_00000001") is not None


def test_one_fsync_serves_requests_that_arrive_together(
    spool: Path, make_record: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, release, sync = 24, threading.Event(), os.fdatasync
    calls: list[int] = []

    def slow_disk(descriptor: int) -> None:
        calls.append(descriptor)
        release.wait(5)
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", slow_disk)
    log = PredictionLog(spool)
    threads = [threading.Thread(target=log.write, args=([make_record(number)],)) for number in range(count)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 5
    size = Encoder().add(make_record(0), Group())
    while log._under_way + log._waiting.size < count * size and time.monotonic() < deadline:
        time.sleep(0.005)
    release.set()
    for thread in threads:
        thread.join()
    assert len(calls) <= 3
    assert set(waiting(spool)) == {f"p_{number:08d}" for number in range(count)}


@pytest.mark.parametrize("cut", [1, 7, 8, 9, 100, 300])
def test_a_torn_tail_is_not_counted_and_kept_aside(spool: Path, make_record: Any, cut: int) -> None:
    log, lake = PredictionLog(spool), Lake()
    log.write([make_record(0)])
    log.close()
    (path,) = segments(spool)
    with path.open("ab") as file:
        file.write(frames(make_record(1))[:cut])
    assert waiting(spool) == ["p_00000000"]
    assert drain(spool, lake) == Drained(1, 1, 1)
    assert lake.ids == ["p_00000000"]
    assert drain(spool, lake) == Drained(0, 0, 0)
    (kept,) = spool.glob("*.torn")
    assert [each.removesuffix("-predictions.late_arrival") for each in lake.written] == [kept.stem]


@pytest.mark.parametrize("tail", [b"\0" * 4096, b"\xff" * 64])
def test_a_tail_of_other_bytes_ends_the_segment(spool: Path, make_record: Any, tail: bytes) -> None:
    log = PredictionLog(spool)
    log.write([make_record(0)])
    log.close()
    with segments(spool)[0].open("ab") as file:
        file.write(tail)
    assert waiting(spool) == ["p_00000000"]


def test_a_changed_byte_is_noticed(spool: Path, make_record: Any) -> None:
    log = PredictionLog(spool)
    log.write([make_record(0)])
    log.close()
    (path,) = segments(spool)
    whole = path.read_bytes()
    for position in range(len(MAGIC), len(whole), 37):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert read_segment(path).rows == 0


def test_an_empty_or_foreign_file_is_no_segment(spool: Path) -> None:
    spool.mkdir()
    (spool / "1-1-a.log").write_bytes(b"")
    (spool / "1-1-b.log").write_bytes(b"something else, kept aside")
    (spool / "1-1-c.new").write_bytes(MAGIC)
    lake = Lake()
    assert drain(spool, lake) == Drained(2, 0, 1)
    assert lake.written == {}
    assert sorted(path.name for path in spool.iterdir()) == ["1-1-b.torn", "drain.lock"]


def test_a_drain_that_fails_is_repeated_whole(spool: Path, make_record: Any) -> None:
    log = PredictionLog(spool, max_bytes=1)
    for number in range(3):
        log.write([make_record(number)])
    lake = Lake()

    def failing(table: str, rows: pa.Table, token: str) -> None:
        if len(lake.written) == 1:
            lake(table, rows, token)
            raise OSError("the lake went away after it had committed")
        lake(table, rows, token)

    with pytest.raises(OSError, match="went away"):
        drain(spool, failing)
    assert len(segments(spool)) == 2
    assert drain(spool, lake) == Drained(2, 2, 0)
    assert lake.ids == ["p_00000000", "p_00000001", "p_00000002"]


def test_drains_at_the_same_time_take_turns(spool: Path, make_record: Any) -> None:
    log = PredictionLog(spool, max_bytes=1)
    for number in range(20):
        log.write([make_record(number)])
    calls: list[str] = []

    def write(table: str, rows: pa.Table, token: str) -> None:
        calls.append(token)

    threads = [threading.Thread(target=drain, args=(spool, write)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == len(set(calls)) == 20


def test_many_threads_write_while_another_drains(spool: Path, make_record: Any) -> None:
    log, lake = PredictionLog(spool, max_bytes=4_000), Lake()
    stop = threading.Event()

    def write(start: int) -> None:
        for number in range(start, start + 25):
            log.write([make_record(number)])
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


def test_a_write_that_fails_halfway_leaves_nothing(
    spool: Path, make_record: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "AHEAD", 0)
    log, lake = PredictionLog(spool), Lake()
    log.write([make_record(0)])
    (path,) = segments(spool)
    size = path.stat().st_size
    with largest_file(size + 100), pytest.raises(Unavailable) as caught:
        log.write([make_record(1)])
    assert caught.value.__cause__.errno == errno.EFBIG  # type: ignore[union-attr]
    assert "cannot be written" in caught.value.what
    assert path.stat().st_size == size
    log.write([make_record(2)])
    log.close()
    assert drain(spool, lake).torn == 0
    assert lake.ids == ["p_00000000", "p_00000002"]


def test_a_segment_that_cannot_be_begun_leaves_nothing(spool: Path, make_record: Any) -> None:
    log = PredictionLog(spool)
    with largest_file(4), pytest.raises(Unavailable):
        log.write([make_record(0)])
    assert list(spool.iterdir()) == []
    log.write([make_record(1)])
    assert waiting(spool) == ["p_00000001"]


def test_a_spool_that_is_a_file(tmp_path: Path, make_record: Any) -> None:
    (tmp_path / "spool").write_text("")
    with pytest.raises(Unavailable, match="prediction log cannot be written"):
        PredictionLog(tmp_path / "spool").write([make_record()])
