from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pytest

import millpond as mp
from millpond.core.errors import CheckFailed, DataError, DefinitionError, NotFound
from millpond.lake.sql_text import sql_text
from millpond.quality.results import TABLE, require, store_results
from millpond.quality.run import run_checks

NOW = datetime(2013, 1, 10, tzinfo=UTC)
AIRLINES = mp.Table("airlines")


@pytest.fixture
def snapshots(lake):
    rows = {
        "id": [1, 2, 3, 4, 5, 6],
        "origin": ["JFK", "JFK", "LGA", "EWR", None, "it's"],
        "carrier": ["AA", "AA", "ZZ", "ZZ", None, "UA"],
        "delay": [-5, 0, 100, None, 7, 2000],
        "score": [0.1, float("nan"), None, 0.4, 0.5, 0.6],
        "day": [date(2013, 1, 1)] * 6,
        "at": [NOW - timedelta(days=n) for n in (5, 4, 3, 2, 9, 8)],
        "ok": [True, True, False, None, True, True],
    }
    return {
        "flights": lake.append("flights", pa.table(rows)),
        "airlines": lake.append("airlines", pa.table({"code": ["AA", "UA", None]})),
        "empty": lake.append("empty", pa.table(rows).slice(0, 0)),
    }


@pytest.fixture
def run(engine, snapshots):
    def call(*checks, table="flights", **declared):
        declared = {"key": "id", "time": "at"} | declared
        return run_checks(
            engine, mp.Table(table, checks=checks, **declared), snapshots[table], targets=snapshots, now=NOW
        )

    return call


FAILING = {
    "null": (mp.not_null("origin", "delay"), 2, ("id=4, origin=EWR, delay=null", "id=5, origin=null, delay=7")),
    "nan is null": (mp.not_null("score"), 2, ("id=2, score=null", "id=3, score=null")),
    "range": (mp.in_range("delay", -1, 100), 2, ("id=1, delay=-5", "id=6, delay=2000")),
    "range of instants": (mp.in_range("at", min=NOW - timedelta(days=8)), 1, ("id=5, at=2013-01-01T00:00:00Z",)),
    "range of dates": (mp.in_range("day", max=date(2012, 1, 1)), 6, None),
    "range of numbers": (mp.in_range("score", max=0.4), 2, ("id=5, score=0.5", "id=6, score=0.6")),
    "values": (mp.accepted_values("origin", ["JFK", "LGA", "it's"]), 1, ("id=4, origin=EWR",)),
    "no values": (mp.accepted_values("origin", []), 5, None),
    "unique": (mp.unique("carrier"), 2, ("carrier=AA (2 times)", "carrier=ZZ (2 times)")),
    "unique pair": (mp.unique("origin", "carrier"), 1, ("origin=JFK, carrier=AA (2 times)",)),
    "foreign key": (mp.foreign_key("carrier", AIRLINES, "code"), 2, ("carrier=ZZ (2 times)",)),
    "custom": (mp.check("short", mp.col("delay") < 50), 3, ("id=3, delay=100", "id=4, delay=null", "id=6, delay=2000")),
    "flag": (mp.check("ok", mp.col("ok")), 2, ("id=3, ok=False", "id=4, ok=null")),
    "fresh": (mp.fresh("1d"), 1, ()),
    "rows": (mp.row_count(7), 1, ()),
    "fewer rows": (mp.row_count(max=5), 1, ()),
}


@pytest.mark.parametrize("case", FAILING, ids=str)
def test_failing(run, case):
    check, violations, examples = FAILING[case]
    [result] = run(check)
    assert not result.passed
    assert (result.violations, result.rows) == (violations, 6)
    assert result.examples == examples if examples is not None else len(result.examples) == 5 or violations < 5
    assert result.detail
    with pytest.raises(CheckFailed) as caught:
        require([result])
    assert check.name in str(caught.value)
    assert "test_checks.py" in caught.value.where


PASSING = [
    mp.not_null("id", "at"),
    mp.in_range("delay", -5, 2000),
    mp.in_range("delay", max=2000),
    mp.in_range("at", max=NOW),
    mp.accepted_values("origin", ["JFK", "LGA", "EWR", "it's"]),
    mp.accepted_values("ok", [True, False]),
    mp.unique("id"),
    mp.unique("origin", "delay"),
    mp.fresh("2d"),
    mp.fresh("2d", "at"),
    mp.row_count(6, 6),
    mp.row_count(1),
    mp.foreign_key("carrier", AIRLINES, "code", tolerate=0.5),
    mp.check("has a day", mp.col("day") > date(2000, 1, 1)),
    mp.check("mostly short", mp.col("delay") < 50, tolerate=0.5),
    mp.not_null("origin", tolerate=1 / 6),
]


def test_passing(run):
    results = run(*PASSING)
    assert [result.check for result in results] == [check.name for check in PASSING]
    assert [result.check for result in results if not result.passed] == []
    assert all(result.examples == () for result in results)
    require(results)


def test_an_empty_table(run):
    checks = [mp.not_null("id"), mp.unique("id"), mp.in_range("delay", 0), mp.check("c", mp.col("delay") > 0)]
    checks += [mp.foreign_key("carrier", AIRLINES, "code"), mp.fresh("9d"), mp.row_count(1), mp.row_count(0)]
    results = run(*checks, table="empty")
    assert [result.passed for result in results] == [True] * 5 + [False, False, True]


def test_tolerance_is_a_share_of_all_rows(run):
    strict, loose = run(mp.not_null("origin", tolerate=0.16), mp.not_null("origin", tolerate=0.17))
    assert (strict.passed, loose.passed) == (False, True)
    assert "16.6667%, tolerated 16.0000%" in strict.detail


def test_all_row_wise_checks_are_one_query(run, engine, monkeypatch):
    queries = []
    rows = engine.rows
    monkeypatch.setattr(engine, "rows", lambda sql: queries.append(sql) or rows(sql))
    run(*(check for check in PASSING if check.kind not in ("unique", "foreign_key")))
    assert len(queries) == 1


def test_a_warning_does_not_stop_the_walk(run):
    results = run(mp.not_null("origin", severity="warn"), mp.not_null("id"))
    assert [result.passed for result in results] == [False, True]
    require(results)


def test_every_blocking_failure_is_listed(run):
    results = run(mp.not_null("origin"), mp.row_count(100), mp.unique("id"), mp.in_range("delay", 0, severity="warn"))
    with pytest.raises(CheckFailed) as caught:
        require(results)
    lines = caught.value.what.splitlines()
    assert lines[0] == '2 blocking checks fail on "flights":'
    assert lines[1].strip() == "flights: not_null(origin): 1 of 6 rows; such as id=5, origin=null"
    assert lines[2].strip() == "flights: row_count(100..None): there are 6 rows"


def test_results_are_a_table(run, lake, engine, read):
    results = run(mp.not_null("origin"), mp.row_count(1))
    snapshot = store_results(lake, results)
    store_results(lake, results)
    assert lake.snapshot(TABLE).rows == 4
    columns = "check severity passed violations rows detail examples checked_at snapshot_id"
    found = read(snapshot, sql_text(engine.dialect).names(columns.split()))
    assert found == [
        ("not_null(origin)", "block", False, 1, 6, "1 of 6 rows", "id=5, origin=null", NOW, results[0].snapshot_id),
        ("row_count(1..None)", "block", True, 0, 6, "", "", NOW, results[0].snapshot_id),
    ]
    assert store_results(lake, []) is None


def test_no_checks(run):
    assert run() == []


def test_checks_that_cannot_be_run(run, engine, snapshots):
    with pytest.raises(DataError, match='column "orign"') as caught:
        run(mp.not_null("orign"))
    assert "'origin'" in caught.value.hint
    with pytest.raises(DefinitionError, match="needs a time"):
        run(mp.fresh("1d"), time=None)
    with pytest.raises(DataError, match="holds no instants"):
        run(mp.fresh("1d", "delay"))
    with pytest.raises(NotFound, match='needs table "planes"'):
        run(mp.foreign_key("origin", mp.Table("planes"), "tail"))
    with pytest.raises(DataError, match='column "kode"'):
        run(mp.foreign_key("carrier", AIRLINES, "kode"))
    with pytest.raises(DataError, match="gives Int64, not true or false"):
        run(mp.check("x", mp.col("delay") + 1))
    with pytest.raises(DataError, match="odd.* cannot be computed") as caught:
        run(mp.check("odd", mp.col("origin") > mp.col("delay")))
    assert "test_checks.py" in caught.value.where
    with pytest.raises(DefinitionError, match="names no time zone"):
        run(mp.in_range("at", min=datetime(2013, 1, 1)))
