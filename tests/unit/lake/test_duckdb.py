from datetime import UTC, datetime
from decimal import Decimal

import narwhals as nw
import pyarrow as pa
import pytest

from millpond.core.errors import DataError, Unavailable
from millpond.lake.duckdb import DuckDBEngine

AT = datetime(2013, 1, 1, 10, tzinfo=UTC)


@pytest.fixture
def relation(lake, engine):
    return engine.scan(lake.append("t", pa.table({"i": [1, 2, 3], "seen": [AT, AT, None], "s": ["a", "b", None]})))


def test_instants_are_aware_and_in_utc(engine, relation):
    [(at, text)] = engine.rows(f"SELECT seen, CAST(seen AS VARCHAR) FROM {relation} WHERE i = 1")
    assert at == AT
    assert at.tzinfo is UTC
    assert text.startswith("2013-01-01 10:00:00+00")


def test_a_snapshot_is_planned_once(lake, engine, relation):
    assert engine.scan(lake.snapshot("t")) == relation


def test_sums_of_integers_are_int64(engine, relation):
    [value] = engine.rows(f"SELECT sum(i) FROM {relation}")[0]
    assert type(value) is int
    reader = engine.reader(f"SELECT sum(i) AS total, CAST(1.5 AS DECIMAL(3, 1)) AS exact FROM {relation};")
    assert [str(type) for type in reader.schema.types] == ["int64", "decimal128(3, 1)"]
    assert reader.read_all().to_pylist() == [{"total": 6, "exact": Decimal("1.5")}]
    with pytest.raises(DataError):
        engine.rows("SELECT sum(9223372036854775807) FROM range(2)")


def test_streams_and_queries_do_not_get_in_each_others_way(engine, relation):
    with engine.session():
        engine.execute("CREATE TEMP TABLE numbers AS SELECT range AS n FROM range(300_000)")
        engine.register("given", pa.table({"n": [1, 2]}))
        readers = [engine.reader("SELECT * FROM numbers") for _ in range(2)]
        total = 0
        for batches in zip(*readers, strict=True):
            total += sum(batch.num_rows for batch in batches)
            assert engine.rows("SELECT count(*) FROM numbers SEMI JOIN given USING (n)") == [(2,)]
        assert total == 600_000


def test_a_session_drops_what_was_made_in_it(engine, relation):
    with engine.session():
        engine.execute("CREATE OR REPLACE TEMPORARY TABLE one AS SELECT 1 AS n")
        engine.execute("CREATE TEMP VIEW two AS SELECT * FROM one")
        engine.register("kept", pa.table({"n": [5]}))
        with engine.session():
            engine.execute("CREATE TEMP TABLE three AS SELECT 3 AS n")
            assert engine.rows("SELECT * FROM two, three") == [(1, 3)]
        assert engine.rows("SELECT * FROM two") == [(1,)]
    for name in ("one", "two", "three"):
        with pytest.raises(DataError, match=f'no table "{name}"'):
            engine.rows(f"SELECT * FROM {name}")
    assert engine.rows("SELECT * FROM kept") == [(5,)]
    assert engine.rows(f"SELECT count(*) FROM {relation}") == [(3,)]


def test_a_session_ends_after_an_error(engine):
    with pytest.raises(DataError), engine.session():  # noqa: PT012
        engine.execute("CREATE TEMP TABLE one AS SELECT 1 AS n")
        engine.execute("nonsense")
    engine.execute("CREATE TEMP TABLE one AS SELECT 2 AS n")


def test_registered_again(engine):
    engine.register("r", pa.table({"a": [1]}))
    engine.register("r", pa.table({"b": ["x", "y"]}))
    assert engine.rows("SELECT b FROM r ORDER BY 1") == [("x",), ("y",)]


def test_narwhals_there_and_back(engine, relation):
    frame = engine.lazy(relation).filter(nw.col("i") > 1).with_columns(hour=nw.col("seen").dt.hour())
    joined = frame.join(engine.lazy(relation).select("i", twin="s"), on="i")
    back = engine.to_sql(joined)
    assert engine.rows(f"SELECT i, hour, twin FROM {back} AS q ORDER BY i") == [(2, 10, "b"), (3, None, None)]
    assert engine.reader(f"SELECT * FROM {back} AS a JOIN {back} AS b USING (i)").read_all().num_rows == 2
    with pytest.raises(DataError, match="not a query of the engine"):
        engine.to_sql(nw.from_native(pa.table({"a": [1]})).lazy())


def test_errors_are_in_the_users_terms(engine, relation):
    with pytest.raises(DataError) as caught:
        engine.rows(f"SELECT ii FROM {relation}")
    assert caught.value.what == 'There is no column "ii"'
    assert "'i'" in caught.value.hint
    assert "duckdb" not in str(caught.value).lower()
    reader = engine.reader("SELECT CASE WHEN range = 200_000 THEN error('late') ELSE range END FROM range(300_000)")
    with pytest.raises(DataError, match="late"):
        reader.read_all()


@pytest.mark.slow
def test_queries_spill(lake, tmp_path):
    engine = DuckDBEngine(lake, threads=1, memory_limit="100MB", temp_directory=tmp_path / "spill")
    with engine.session():
        engine.execute("CREATE TEMP TABLE big AS SELECT range AS i, hash(range)::VARCHAR AS s FROM range(2_500_000)")
        assert engine.rows("SELECT count(*), max(i) FROM (SELECT * FROM big ORDER BY s)") == [(2_500_000, 2_499_999)]
        assert sum(path.stat().st_size for path in (tmp_path / "spill").iterdir()) > 10_000_000
    engine.close()
    small = DuckDBEngine(lake, memory_limit="1MB", temp_directory=tmp_path / "spill")
    with pytest.raises(Unavailable, match="more memory"):
        small.rows("SELECT list(range) FROM range(1_000_000)")
    small.close()
