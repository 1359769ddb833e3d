"""A large training set: Millpond on DuckDB and on Spark, against Feast, Polars, and the best SQL written by hand.

500,000 examples with 20 features (latest values, and windows up to 30 days) over 5 million events. Each way runs in a
fresh process on the same two processors and writes Parquet; starting it, its libraries and its session is left out.
Millpond reads its own lake, the others the Parquet files that the lake was filled from. Feast knows no windows in its
DuckDB store, so it is measured on the latest values alone. `python -m benchmarks feature_store`
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import millpond as mp
from benchmarks import processes, training_set
from benchmarks.by_hand import sums_and_frames, sums_and_tiles
from benchmarks.training_set import FileEngine, latest_by_hand, windows_by_tiles

CASE = training_set.Case("feature store", 5_000_000, 20_000, 500_000, late=False)
REPEATS = 2
MEMORY = "4GiB"
PARTS = {  # the ways that each part of the view is measured in; Millpond's own on DuckDB is first
    "latest": ("millpond", "asof", "polars", "feast"),
    "windows": ("millpond", "tiles", "sums and tiles", "sums and frames", "polars", "spark"),
    "all": ("millpond", "by hand", "polars", "spark"),
}
ONCE = ("feast", "spark", "polars")  # slow, and Spark's second run would be another session all the same


def view(part: str) -> mp.Features:
    """The view of `training_set`, or the part of it that is or is not the latest values."""
    whole = training_set.view(CASE)
    chosen = {
        name: each
        for name, each in whole.features.items()
        if part == "all" or (each.kind == "latest") == (part == "latest")
    }
    return mp.Features("v", entity=whole.entity, source=whole.source, **chosen)


def generate(folder: Path) -> None:
    """The Parquet files, and the lake filled from them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from millpond.lake.iceberg import IcebergLake

    training_set.generate(CASE, folder)
    lake = IcebergLake(folder / "lake")
    for table in ("events", "examples"):
        with pq.ParquetFile(folder / f"{table}.parquet") as file:
            lake.append(table, pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches()))


def by_millpond(part: str, folder: Path) -> None:
    """The join on the lake, in DuckDB."""
    from millpond.features.point_in_time import join_features
    from millpond.features.ports import PinnedView
    from millpond.lake.duckdb import DuckDBEngine
    from millpond.lake.iceberg import IcebergLake

    lake = IcebergLake(folder / "lake")
    engine = DuckDBEngine(lake, threads=processes.CORES, memory_limit=MEMORY, temp_directory=folder / "spill")
    events, examples = lake.snapshot("events"), lake.snapshot("examples")
    names = ", ".join(view(part).columns)
    with processes.stopwatch() as figures, engine.session():
        relation = join_features(engine, engine.scan(examples), "asked", [PinnedView(view(part), events)])
        target = folder / f"{part} millpond.parquet"
        engine.execute(f"COPY (SELECT example, {names} FROM {relation}) TO '{target}' (FORMAT parquet)")
    processes.tell(**figures, MiB=processes.peak())


def by_spark(part: str, folder: Path) -> None:
    """The same join on the same lake, in Spark, whose executors write a table; memory counts the Java process too."""
    from millpond.features.point_in_time import join_features
    from millpond.features.ports import PinnedView
    from millpond.lake.duckdb import DuckDBEngine
    from millpond.lake.iceberg import IcebergLake
    from millpond.lake.spark import SparkEngine

    lake = IcebergLake(folder / "lake")
    engine = SparkEngine(lake, master=f"local[{processes.CORES}]", temp_directory=folder / "spill")
    events, examples = lake.snapshot("events"), lake.snapshot("examples")
    names = ", ".join(view(part).columns)
    engine.rows("SELECT 1")
    taken = []
    for _ in range(2):  # the second finds a compiled and warm virtual machine, as in a session that lives on
        with processes.stopwatch() as figures, engine.session():
            relation = join_features(engine, engine.scan(examples), "asked", [PinnedView(view(part), events)])
            built = lake.overwrite(f"{part}_spark", engine.output(f"SELECT example, {names} FROM {relation}"))
        taken.append(figures)
    memory = processes.peak(*processes.descendants(os.getpid()))
    engine.close()
    reader = DuckDBEngine(lake, temp_directory=folder / "spill")
    reader.execute(f"COPY (FROM {reader.scan(built)}) TO '{folder / f'{part} spark.parquet'}' (FORMAT parquet)")
    processes.tell(**taken[0], again=taken[1], MiB=memory)


def by_hand(way: str, part: str, folder: Path) -> None:
    """A query on the Parquet files."""
    engine = FileEngine(folder)
    for table in ("events", "examples"):
        engine.execute(f"CREATE VIEW {table} AS FROM read_parquet('{folder / table}.parquet')")
    with processes.stopwatch() as figures:
        if part == "all":  # the latest values, and beside them the windows in the form that was asked for
            engine.execute(f"CREATE TEMP TABLE newest AS {latest_by_hand(CASE)}")
        query = HAND[way](engine)
        if part == "all":
            query = f"SELECT * FROM ({query}) JOIN newest USING (example)"
        engine.execute(f"COPY ({query}) TO '{folder / f'{part} {way}'}.parquet' (FORMAT parquet)")
    processes.tell(**figures, MiB=processes.peak())


HAND = {
    "asof": lambda _: latest_by_hand(CASE),
    "tiles": lambda engine: windows_by_tiles(engine, CASE),
    "sums and tiles": sums_and_tiles,
    "sums and frames": sums_and_frames,
}


def measure(part: str, way: str, folder: Path) -> dict[str, Any]:
    """One way in a fresh process: seconds, and peak memory in MiB."""
    if way in processes.PEERS:
        arguments = ["train"] if way == "feast" else [part]
        return processes.child(f"benchmarks.store_{way}", *arguments, str(folder), python=processes.peer(way))
    return processes.child("benchmarks.feature_store", way, part, str(folder))


def run() -> list[dict[str, Any]]:
    """Measure each part in each way, in turn; the fastest of the repeats counts."""
    for name in ("feast", "polars"):
        processes.peer(name)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        processes.child("benchmarks.feature_store", "generate", "all", name)
        best_windows = ""
        for part, named in PARTS.items():
            ways = [best_windows if way == "by hand" else way for way in named]
            taken: dict[str, dict[str, Any]] = {}
            for number in range(REPEATS):
                for way in ways:
                    if number and way in ONCE:
                        continue
                    seen = measure(part, way, folder)
                    if way not in taken or seen["seconds"] < taken[way]["seconds"]:
                        taken[way] = seen
            wrong = {way: differences(part, way, folder) for way in ways if way != "millpond"}
            best = min((way for way in ways if way in HAND), key=lambda way: taken[way]["seconds"])
            best_windows = best if part == "windows" else best_windows
            rows += report(part, taken, wrong, best)
    return rows


def differences(part: str, way: str, folder: Path) -> int:
    """Values in which a way differs from Millpond's on DuckDB."""
    ours, theirs = (f"read_parquet('{folder / f'{part} {name}'}.parquet')" for name in ("millpond", way))
    return training_set.different_values(FileEngine(folder), view(part).columns, ours, theirs, CASE.examples)


TITLES = {"latest": "latest values of 3 columns", "windows": "17 windows and counts", "all": "20 features"}


def report(part: str, taken: dict[str, dict[str, Any]], wrong: dict[str, int], best: str) -> Iterator[dict[str, Any]]:
    name = f"feature store, {TITLES[part]}"
    shape = f"{CASE.events:,} events, {CASE.entities:,} entities, {CASE.examples:,} examples"
    ours = taken["millpond"]
    every = ", ".join(f"{way} {one['seconds']:.2f} s" for way, one in taken.items())
    memory = ", ".join(f"{way} {one['MiB']:,.0f}" for way, one in taken.items())
    if "feast" in taken:
        yield {
            "name": f"{name}: against Feast",
            "value": taken["feast"]["seconds"] / ours["seconds"],
            "goal": 15,
            "at_most": False,
            "unit": "x faster than its DuckDB store",
            "note": f"Feast {taken['feast']['seconds']:.1f} s; {wrong['feast']:,} of its values differ, "
            "because it breaks ties arbitrarily",
        }
    yield {
        "name": f"{name}: time",
        "value": ours["seconds"] / taken[best]["seconds"],
        "goal": 1.3,
        "unit": f"x {best} by hand",
        "note": f"{shape}; {every}",
    }
    yield {
        "name": f"{name}: processor time",
        "value": ours["cpu"] / taken[best]["cpu"],
        "goal": 1.3,
        "unit": f"x {best} by hand",
        "note": ", ".join(f"{way} {one['cpu']:.2f} s" for way, one in taken.items()),
    }
    yield {
        "name": f"{name}: memory",
        "value": ours["MiB"] / taken[best]["MiB"],
        "goal": None,
        "unit": f"x {best} by hand",
        "note": f"peak MiB: {memory}",
    }
    yield {
        "name": f"{name}: against Polars",
        "value": ours["seconds"] / taken["polars"]["seconds"],
        "goal": None,
        "unit": "x Polars",
        "note": f"peak {ours['MiB']:,.0f} MiB, Polars {taken['polars']['MiB']:,.0f} MiB",
    }
    if "spark" in taken:
        yield {
            "name": f"{name}: on Spark",
            "value": taken["spark"]["seconds"] / ours["seconds"],
            "goal": 5,
            "unit": "x DuckDB",
            "note": f"local[{processes.CORES}], after the session has started; Python and Java together peak at "
            f"{taken['spark']['MiB']:,.0f} MiB, DuckDB at {ours['MiB']:,.0f} MiB",
        }
        again = taken["spark"]["again"]
        yield {
            "name": f"{name}: on Spark, a second time in the session",
            "value": again["seconds"] / ours["seconds"],
            "goal": None,
            "unit": "x DuckDB",
            "note": f"{again['seconds']:.1f} s, of processors {again['cpu']:.1f} s",
        }
    yield {
        "name": f"{name}: differences",
        "value": sum(number for way, number in wrong.items() if way != "feast"),
        "goal": 0,
        "unit": "values",
        "note": "of " + ", ".join(way for way in wrong if way != "feast") + "; floating means to a relative 1e-9",
    }


def main() -> None:
    what, part, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    processes.keep_to_cores()
    if what == "generate":
        generate(folder)
        processes.tell()
    elif what == "millpond":
        by_millpond(part, folder)
    elif what == "spark":
        by_spark(part, folder)
    else:
        by_hand(what, part, folder)


if __name__ == "__main__":
    main()
