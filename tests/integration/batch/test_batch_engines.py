"""A batch on Spark is the batch on DuckDB; and neither the number of rows nor of parts is in its memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from millpond.core.errors import RequestError
from millpond.platform.batch import predict_batch
from millpond.platform.platform import Platform, open_project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_the_same_on_spark(shop: Platform, scores: Callable[[Platform, str], list[dict[str, Any]]]) -> None:
    conf = {"spark.driver.memory": "1g", "spark.sql.shuffle.partitions": "2"}
    written = ", ".join(f'"{name}" = "{value}"' for name, value in conf.items())
    with (shop.settings.root / "millpond.toml").open("a") as file:
        file.write(f'[profiles.spark]\nengine = "spark"\nthreads = 2\n[profiles.spark.spark]\nconf = {{ {written} }}\n')
    predict_batch(shop, "returned", "asks", "scores")
    spark = open_project(shop.settings.root, profile="spark", user="ann")
    predict_batch(spark, "returned", "asks", "scores_spark", part_rows=70)
    duckdb, found = scores(shop, "scores"), scores(shop, "scores_spark")
    assert len(found) == len(duckdb) == 120
    for row, other in zip(found, duckdb, strict=True):
        assert row.pop("probability") == pytest.approx(other.pop("probability"), rel=1e-9)
        assert row.pop("as_of") >= other.pop("as_of")
        assert row == other
    shop.lake.overwrite("joined", pa.table({"customer_id": ["c1", "nobody", "c2"], "pieces": [1, 2, 3]}))
    with pytest.raises(RequestError, match="Unknown member: 'nobody'"):
        predict_batch(spark, "spent", "joined", "never")
    assert [*(spark.scratch / "spill").glob(f"spark-{os.getpid()}-*")] == []  # what the engine kept is gone


MEASURED = """
import json, resource, sys
import numpy as np, pyarrow as pa
from millpond.platform.batch import predict_batch
from millpond.platform.platform import open_project

platform = open_project(sys.argv[1], user="ann")
rows = int(sys.argv[2])
random = np.random.default_rng(0)


def batches():
    for first in range(0, rows, 50_000):
        customers = [f"c{each}" for each in random.integers(0, 30, 50_000)]
        yield pa.record_batch({"customer_id": customers, "pieces": random.integers(0, 5, 50_000)})


schema = pa.schema({"customer_id": pa.string(), "pieces": pa.int64()})
platform.lake.overwrite("many", pa.RecordBatchReader.from_batches(schema, batches()))
written = predict_batch(platform, "spent", "many", "scores", part_rows=50_000)
print(json.dumps([written.rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10]))
"""


def test_memory_does_not_grow_with_the_table(shop: Platform) -> None:
    def measured(rows: int) -> int:
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, str(Path(shop.settings.root)), str(rows)],
            capture_output=True,
            text=True,
            check=True,
            timeout=200,
        )
        scored, megabytes = json.loads(done.stdout)
        assert scored == rows
        return int(megabytes)

    few, many = measured(100_000), measured(600_000)
    assert many < few * 1.25 + 40
