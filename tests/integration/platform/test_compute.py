"""Tables are derived and checked by the profile's engine, and SQL by the engine it is written for."""

import json

import pytest

from millpond.core.errors import CheckFailed
from millpond.platform.platform import open_project
from millpond.platform.tables import check, ingest_declared, refresh
from millpond.platform.training_sets import read_rows, training_set

DEFINITIONS = """
import millpond as mp

raw = mp.Table("raw", key="id", time="at", source="raw.csv", checks=[mp.not_null("temp"), mp.in_range("temp", 0, 9)])


@mp.table(raw, key="origin", checks=[mp.unique("origin"), mp.check("warm", mp.col("temp") > 1)])
def by_origin(rows):
    return rows.group_by("origin").agg(mp.col("temp").mean())


sparks = mp.sql_table(
    "sparks", raw, engine="spark", key="hour",
    query="SELECT date_trunc('HOUR', at) AS hour, count(*) AS n FROM raw GROUP BY ALL",
)
ducks = mp.sql_table(
    "ducks", raw, engine="duckdb", key="hour",
    query="SELECT date_trunc('hour', \\"at\\") AS hour, count(*) AS n FROM raw GROUP BY ALL",
)

recent = mp.Features(
    "recent",
    entity=mp.Entity("place", key="origin"),
    source=raw,
    n=mp.count(over="5h"),
    mean=mp.mean("temp", over="5h"),
    last=mp.latest("temp"),
)
warm = mp.Model(
    "warm", task=mp.Classification(label=mp.col("temp") >= 5), examples=raw, at="at", inputs=[recent],
    estimator="lightgbm",
)
"""
ROWS = "".join(f"{n},{('JFK', 'LGA')[n % 2]},2013-01-01T{n:02}:30:00Z,{n % 10}\n" for n in range(24))


pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def project(folder, engine):
    conf = json.dumps({"spark.driver.memory": "1g", "spark.sql.shuffle.partitions": "2"}).replace(": ", " = ")
    (folder / "millpond.toml").write_text(
        f'[project]\nname = "p"\n[profiles.local]\nengine = "{engine}"\nthreads = 2\n'
        f"[profiles.local.spark]\nconf = {conf}\n"
    )
    (folder / "definitions.py").write_text(DEFINITIONS)
    (folder / "raw.csv").write_text("id,origin,at,temp\n" + ROWS)
    platform = open_project(folder)
    ingest_declared(platform)
    return platform


def test_a_training_set_is_the_same_on_both(tmp_path):
    found = {}
    for engine in ("duckdb", "spark"):
        (tmp_path / engine).mkdir()
        platform = project(tmp_path / engine, engine)
        model = platform.definitions.models["warm"]
        made = training_set(platform, model, {"raw": platform.lake.snapshot("raw")})
        found[engine] = made.counts, read_rows(platform, made).sort_by("id").to_pylist()
    assert found["spark"] == found["duckdb"]
    assert len(found["spark"][1]) == 24


@pytest.mark.parametrize("engine", ["duckdb", "spark"])
def test_a_walk(tmp_path, engine):
    platform = project(tmp_path, engine)
    tables = platform.definitions.tables.values()
    first = refresh(platform, tables)
    assert refresh(platform, tables) == first
    with platform.engine() as judge:
        assert judge.rows(f"SELECT * FROM {judge.scan(first['by_origin'])} ORDER BY 1") == [
            ("JFK", pytest.approx(42 / 12)),
            ("LGA", pytest.approx(54 / 12)),
        ]
        sparks, ducks = (judge.rows(f"SELECT * FROM {judge.scan(first[n])} ORDER BY 1") for n in ("sparks", "ducks"))
    assert sparks == ducks
    assert len(sparks) == 24
    assert [each.passed for each in check(platform)] == [True] * 4
    (tmp_path / "raw.csv").write_text("id,origin,at,temp\n" + ROWS.replace(",9\n", ",11\n"))
    ingest_declared(platform)
    with pytest.raises(CheckFailed, match="2 of 24 rows"):
        refresh(platform, tables)
