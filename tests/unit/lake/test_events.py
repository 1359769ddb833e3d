"""Pushed events: checked against their table, landed once a key, kept where the table is overwritten."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

import millpond as mp
from millpond.core.errors import DataError, SchemaMismatch
from millpond.lake.derive import derive
from millpond.lake.events import (
    Limits,
    conform_events,
    empty_events,
    land,
    newest_of_key,
    pushed_table,
    with_pushed,
)
from millpond.lake.ingest import ingest
from millpond.lake.lineage import Lineage
from millpond.lake.ports import Column

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
LIMITS = Limits(NOW)
COLUMNS = (
    Column("id", "long"),
    Column("at", "timestamptz"),
    Column("seen", "timestamptz"),
    Column("size", "int"),
    Column("price", "decimal(9, 2)"),
    Column("tags", "list<string>"),
    Column("score", "double"),
)


def orders(**options):
    return mp.Table("orders", key="id", time="at", **options)


def event(**columns):
    return {"id": 1, "at": "2026-05-01T10:00:00Z", **columns}


def test_events_get_the_columns_and_types_of_their_table():
    found = conform_events(orders(), COLUMNS, [event(size="3", price=1.5, score=float("nan"))], LIMITS)
    assert found.to_pylist() == [
        {
            "id": 1,
            "at": datetime(2026, 5, 1, 10, tzinfo=UTC),
            "seen": None,
            "size": 3,
            "price": pytest.approx(1.5),
            "score": None,
        }
    ]
    assert found.schema.field("size").type == pa.int32()
    assert found.schema.field("price").type == pa.decimal128(9, 2)


def test_arrow_data_is_taken_as_well():
    rows = pa.table({"id": [1, 2], "at": pa.array([NOW, NOW], pa.timestamp("ms", "UTC")), "score": [1.0, float("nan")]})
    found = conform_events(orders(), COLUMNS, rows, LIMITS)
    assert found["score"].to_pylist() == [1.0, None]
    assert found["at"].type == pa.timestamp("us", "UTC")
    assert found.column_names == ["id", "at", "seen", "size", "price", "score"]


def test_an_event_becomes_known_when_it_is_received_unless_it_says_otherwise():
    told = conform_events(orders(known="seen"), COLUMNS, [event(), event(seen="2026-05-01T11:00:00Z")], LIMITS)
    assert told["seen"].to_pylist() == [NOW, datetime(2026, 5, 1, 11, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("row", "error", "what", "where"),
    [
        ({"at": "2026-05-01T10:00:00Z"}, DataError, '"id", the key of Table "orders", is missing', "event 1"),
        ({"id": 1}, DataError, '"at", the time of Table "orders", is missing', "event 1"),
        (event(at="2026-05-01T12:02:00Z"), DataError, "lies in the future", "event 1"),
        (event(at="2026-05-01T10:00:00"), SchemaMismatch, "names no time zone", "event 1"),
        (event(size="large"), SchemaMismatch, "'large' is no value for \"size\"", "event 1"),
        (event(sise=1), SchemaMismatch, 'no column "sise"', "event 1"),
        (event(tags=["a"]), DataError, "cannot be pushed", ""),
        (event(size=2**40), SchemaMismatch, "does not fit int", ""),
    ],
)
def test_bad_events_are_refused_with_their_place(row, error, what, where):
    with pytest.raises(error, match=what.replace('"', '"')) as caught:
        conform_events(orders(), COLUMNS, [event(), row], LIMITS)
    assert where in caught.value.where or not where


def test_a_clock_may_be_a_little_ahead():
    conform_events(orders(), COLUMNS, [event(at="2026-05-01T12:00:30Z")], LIMITS)


def test_events_later_than_the_table_allows_are_refused():
    limits = Limits(NOW, oldest=NOW - timedelta(hours=1))
    with pytest.raises(DataError, match="later than .* allows") as caught:
        conform_events(orders(lateness="1h"), COLUMNS, [event()], limits)
    assert "lateness=" in caught.value.hint


def test_a_table_without_a_key_takes_no_events():
    with pytest.raises(DataError, match="no key"):
        conform_events(mp.Table("orders", time="at"), COLUMNS, [event()], LIMITS)


def test_the_first_events_of_a_table_say_its_types():
    table = mp.Table("clicks", key="id", time="at", types={"code": "string", "price": "decimal"})
    found = empty_events(table, [{"id": 1, "at": "2026-05-01T10:00:00Z", "ok": True, "code": None}])
    assert found.num_rows == 0
    kinds = {field.name: str(field.type) for field in found.schema}
    assert kinds == {"id": "int64", "at": "timestamp[us, tz=UTC]", "ok": "bool", "code": "string"}
    with pytest.raises(DataError, match="its type is not known"):
        empty_events(table, [{"id": 1, "note": None}])
    with pytest.raises(DataError, match="several types"):
        empty_events(table, [{"id": 1, "note": "x"}, {"id": 2, "note": 3}])


def test_the_newest_state_of_a_key_wins():
    rows = pa.table({"id": [1, 2, 1], "size": [1, 2, 3]})
    assert newest_of_key(rows, ["id"]).to_pylist() == [{"id": 2, "size": 2}, {"id": 1, "size": 3}]


def test_landing_twice_is_landing_once_and_keeps_the_table_up_to_date(lake, read):
    table = orders()
    first = lake.append("orders", pa.table({"id": [1, 2], "size": [1, 2]}), properties={"source": "abc"})
    rows = pa.table({"id": [2, 3, 3], "size": [20, 30, 31]})
    for _ in range(2):
        landed = land(lake, table, rows, "1-3")
        assert read(landed, "id, size") == [(1, 1), (2, 20), (3, 31)]
    assert landed.properties["source"] == "abc"
    assert landed.properties["events"] == "1-3"
    again = land(lake, table, pa.table({"id": [4], "size": [4]}), "4-4")
    lineage = Lineage(lake.root)
    assert lineage.only_landed_since("orders", first.id)
    assert lineage.only_landed_since("orders", landed.id)
    assert lineage.only_landed_since("orders", again.id)
    assert not lineage.only_landed_since("orders", 12345)
    later = lake.append("orders", pa.table({"id": [9], "size": [9]}))
    assert not lineage.only_landed_since("orders", first.id)
    assert lineage.only_landed_since("orders", later.id)
    last = land(lake, table, rows, "5-7")
    assert not lineage.only_landed_since("orders", again.id)
    assert lineage.only_landed_since("orders", later.id)
    assert lineage.only_landed_since("orders", last.id)


def test_a_table_that_is_overwritten_keeps_its_pushed_rows(lake, engine):
    table = orders(mode="overwrite")
    lake.append("orders", pa.table({"id": [1], "size": [1]}))
    land(lake, table, pa.table({"id": [1, 5], "size": [11, 55]}), "1-2")
    engine.register("fresh", pa.table({"id": [1, 2], "size": [100, 200], "new": [True, True]}))
    pushed = lake.snapshot(pushed_table("orders"))
    query = with_pushed(engine, "fresh", ["id", "size", "new"], pushed, ["id"])
    assert sorted(engine.rows(query)) == [(1, 100, True), (2, 200, True), (5, 55, None)]
    assert sorted(engine.rows(with_pushed(engine, "fresh", ["id"], None, ["id"]))) == [(1,), (2,)]


def test_deriving_again_keeps_pushed_rows_that_the_derivation_says_nothing_of(lake, engine, read):
    raw = mp.Table("raw")
    lake.append("raw", pa.table({"id": [1, 2], "size": [1, 2]}))
    table = mp.sql_table("orders", raw, query="SELECT id, size * 10 AS size FROM raw", key="id")
    derive(lake, engine, table, {"raw": lake.snapshot("raw")})
    land(lake, table, pa.table({"id": [2, 7], "size": [0, 70]}), "1-2")
    assert derive(lake, engine, table, {"raw": lake.snapshot("raw")}).skipped
    lake.append("raw", pa.table({"id": [3], "size": [3]}))
    again = derive(lake, engine, table, {"raw": lake.snapshot("raw")})
    assert read(again.snapshot, "id, size") == [(1, 10), (2, 20), (3, 30), (7, 70)]


def test_ingesting_over_a_table_keeps_pushed_rows_that_the_file_says_nothing_of(lake, engine, read):
    table = orders(mode="overwrite")
    moment = pa.array([NOW, NOW], pa.timestamp("us", "UTC"))
    ingest(lake, engine, table, pa.table({"id": [1, 2], "at": moment}))
    land(lake, table, pa.table({"id": [2, 7], "at": moment}), "1-2")
    done = ingest(lake, engine, table, pa.table({"id": [2, 3], "at": moment}))
    assert read(done.snapshot, "id") == [(2,), (3,), (7,)]
