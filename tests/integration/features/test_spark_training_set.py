"""Training sets and receipts are the same on both engines, over one lake."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import millpond as mp
from millpond.core.errors import DataError, DefinitionError
from millpond.features.explain import explain
from millpond.features.point_in_time import join_features
from millpond.features.ports import PinnedView
from millpond.features.training_set import build_training_set
from millpond.lake.iceberg import IcebergLake

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
INSTANT = pa.timestamp("us", tz="UTC")
START = datetime(2013, 1, 1, tzinfo=UTC)

flights = mp.Table("flights", key="id", time="scheduled", known="arrived")
airport = mp.Entity("airport", key="origin")
traffic = mp.Features(
    "traffic",
    entity=airport,
    source=flights,
    flights=mp.count(over="6h"),
    mean_delay=mp.mean("delay", over="6h"),
    distance=mp.sum("distance", over="1d"),
    carriers=mp.nunique("carrier", over="1d"),
    carrier=mp.latest("carrier", within="1d"),
)


@mp.request_features
def calendar(rows):
    return rows.select(hour=mp.col("scheduled").dt.hour())


def model(*inputs: Any) -> mp.Model:
    return mp.Model(
        "late",
        task=mp.Classification(label=mp.col("delay") >= 30),
        examples=flights,
        where=mp.col("distance") > 200,
        label_known="arrived",
        inputs=["distance", traffic, *inputs, "carrier"],
        slices=["carrier"],
    )


def table(rows: int = 60) -> pa.Table:
    numbers = range(rows)
    scheduled = [None if n == 7 else START + timedelta(minutes=47 * n) for n in numbers]
    return pa.table(
        {
            "id": pa.array(numbers, pa.int64()),
            "origin": [None if n == 3 else ("JFK", "LGA")[n % 2] for n in numbers],
            "scheduled": pa.array(scheduled, INSTANT),
            "arrived": pa.array(
                [at and at + timedelta(minutes=31 * (n % 9)) for n, at in enumerate(scheduled)], INSTANT
            ),
            "delay": pa.array([None if n % 11 == 0 else (n * 37 % 101) / 1.5 for n in numbers], pa.float64()),
            "distance": pa.array([100 * (n % 17) for n in numbers], pa.int64()),
            "carrier": [("AA", "UA", "DL")[n % 3] for n in numbers],
        }
    )


@pytest.fixture
def lake(tmp_path: Path) -> IcebergLake:
    return IcebergLake(tmp_path / "lake")


def built(engine: Any, lake: IcebergLake, declared: mp.Model, name: str) -> tuple[list[dict[str, Any]], Any]:
    """The rows of a training set that was written to the lake, and its counts."""
    snapshot = lake.snapshot("flights")
    with engine.session():
        found = build_training_set(engine, declared, snapshot, [PinnedView(view, snapshot) for view in declared.views])
        written = lake.overwrite(name, found.rows)
    rows = engine.reader(f"SELECT * FROM {engine.scan(written)}").read_all()
    assert tuple(rows.column_names) == written.column_names
    return sorted(rows.to_pylist(), key=lambda row: row["id"]), found.counts


def close(value: Any) -> Any:
    """Floats to a relative 1e-9, all else exact."""
    return pytest.approx(value, rel=1e-9) if isinstance(value, float) else value


def test_training_sets_and_receipts_are_those_of_duckdb(lake: IcebergLake, new_engine: Any) -> None:
    snapshot = lake.append("flights", table())
    duckdb, spark = new_engine("duckdb", lake), new_engine("spark", lake)
    for number, declared in enumerate((model(), model(calendar))):
        expected, counts = built(duckdb, lake, declared, f"by_duckdb_{number}")
        found, same_counts = built(spark, lake, declared, f"by_spark_{number}")
        assert counts == same_counts
        assert counts.without_time == 1
        assert len(found) == len(expected) == counts.rows > 40
        for one, other in zip(found, expected, strict=True):
            assert list(one) == list(other)
            assert {name: close(value) for name, value in other.items()} == one
    pinned = [PinnedView(traffic, snapshot)]
    at = START + timedelta(hours=20)
    expected = explain(duckdb, pinned, {"origin": "JFK"}, at)
    assert any(each.rows > 5 for each in expected)
    for one, other in zip(explain(spark, pinned, {"origin": "JFK"}, at), expected, strict=True):
        assert one.value == close(other.value)
        assert (one.visible_since, one.rows, one.example_rows) == (
            other.visible_since,
            other.rows,
            other.example_rows,
        )


def test_a_sum_that_does_not_fit_is_refused(lake: IcebergLake, new_engine: Any) -> None:
    large = table(4).set_column(5, "distance", pa.array([2**62] * 4, pa.int64()))
    snapshot = lake.append("flights", large)
    spark = new_engine("spark", lake)
    total = mp.Features("totals", entity=airport, source=flights, total=mp.sum("distance", over="1d"))
    spark.register("examples", pa.table({"origin": ["JFK"], "at": pa.array([START + timedelta(hours=9)], INSTANT)}))
    with spark.session():
        assert spark.rows(f"SELECT * FROM {join_features(spark, 'examples', None, [])}")[0][0] == "JFK"
        with pytest.raises(DataError, match="The sum totals__total reaches 9223372036854775808"):
            join_features(spark, "examples", "at", [PinnedView(total, snapshot)])


def test_an_expression_that_does_not_work_is_refused(lake: IcebergLake, new_engine: Any) -> None:
    snapshot = lake.append("flights", table(4))
    spark = new_engine("spark", lake)
    task, where = mp.Regression(label="delay"), mp.col("nowhere") > 3
    declared = mp.Model("late", task=task, examples=flights, where=where, inputs=["distance"])
    with spark.session(), pytest.raises(DefinitionError, match="label or where expression") as error:
        build_training_set(spark, declared, snapshot, [])
    assert "nowhere" in str(error.value)
