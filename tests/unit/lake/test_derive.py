from datetime import UTC, datetime
from pathlib import Path

import narwhals as nw
import pyarrow as pa
import pytest

import millpond as mp
from millpond.core.errors import DataError, DefinitionError
from millpond.lake.derive import derive

AT = datetime(2013, 1, 1, 10, tzinfo=UTC)

weather = mp.Table("weather", key=("origin", "seen"), time="seen")
flights = mp.Table("flights")


@mp.table(weather, flights, key="origin")
def busy(sky, planes):
    counts = planes.group_by("origin").agg(flights=mp.col("flight").count())
    return sky.group_by("origin").agg(mp.col("temp").mean()).join(counts, on="origin", how="left")


@mp.table(weather)
def misspelt(sky):
    kept = sky.filter(mp.col("temp") > 0)
    return kept.select("origin", "tmp")  # the line that fails


@mp.table(weather, key="origin")
def repeated(sky):
    return sky.select("origin", "temp")


@mp.table(weather, key="orign")
def keyless(sky):
    return sky.select("origin", "temp")


@mp.table(weather, time="temp")
def timeless(sky):
    return sky.select("origin", "temp")


@mp.table(weather)
def eager(sky):
    return sky.collect()


@mp.table(weather)
def nothing(sky):
    sky.select("origin")


@mp.table(weather)
def late_failure(sky):
    return sky.select(mp.col("origin").cast(nw.Int64))


@pytest.fixture(params=["duckdb", pytest.param("spark", marks=pytest.mark.slow)])
def engine(request, new_engine, lake):
    return new_engine(request.param, lake)


@pytest.fixture
def inputs(lake):
    sky = pa.table({"origin": ["JFK", "JFK", "LGA"], "seen": [AT, AT.replace(hour=11), AT], "temp": [1.0, 3.0, None]})
    planes = pa.table({"origin": ["JFK", "JFK"], "flight": [1, 2]})
    return {"weather": lake.overwrite("weather", sky), "flights": lake.overwrite("flights", planes)}


@pytest.fixture
def read(engine):
    def rows(snapshot, columns="*"):
        return engine.rows(f"SELECT {columns} FROM {engine.scan(snapshot)} ORDER BY 1")

    return rows


def sql_table(engine, *args, **kwargs):
    return mp.sql_table(*args, engine=engine.dialect, **kwargs)


def test_by_a_function(lake, engine, inputs, read):
    done = derive(lake, engine, busy, inputs)
    assert not done.skipped
    assert done.snapshot.column_names == ("origin", "temp", "flights")
    assert read(done.snapshot) == [("JFK", 2.0, 2), ("LGA", None, None)]


def test_by_sql(lake, engine, inputs, read):
    query = """
        WITH warm AS (SELECT * FROM weather WHERE temp > 0)
        SELECT origin, max(seen) AS seen, sum(flight) AS total  -- the sum is an integer of 128 bits
        FROM warm JOIN flights USING (origin) GROUP BY origin;
    """
    done = derive(lake, engine, sql_table(engine, "t", weather, flights, query=query, time="seen"), inputs)
    assert read(done.snapshot) == [("JFK", AT.replace(hour=11), 6)]
    assert [column.type for column in done.snapshot.columns] == ["string", "timestamptz", "long"]


def test_it_is_done_again_only_when_something_changed(lake, engine, inputs):
    first = derive(lake, engine, busy, inputs)
    again = derive(lake, engine, busy, inputs)
    assert (again.skipped, again.snapshot) == (True, first.snapshot)
    assert not derive(lake, engine, busy, inputs, force=True).skipped
    changed = inputs | {"flights": lake.append("flights", pa.table({"origin": ["LGA"], "flight": [3]}))}
    assert not derive(lake, engine, busy, changed).skipped
    tables = [sql_table(engine, "s", weather, query=f"SELECT origin FROM weather LIMIT {n}") for n in (1, 1, 2)]
    assert [derive(lake, engine, table, inputs).skipped for table in tables] == [False, True, False]


def test_a_table_that_was_written_otherwise_is_derived_again(lake, engine, inputs):
    derive(lake, engine, busy, inputs)
    lake.overwrite("busy", pa.table({"origin": ["X"]}))
    assert not derive(lake, engine, busy, inputs).skipped


def test_pinned_inputs_are_read(lake, engine, inputs, read):
    lake.overwrite("weather", pa.table({"origin": ["other"]}))
    assert read(derive(lake, engine, busy, inputs).snapshot)[0][0] == "JFK"


SQL = {
    "column": ("SELECT origin,\n orign\nFROM weather", DataError, 'no column "orign"', "'origin'"),
    "table": ("SELECT * FROM wether", DataError, 'no table "wether"', "'weather'"),
    "undeclared": ("SELECT * FROM flights", DataError, 'no table "flights"', "among the inputs"),
    "syntax": ("SELEC origin FROM weather", DataError, "syntax error", ""),
    "value": ("SELECT CAST(origin AS INT) AS n FROM weather", DataError, "'JFK'", ""),
    "naive": (
        "SELECT CAST('2013-01-01 00:00:00' AS NAIVE) AS seen FROM weather",
        DataError,
        'without a time zone in column "seen"',
        "zone",
    ),
}


@pytest.mark.parametrize("case", SQL, ids=str)
def test_sql_that_fails(lake, engine, inputs, case):
    query, kind, says, hint = SQL[case]
    query = query.replace("NAIVE", "TIMESTAMP" if engine.dialect == "duckdb" else "TIMESTAMP_NTZ")
    with pytest.raises(kind, match=f"(?i){says}") as caught:
        derive(lake, engine, sql_table(engine, "t", weather, query=query), inputs)
    assert "test_derive.py:" in caught.value.where
    assert hint in caught.value.hint
    assert not lake.exists("t")


FUNCTIONS = {
    "misspelt": (misspelt, DataError, "there is no column .tmp", "temp"),
    "repeated": (repeated, DataError, "1 keys .origin. occur more than once: origin=JFK .2 times.", "one row a key"),
    "keyless": (keyless, DataError, 'gives no column "orign", which it declares as its key', "'origin'"),
    "timeless": (timeless, DataError, "holds numbers, not instants", ""),
    "eager": (eager, DefinitionError, "gives an eager frame", "collect"),
    "nothing": (nothing, DefinitionError, "gives NoneType, not a lazy frame", "return"),
    "late failure": (late_failure, DataError, "'JFK'", ""),
}


def test_the_line_of_a_failing_query_is_named(lake, engine, inputs):
    query = "\nSELECT origin,\n  CAST(origin AS INT AS n\nFROM weather"
    with pytest.raises(DataError, match="(?i)syntax") as caught:
        derive(lake, engine, sql_table(engine, "t", weather, query=query), inputs)
    assert "line 2 of the query" in caught.value.where


@pytest.mark.parametrize("case", FUNCTIONS, ids=str)
def test_functions_that_fail(lake, engine, inputs, case):
    table, kind, says, hint = FUNCTIONS[case]
    with pytest.raises(kind, match=says) as caught:
        derive(lake, engine, table, inputs)
    assert "test_derive.py:" in caught.value.where
    assert hint in caught.value.hint
    assert not lake.exists(table.name)


def test_the_line_of_a_failing_function_is_named(lake, engine, inputs):
    with pytest.raises(DataError) as caught:
        derive(lake, engine, misspelt, inputs)
    line = int(caught.value.where.rsplit(":", 1)[1])
    assert "the line that fails" in Path(__file__).read_text().splitlines()[line - 1]


def test_what_is_declared_wrongly(lake, engine, inputs):
    with pytest.raises(DefinitionError, match="is not derived"):
        derive(lake, engine, weather, inputs)
    with pytest.raises(DefinitionError, match='reads table "flights", and no snapshot'):
        derive(lake, engine, busy, {"weather": inputs["weather"]})
    other = "spark" if engine.dialect == "duckdb" else "duckdb"
    with pytest.raises(DefinitionError, match=f'written for engine "{other}"'):
        derive(lake, engine, mp.sql_table("t", weather, query="SELECT 1", engine=other), inputs)


def test_nothing_is_left_in_the_engine(lake, engine, inputs):
    derive(lake, engine, busy, inputs)
    with pytest.raises(DataError):
        engine.rows("SELECT * FROM __derived")
