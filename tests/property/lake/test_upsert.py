"""Upsert against a dictionary: whatever is written in whatever order, the table is what the dictionary says."""

import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millpond.core.errors import DataError
from millpond.lake.duckdb import DuckDBEngine
from millpond.lake.iceberg import IcebergLake

KEYS = st.tuples(st.integers(0, 5), st.sampled_from(["a", "b", "'", ""]))
VALUES = st.one_of(st.none(), st.floats(width=64), st.integers(-3, 3).map(float))
ROWS = st.lists(st.tuples(KEYS, VALUES), max_size=8)
STEPS = st.lists(st.tuples(st.sampled_from(["upsert", "upsert", "overwrite"]), ROWS), min_size=1, max_size=4)


def table(rows):
    return pa.table(
        {
            "n": pa.array([key[0] for key, _ in rows], pa.int64()),
            "v": pa.array([value for _, value in rows], pa.float64()),
            "s": pa.array([key[1] for key, _ in rows], pa.string()),
        }
    )


def kept(value):
    return None if value is None or value != value else value


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS)
def test_the_table_is_what_a_dictionary_says(steps):
    with tempfile.TemporaryDirectory() as directory:
        lake = IcebergLake(Path(directory))
        engine = DuckDBEngine(lake, threads=1)
        oracle: dict = {}
        for mode, rows in steps:
            keys = [key for key, _ in rows]
            if mode == "overwrite":
                lake.overwrite("t", table(list(dict(rows).items())))
                oracle = {key: kept(value) for key, value in dict(rows).items()}
            elif len(set(keys)) < len(keys):
                with pytest.raises(DataError, match="more than once"):
                    lake.upsert("t", table(rows), ["n", "s"])
            else:
                lake.upsert("t", table(rows), ["n", "s"])
                oracle |= {key: kept(value) for key, value in rows}
            if lake.exists("t"):
                snapshot = lake.snapshot("t")
                found = engine.rows(f"SELECT n, s, v FROM {engine.scan(snapshot)}")
                assert len(found) == snapshot.rows == len(oracle)
                assert {(n, s): v for n, s, v in found} == oracle
        engine.close()
