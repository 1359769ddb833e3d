"""Polars' side of the training set's benchmark; run by the interpreter of its own environment.

`python -m benchmarks.store_polars latest|windows|all FOLDER`
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.processes import keep_to_cores, peak, stopwatch, tell

WINDOWS = ("1h", "1d", "7d", "30d")


def main() -> None:
    keep_to_cores()
    part, folder = sys.argv[1], Path(sys.argv[2])
    with stopwatch() as figures:
        events, examples = (pl.scan_parquet(folder / f"{name}.parquet") for name in ("events", "examples"))
        if part == "all":
            found = latest(events, examples).join(windows(events, examples), on="example")
        else:
            found = {"latest": latest, "windows": windows}[part](events, examples)
        found.write_parquet(folder / f"{part} polars.parquet")
    tell(**figures, MiB=peak())


def latest(events: Any, examples: Any) -> Any:
    """Sorted by the tie rule, so that the last of equal instants is the one."""
    columns = [pl.col(name).alias(f"v__last_{name}") for name in ("amount", "balance", "category")]
    steps = events.sort("ts", "id").select("account", "ts", *columns)
    joined = examples.sort("asked").join_asof(
        steps, left_on="asked", right_on="ts", by="account", strategy="backward", allow_exact_matches=False
    )
    return joined.select("example", *(f"v__last_{name}" for name in ("amount", "balance", "category"))).collect()


def windows(events: Any, examples: Any) -> Any:
    """Events and examples in one frame, rolled once a window; a sum over nothing is null."""
    mixed = pl.concat(
        [
            events.select("account", "ts", "id", "cents", "amount", pl.lit(None, pl.Int64).alias("example")),
            examples.select(
                "account",
                pl.col("asked").alias("ts"),
                pl.lit(None, pl.Int64).alias("id"),
                pl.lit(None, pl.Int64).alias("cents"),
                pl.lit(None, pl.Float64).alias("amount"),
                "example",
            ),
        ]
    )
    mixed = mixed.sort("account", "ts", "example", nulls_last=True).collect()  # examples before events
    asked = mixed["example"].is_not_null()
    counted = pl.col("id").is_not_null().cast(pl.Int64).cum_sum().over("account").alias("v__n")
    found = mixed.select("example", counted).filter(asked)
    for over in WINDOWS:
        rolled = mixed.rolling("ts", period=over, group_by="account", closed="left").agg(
            pl.col("id").count().cast(pl.Int64).alias(f"v__n_{over}"),
            pl.when(pl.col("cents").count() > 0).then(pl.col("cents").sum()).alias(f"v__cents_{over}"),
            pl.col("amount").mean().alias(f"v__mean_{over}"),
            pl.col("amount").max().alias(f"v__top_{over}"),
        )
        found = found.hstack(rolled.filter(asked).drop("account", "ts"))
    return found


if __name__ == "__main__":
    main()
