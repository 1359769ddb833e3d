"""What a training set costs as its table grows from 1 to 50 million events, in an engine of 2 GB.

100,000 examples and 20 features (latest values, and windows up to 30 days) throughout; the table of one lake grows by
appends, and each size is read at its own snapshot in a fresh process on the same two processors. The result is
streamed into Parquet, as it is into a table. `python -m benchmarks growth`
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import processes, training_set

SIZES = (1_000_000, 5_000_000, 20_000_000, 50_000_000)
ENTITIES, EXAMPLES, DAYS = 20_000, 100_000, 60
MEMORY = "2GB"
APPEND = 5_000_000  # rows of an append, at most: the lake is filled in constant memory
DISK = 12_000_000_000  # bytes that the largest size takes: files, and what is spilled
CASE = training_set.Case("growth", SIZES[-1], ENTITIES, EXAMPLES, late=False)


def events(first: int, number: int) -> str:
    """The events from `first` on, as a query: values are functions of the event's number, so any part can be made."""

    def draw(salt: int, below: int) -> str:
        return f"(hash(i * 16 + {salt}) % {below})::BIGINT"

    start = "TIMESTAMPTZ '2026-01-01 00:00:00+00'"
    return f"""
        SELECT i AS id, CASE WHEN {draw(0, 100)} = 0 THEN {draw(1, 10)} ELSE {draw(1, ENTITIES)} END AS account,
            {start} + to_seconds({draw(2, DAYS * 86400)}) AS ts,
            CASE WHEN {draw(3, 50)} > 0 THEN {draw(4, 50_000)} END AS cents,
            CASE WHEN {draw(3, 50)} > 0 THEN {draw(4, 50_000)} / 100.0::DOUBLE END AS amount,
            {draw(5, 20_000_000)} / 10000.0::DOUBLE AS balance, chr((97 + {draw(6, 5)})::INTEGER) AS category
        FROM range({first}, {first + number}) AS numbers (i)"""


def examples() -> str:
    start = "TIMESTAMPTZ '2026-01-01 00:00:00+00'"
    return f"""
        SELECT i AS example, (hash(-i * 16 - 1) % {ENTITIES})::BIGINT AS account,
            {start} + to_seconds((hash(-i * 16 - 2) % {DAYS * 86400})::BIGINT) AS asked
        FROM range({EXAMPLES}) AS numbers (i)"""


def generate(folder: Path, first: int, last: int) -> None:
    """Append the events from `first` to before `last`; the examples with the first of them."""
    from millpond.lake.iceberg import IcebergLake

    lake, engine = IcebergLake(folder / "lake"), training_set.FileEngine(folder)
    if first == 0:
        lake.append("examples", engine.reader(examples()))
    for begin in range(first, last, APPEND):
        lake.append("events", engine.reader(events(begin, min(APPEND, last - begin))))


def build(folder: Path, size: int) -> dict[str, float]:
    """The training set at the snapshot with `size` events."""
    import pyarrow.parquet as pq

    from millpond.features.point_in_time import join_features
    from millpond.features.ports import PinnedView
    from millpond.lake.duckdb import DuckDBEngine
    from millpond.lake.iceberg import IcebergLake

    lake, spill = IcebergLake(folder / "lake"), folder / f"spill-{size}"
    snapshot = next(each for each in lake.history("events") if each.rows == size)
    engine = DuckDBEngine(lake, threads=processes.CORES, memory_limit=MEMORY, temp_directory=spill)
    view = training_set.view(CASE)
    before = processes.peak()
    with processes.stopwatch() as figures, engine.session():
        spine = engine.scan(lake.snapshot("examples"))
        relation = join_features(engine, spine, "asked", [PinnedView(view, snapshot)])
        rows = engine.reader(f"SELECT example, {', '.join(view.columns)} FROM {relation}")
        with pq.ParquetWriter(folder / f"{size}.parquet", rows.schema) as writer:
            for batch in rows:
                writer.write_batch(batch)
        spilled = sum(each.stat().st_size for each in spill.rglob("*") if each.is_file()) if spill.exists() else 0
    with pq.ParquetFile(folder / f"{size}.parquet") as written:
        if written.metadata.num_rows != EXAMPLES:
            raise SystemExit(f"{EXAMPLES} examples were asked for, and {written.metadata.num_rows} were written")
    return {**figures, "MiB": processes.peak(), "before": before, "spilled": spilled / 2**20}


def run() -> list[dict[str, Any]]:
    """Grow the table, and measure at each size; once, because the larger ones take long."""
    if shutil.disk_usage(tempfile.gettempdir()).free < DISK:
        raise SystemExit(f"The benchmark needs {DISK / 1e9:.0f} GB free in {tempfile.gettempdir()}")
    taken: dict[int, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        first = 0
        for size in SIZES:
            processes.child("benchmarks.growth", "generate", name, str(first), str(size))
            taken[size] = processes.child("benchmarks.growth", "build", name, str(size))
            first = size
    return list(_report(taken))


def _report(taken: dict[int, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    shape = f"{ENTITIES:,} entities, {EXAMPLES:,} examples, 20 features, engine of {MEMORY}"
    for size, figures in taken.items():
        yield {
            "name": f"growth, {size / 1e6:.0f}M events: time",
            "value": figures["seconds"] / size * 1e6,
            "goal": None,
            "unit": "s a million events",
            "note": f"{figures['seconds']:.1f} s, of processors {figures['cpu']:.1f} s; {shape}",
        }
    least, most = taken[SIZES[0]], taken[SIZES[-1]]
    yield {
        "name": f"growth, from {SIZES[0] / 1e6:.0f}M to {SIZES[-1] / 1e6:.0f}M events: time",
        "value": most["seconds"] / least["seconds"],
        "goal": None,
        "unit": f"x for {SIZES[-1] // SIZES[0]} x the events",
        "note": ", ".join(f"{size / 1e6:.0f}M {figures['seconds']:.1f} s" for size, figures in taken.items()),
    }
    yield {
        "name": f"growth, from {SIZES[0] / 1e6:.0f}M to {SIZES[-1] / 1e6:.0f}M events: processor time",
        "value": most["cpu"] / least["cpu"],
        "goal": None,
        "unit": f"x for {SIZES[-1] // SIZES[0]} x the events",
        "note": ", ".join(f"{size / 1e6:.0f}M {figures['cpu']:.1f} s" for size, figures in taken.items()),
    }
    yield {
        "name": "growth: memory",
        "value": max(figures["MiB"] for figures in taken.values()) / 1024,
        "goal": None,
        "unit": "GiB at the peak",
        "note": "peak MiB of the whole process: "
        + ", ".join(f"{size / 1e6:.0f}M {figures['MiB']:,.0f}" for size, figures in taken.items())
        + f", {least['before']:,.0f} of them before the join; spilled by the largest: {most['spilled']:,.0f} MiB",
    }


def main() -> None:
    what, folder, numbers = sys.argv[1], Path(sys.argv[2]), [int(each) for each in sys.argv[3:]]
    processes.keep_to_cores()
    if what == "generate":
        generate(folder, *numbers)
        processes.tell()
        return
    processes.tell(**build(folder, *numbers))


if __name__ == "__main__":
    main()
