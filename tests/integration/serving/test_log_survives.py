"""The prediction log under kill -9 and on a full disk, with real processes and a real file system."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from millpond.core.errors import Unavailable
from millpond.serving.log.drain import drain, find, pending
from millpond.serving.log.spool import PredictionLog

pytestmark = pytest.mark.slow

RECORDS = textwrap.dedent(
    """
    from millpond.serving.ports import Answer, LogRecord, RequestColumn, ServedModel
    from millpond.serving.rows import Rows

    COLUMNS = (RequestColumn("text", "string", True, "input"),)
    SERVED = {name: ServedModel(name, 1, "classification", 0.5, COLUMNS, None, {"text": "string"}) for name in "mn"}

    def record(ids, text, model="m"):
        rows = Rows.of({"text": [text] * len(ids)})
        answer = Answer(SERVED[model], "live", ids, {"output": [0.5] * len(ids)}, [True] * len(ids), [1] * len(ids))
        return LogRecord(answer, rows, False, rows, 1, "ann", 1)
    """
)
_SPACE: dict[str, Any] = {}
exec(RECORDS, _SPACE)
record = _SPACE["record"]

WRITER = RECORDS + textwrap.dedent(
    """
    import sys, threading, time
    from pathlib import Path
    from millpond.core.ids import new_id
    from millpond.serving.log.spool import PredictionLog

    log = PredictionLog(Path(sys.argv[1]), max_bytes=20_000)

    def write():
        while True:
            ids = [new_id("p") for _ in range(3)]
            log.write([record(ids, "x" * 200)])
            sys.stdout.write(" ".join(ids) + "\\n")  # acknowledged
            sys.stdout.flush()
            time.sleep(0.002)

    for _ in range(4):
        threading.Thread(target=write).start()
    """
)

GATEWAY = RECORDS + textwrap.dedent(
    """
    import asyncio, os, sys
    from pathlib import Path
    from millpond.core.ids import new_id
    from millpond.serving.log.spool import PredictionLog

    async def main():
        loop = asyncio.get_running_loop()
        log = PredictionLog(Path(sys.argv[1]), loop=loop, sync=sys.argv[2], max_bytes=20_000)

        def ask(model):
            ids = [new_id("p") for _ in range(3)]

            def done(error):
                assert error is None
                os.write(1, (" ".join(ids) + "\\n").encode())  # acknowledged
                loop.call_later(0.002, ask, model)

            log.append(record(ids, "x" * 200, model), done)

        for number in range(8):
            ask("mn"[number % 2])
        await asyncio.Event().wait()

    asyncio.run(main())
    """
)

DRAINER = textwrap.dedent(
    """
    import os, sys
    from pathlib import Path
    from millpond.serving.log.drain import drain

    lake = Path(sys.argv[2])

    def write(table, rows, token):
        print("writing", flush=True)
        target = lake / token
        if not target.exists():
            text = "\\n".join(rows.column("prediction_id").to_pylist())
            (lake / (token + ".part")).write_text(text)
            (lake / (token + ".part")).rename(target)
        print("written", flush=True)

    while True:
        drain(Path(sys.argv[1]), write)
    """
)


def start(program: str, *arguments: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)], stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )


def kill_after(process: subprocess.Popen[str], lines: int, delay: float) -> list[str]:
    """Kill -9 a short while after so many lines were read; all whole lines that it had said."""
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(lines)]
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    said += process.stdout.readlines()
    process.wait()
    return [line for line in said if line.endswith("\n")]


def test_kill_9_of_a_writer_loses_nothing_acknowledged(tmp_path: Path) -> None:
    spool, written = tmp_path / "spool", {}
    acknowledged: list[str] = []
    chance = random.Random(7)
    for _ in range(4):
        lines = kill_after(start(WRITER, spool), chance.randint(20, 120), chance.random() / 100)
        acknowledged += [each for line in lines for each in line.split()]
    assert len(acknowledged) > 200
    waiting = pending(spool, "m").column("prediction_id").to_pylist()
    assert set(acknowledged) <= set(waiting)
    assert len(waiting) == len(set(waiting))
    assert find(spool, acknowledged[-1]) is not None

    def write(table: str, rows: object, token: str) -> None:
        assert token not in written
        written[token] = rows.column("prediction_id").to_pylist()  # type: ignore[attr-defined]

    drained = drain(spool, write)
    moved = [each for ids in written.values() for each in ids]
    assert sorted(moved) == sorted(waiting)
    assert drained.predictions == len(moved)
    assert len(moved) % 3 == 0, "what one call writes is kept whole or not at all"
    assert not list(spool.glob("*.log"))
    assert not list(spool.glob("*.new"))


@pytest.mark.parametrize("sync", ["commit", "written"])
def test_kill_9_of_a_gateway_loses_nothing_acknowledged(tmp_path: Path, sync: str) -> None:
    spool, chance = tmp_path / "spool", random.Random(5)
    acknowledged: list[str] = []
    for _ in range(2):
        lines = kill_after(start(GATEWAY, spool, Path(sync)), chance.randint(20, 120), chance.random() / 100)
        acknowledged += [each for line in lines for each in line.split()]
    moved: dict[str, list[str]] = {"predictions.m": [], "predictions.n": []}
    drained = drain(spool, lambda table, rows, token: moved[table].extend(rows.column("prediction_id").to_pylist()))
    everything = moved["predictions.m"] + moved["predictions.n"]
    assert moved["predictions.m"]
    assert moved["predictions.n"]
    assert set(acknowledged) <= set(everything)
    assert len(everything) == len(set(everything)) == drained.predictions
    assert len(everything) % 3 == 0, "a record is kept whole or not at all"


def test_kill_9_of_writers_and_drains_moves_each_prediction_once(tmp_path: Path) -> None:
    spool, lake = tmp_path / "spool", tmp_path / "lake"
    lake.mkdir()
    acknowledged: list[str] = []
    chance = random.Random(11)
    for _ in range(3):
        writer, drainer = start(WRITER, spool), start(DRAINER, spool, lake)
        kill_after(drainer, chance.randint(1, 6), 0)
        acknowledged += [each for line in kill_after(writer, 60, 0) for each in line.split()]
    finisher = start(DRAINER, spool, lake)
    deadline = time.monotonic() + 120
    while list(spool.glob("*.log")) and time.monotonic() < deadline:
        time.sleep(0.05)
    kill_after(finisher, 0, 0)
    moved = [each for file in lake.glob("*") if file.suffix != ".part" for each in file.read_text().split()]
    assert len(moved) == len(set(moved))
    assert set(acknowledged) <= set(moved)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], check=False, capture_output=True
        ).returncode
    )
    if not mounted:
        outcome = pytest.fail if os.environ.get("CI") else pytest.skip
        outcome("mounting a small tmpfs needs root; a limit on the file size stands in for it in the unit tests")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_refuses_and_counts_nothing_half_written(small_disk: Path) -> None:
    spool = small_disk / "spool"
    log = PredictionLog(spool, max_bytes=50_000)
    acknowledged: list[str] = []
    refused: list[Unavailable] = []
    for number in range(200):
        try:
            log.write([record([f"p_{number:06d}"], "x" * 3_000)])
        except Unavailable as error:
            refused.append(error)
        else:
            acknowledged.append(f"p_{number:06d}")
    assert 40 < len(acknowledged) < 100
    assert len(refused) + len(acknowledged) == 200
    assert all("No space left on device" in error.what for error in refused)
    assert all("free space" in error.hint for error in refused)
    assert pending(spool, "m").column("prediction_id").to_pylist() == acknowledged

    moved: list[str] = []
    drained = drain(spool, lambda table, rows, token: moved.extend(rows.column("prediction_id").to_pylist()))
    assert drained.torn == 0
    log.write([record(["p_001000"], "x" * 3_000)])  # there is space again
    log.close()
    drain(spool, lambda table, rows, token: moved.extend(rows.column("prediction_id").to_pylist()))
    assert moved == [*acknowledged, "p_001000"]
