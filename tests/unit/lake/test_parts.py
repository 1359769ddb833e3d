from __future__ import annotations

import random

import pyarrow as pa
import pytest

from millpond.core.errors import Unavailable
from millpond.lake.duckdb import DuckDBEngine
from millpond.lake.iceberg import IcebergLake
from millpond.lake.parts import Part, part_sql, split
from millpond.lake.scan import ScanPlan


@pytest.fixture
def lake(tmp_path):
    return IcebergLake(tmp_path / "lake")


def numbers(engine: DuckDBEngine, plan: ScanPlan, part: Part) -> list[int]:
    found: list[int] = engine.reader(f"SELECT number FROM {part_sql(plan, part)}").read_all()["number"].to_pylist()
    return found


@pytest.mark.parametrize("seed", range(4))
def test_every_row_is_in_one_part(lake, seed):
    draw = random.Random(seed)
    start = 0
    for _ in range(draw.randint(1, 6)):
        rows = draw.randint(1, 40)
        lake.append("t", pa.table({"old": pa.array(range(start, start + rows), pa.int64()), "x": ["y"] * rows}))
        start += rows
    lake.rename_column("t", "old", "number")
    engine = DuckDBEngine(lake, threads=1)
    plan = lake.plan(lake.snapshot("t"))
    for size in (1, 7, draw.randint(2, 30), 1000):
        parts = split(plan, size)
        assert parts == split(lake.plan(lake.snapshot("t")), size)
        found = [numbers(engine, plan, part) for part in parts]
        assert [len(each) for each in found] == [part.rows for part in parts]
        assert [part.first for part in parts] == [size * index for index in range(len(parts))]
        assert all(part.rows == size for part in parts[:-1])
        assert sorted(number for each in found for number in each) == list(range(start))
    engine.close()


def test_parts_of_nothing_and_of_what_is_gone(lake):
    lake.append("t", pa.table({"number": pa.array([], pa.int64())}))
    assert split(lake.plan(lake.snapshot("t")), 10) == []
    lake.append("t", pa.table({"number": [1]}))
    plan = lake.plan(lake.snapshot("t"))
    lake.path(plan.files[0]).unlink()
    with pytest.raises(Unavailable, match="cannot be read"):
        split(plan, 10)
