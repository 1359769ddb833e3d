"""What an online store is filled from."""

import random
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

import millpond as mp
from millpond.features.online.refresh import grid_values, live_rows, live_since
from millpond.features.plan import plan_view
from millpond.features.ports import PinnedView
from millpond.lake.iceberg import IcebergLake
from millpond.lake.sql_text import sql_text

START = datetime(2026, 1, 1, tzinfo=UTC)
ORDERS = mp.Table("orders", key="id", time="at", known="seen")
SHOP = mp.Entity("shop", key="shop")
VIEW = mp.Features(
    "sales",
    entity=SHOP,
    source=ORDERS,
    every="1h",
    orders_3h=mp.count(over="3h"),
    sum_1d=mp.sum("size", over="1d"),
    last=mp.latest("size", within="6h"),
    best=mp.max("size"),
)


def rows(numbers, seed=0):
    chance = random.Random(seed)
    at = [START + timedelta(minutes=chance.randrange(60 * 72)) for _ in numbers]
    seen = [each + timedelta(minutes=chance.choice([0, 0, 90])) for each in at]
    return pa.table(
        {
            "id": list(numbers),
            "shop": pa.array([chance.choice(["a", "b", "c", "d", "e", None]) for _ in numbers]),
            "at": pa.array(at, pa.timestamp("us", "UTC")),
            "seen": pa.array(seen, pa.timestamp("us", "UTC")),
            "size": [chance.randrange(100) for _ in numbers],
        }
    )


@pytest.fixture
def lake(tmp_path):
    return IcebergLake(tmp_path / "lake")


@pytest.fixture(params=["duckdb", pytest.param("spark", marks=pytest.mark.slow)])
def engine(new_engine, request, lake):
    return new_engine(request.param, lake)


def values(engine, snapshot, grid, changed=None):
    with engine.session():
        found = grid_values(engine, plan_view(PinnedView(VIEW, snapshot)), grid, changed).read_all()
    return {row["shop"]: tuple(row.values())[1:] for row in found.to_pylist()}


@pytest.mark.parametrize("hours", [1, 7, 30])
def test_incremental_values_are_those_of_a_full_refresh(lake, engine, hours):
    """Over the same rows, over new ones, and over ones that replace rows of long ago."""
    before = lake.append("orders", rows(range(60)))
    last = START + timedelta(hours=40)
    held = values(engine, before, last)
    after = lake.upsert("orders", rows([*range(5), 100, 101], seed=1), ["id"])
    for snapshot in (before, after):
        grid = last + timedelta(hours=hours)
        full = values(engine, snapshot, grid)
        changed = values(engine, snapshot, grid, (before, last))
        assert {**held, **changed}.items() >= full.items()


def test_an_entity_that_nothing_happened_to_is_not_computed_again(lake, engine):
    snapshot = lake.append("orders", rows(range(60)))
    grid = START + timedelta(days=30)
    assert values(engine, snapshot, grid, (snapshot, grid - timedelta(hours=1))) == {}
    assert set(values(engine, snapshot, grid)) == {"a", "b", "c", "d", "e"}


def test_a_live_view_gets_the_rows_that_can_matter(lake, engine):
    view = mp.Features("sales", entity=SHOP, source=ORDERS, sum_1d=mp.sum("size", over="1d"))
    plan = plan_view(PinnedView(view, lake.append("orders", rows(range(60)))))
    now = START + timedelta(days=400)
    since = live_since(engine, plan, now)
    newest = engine.rows(f"SELECT max({sql_text(engine.dialect).name('at')}) FROM {engine.scan(plan.pinned.snapshot)}")[
        0
    ][0]
    assert since == newest - timedelta(days=30)
    assert live_since(engine, plan, START) == START - timedelta(days=30)
    late = START + timedelta(days=2)
    found = live_rows(engine, plan, late).read_all().to_pylist()
    assert all(row["shop"] and row["at"] >= late - timedelta(days=1) for row in found)
    assert found == sorted(found, key=lambda row: (row["shop"], row["at"]))
    everything = mp.Features("ever", entity=SHOP, source=ORDERS, orders=mp.count())
    assert live_since(engine, plan_view(PinnedView(everything, plan.pinned.snapshot)), now) is None
