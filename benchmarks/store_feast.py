"""Feast's side of the feature store's benchmarks; run by the interpreter of Feast's own environment.

`python -m benchmarks.store_feast train FOLDER` joins the latest values with its DuckDB offline store;
`python -m benchmarks.store_feast online FOLDER sqlite|redis HOST:PORT` looks entities up.
"""

from __future__ import annotations

import random
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.processes import keep_to_cores, peak, percentiles, stopwatch, tell

LATEST = ("amount", "balance", "category")


def main() -> None:
    keep_to_cores()
    what, folder = sys.argv[1], Path(sys.argv[2])
    if what == "train":
        train(folder)
    else:
        online(folder, *sys.argv[3:])


def store(folder: Path, online_store: dict[str, Any]) -> Any:
    from feast import FeatureStore, RepoConfig

    (folder / "feast").mkdir(exist_ok=True)
    return FeatureStore(
        config=RepoConfig(
            project="bench",
            provider="local",
            registry=str(folder / "feast" / "registry.db"),
            offline_store={"type": "duckdb"},
            online_store=online_store,
            entity_key_serialization_version=3,
        )
    )


def view(name: str, source: Any, fields: list[tuple[str, Any]]) -> list[Any]:
    from feast import Entity, FeatureView, Field, ValueType

    account = Entity(name="account", join_keys=["account"], value_type=ValueType.INT64)
    schema = [Field(name=field, dtype=dtype) for field, dtype in fields]
    return [account, FeatureView(name=name, entities=[account], ttl=timedelta(0), schema=schema, source=source)]


def train(folder: Path) -> None:
    """Feast sees rows up to and including the instant; a microsecond earlier it means what Millpond means."""
    import pandas as pd
    import pyarrow.parquet as pq
    from feast import FileSource
    from feast.types import Float64, String

    feast = store(folder, {"type": "sqlite", "path": str(folder / "feast" / "online.db")})
    source = FileSource(name="events", path=str(folder / "events.parquet"), timestamp_field="ts")
    feast.apply(view("v", source, [("amount", Float64), ("balance", Float64), ("category", String)]))
    examples = pd.read_parquet(folder / "examples.parquet")
    examples["event_timestamp"] = examples.pop("asked") - pd.Timedelta(1, "us")
    with stopwatch() as figures:
        job = feast.get_historical_features(entity_df=examples, features=[f"v:{column}" for column in LATEST])
        found = job.to_arrow()
        names = {column: f"v__last_{column}" for column in LATEST}
        found = found.select(["example", *LATEST]).rename_columns(["example", *names.values()])
        pq.write_table(found, folder / "latest feast.parquet")
    tell(**figures, MiB=peak())


def online(folder: Path, kind: str, address: str) -> None:
    import pandas as pd
    from feast import FileSource
    from feast.types import Float64

    where = {"path": str(folder / "feast.db")} if kind == "sqlite" else {"connection_string": address}
    feast = store(folder, {"type": kind, **where})
    values = pd.read_parquet(folder / "values.parquet")
    names = [name for name in values.columns if name.startswith("f")]
    source = FileSource(name="values", path=str(folder / "values.parquet"), timestamp_field="ts")
    feast.apply(view("v", source, [(name, Float64) for name in names]))
    began = time.perf_counter()
    feast.write_to_online_store("v", values)
    written = time.perf_counter() - began
    features = [f"v:{name}" for name in names]
    chance, figures = random.Random(3), {}
    for number, rounds in ((1, 1000), (100, 100)):
        taken = []
        for turn in range(rounds + 20):
            rows = [{"account": chance.randrange(len(values))} for _ in range(number)]
            began = time.perf_counter()
            found = feast.get_online_features(features=features, entity_rows=rows).to_dict()
            if turn >= 20:
                taken.append(time.perf_counter() - began)
            if found[names[7]] != [values[names[7]][row["account"]] for row in rows]:
                raise SystemExit("Feast answers with other values than it was given")
        figures[str(number)] = percentiles(taken)
    tell(**figures, MiB=peak(), written=written)


if __name__ == "__main__":
    main()
