"""Values that a person can recompute, and what is refused. Random tables are in `tests/property/features`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

import millpond as mp
from millpond.core.errors import DataError, DefinitionError, SchemaMismatch, SettingsError
from millpond.features.point_in_time import join_features
from millpond.features.ports import PinnedView

INSTANT = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("origin", pa.string()),
        ("departed", INSTANT),
        ("arrived", INSTANT),
        ("delay", pa.float64()),
        ("seats", pa.int64()),
    ]
)
SPINE = pa.schema([("origin", pa.string()), ("at", INSTANT)])
flights = mp.Table("flights", key="id", time="departed")
airport = mp.Entity("airport", key="origin")


def minute(number: float) -> datetime:
    return datetime(2013, 1, 1, tzinfo=UTC) + timedelta(minutes=number)


def flight(
    id: int,
    departed: float,
    delay: float | None,
    *,
    arrived: float | None = None,
    seats: int = 100,
    origin: str = "JFK",
) -> dict[str, Any]:
    late = minute(departed + 60 if arrived is None else arrived)
    return {"id": id, "origin": origin, "departed": minute(departed), "arrived": late, "delay": delay, "seats": seats}


def features(
    engine: Any, view: mp.Features, rows: list[dict[str, Any]], *examples: tuple[str | None, float]
) -> list[tuple[Any, ...]]:
    """The features of each example, in order."""
    snapshot = engine.add("flights", pa.Table.from_pylist(rows, schema=SCHEMA))
    spine = [{"origin": origin, "at": minute(at)} for origin, at in examples]
    engine.register("spine", pa.Table.from_pylist(spine, schema=SPINE).append_column("n", pa.array(range(len(spine)))))
    relation = join_features(engine, "spine", "at", [PinnedView(view, snapshot)])
    columns = ", ".join(view.columns)
    return engine.rows(f"SELECT {columns} FROM {relation} ORDER BY n")


def view(**changes: Any) -> mp.Features:
    return mp.Features("traffic", **{"entity": airport, "source": flights, **changes})


ROWS = [
    flight(1, 0, 10.0),
    flight(2, 30, 20.0),
    flight(3, 60, None),
    flight(4, 60, 5.5),
    flight(5, 90, 7.0, origin="LGA"),
]


def test_a_window_begins_with_its_start_and_ends_before_the_instant(engine: Any) -> None:
    hour = view(n=mp.count(over="1h"), mean=mp.mean("delay", over="1h"), total=mp.sum("delay", over="1h"))
    found = features(engine, hour, ROWS, ("JFK", 0), ("JFK", 60), ("JFK", 60.001), ("JFK", 90), ("JFK", 500))
    assert found == [(0, None, None), (2, 15.0, 30.0), (3, 12.75, 25.5), (3, 12.75, 25.5), (0, None, None)]


def test_latest_breaks_ties_by_key_and_keeps_null(engine: Any) -> None:
    last = view(delay=mp.latest("delay"), fresh=mp.latest("delay", within="30m"), first=mp.first("seats"))
    assert features(engine, last, ROWS, ("JFK", 60), ("JFK", 61), ("JFK", 90), ("JFK", 90.001)) == [
        (20.0, 20.0, 100),
        (5.5, 5.5, 100),
        (5.5, 5.5, 100),
        (5.5, None, 100),
    ]
    swapped = [flight(4, 60, None), flight(3, 60, 5.5)]
    assert features(engine, last, swapped, ("JFK", 61))[0][0] is None


def test_a_row_is_not_visible_before_it_is_known(engine: Any) -> None:
    arrivals = view(known="arrived", n=mp.count(over="2h"), worst=mp.max("delay", over="2h"), last=mp.latest("delay"))
    rows = [flight(1, 0, 10.0, arrived=90), flight(2, 30, 20.0, arrived=40), flight(3, 50, 1.0, arrived=400)]
    assert features(engine, arrivals, rows, ("JFK", 40), ("JFK", 41), ("JFK", 91), ("JFK", 140), ("JFK", 401)) == [
        (0, None, None),
        (1, 20.0, 20.0),
        (2, 20.0, 20.0),
        (1, 20.0, 20.0),
        (0, None, 1.0),
    ]


def test_a_refreshed_view_has_the_value_of_the_last_grid_point(engine: Any) -> None:
    hourly = view(every="1h", n=mp.count())
    assert features(engine, hourly, ROWS, ("JFK", 59), ("JFK", 60), ("JFK", 119), ("JFK", 120)) == [
        (0,),
        (2,),
        (2,),
        (4,),
    ]


def test_entities_that_are_null_or_unknown_see_nothing(engine: Any) -> None:
    counts = view(n=mp.count(), kinds=mp.nunique("seats"), total=mp.sum("seats"))
    assert features(engine, counts, ROWS, (None, 100), ("SFO", 100)) == [(0, 0, None)] * 2


def test_integers_are_summed_exactly_and_refused_where_they_do_not_fit(engine: Any) -> None:
    large = 2**62
    rows = [flight(1, 0, None, seats=large), flight(2, 1, None, seats=large - 1), flight(3, 2, None, seats=large)]
    window = view(total=mp.sum("seats", over="2m"))
    assert features(engine, window, rows, ("JFK", 2)) == [(2**63 - 1,)]
    with pytest.raises(DataError, match=r"The sum traffic__total reaches 13835058055282163711") as error:
        features(engine, view(total=mp.sum("seats")), rows, ("JFK", 5))
    assert "'seats' of flights@" in error.value.where


def test_floats_are_not_cancelled_by_what_left_the_window(engine: Any) -> None:
    rows = [flight(1, 0, 1e17), flight(2, 10, 0.1), flight(3, 11, 0.2)]
    window = view(total=mp.sum("delay", over="5m"), mean=mp.mean("delay", over="5m"), spread=mp.std("delay", over="5m"))
    ((total, mean, spread),) = features(engine, window, rows, ("JFK", 12))
    assert (total, mean) == (pytest.approx(0.3, rel=1e-12), pytest.approx(0.15, rel=1e-12))
    assert spread == pytest.approx(0.05 * 2**0.5, rel=1e-9)


def test_infinite_values_do_not_stop_the_join(engine: Any) -> None:
    rows = [flight(1, 0, float("inf")), flight(2, 10, 1.0)]
    window = view(
        top=mp.max("delay", over="1h"), low=mp.min("delay"), total=mp.sum("delay", over="1h"), last=mp.latest("delay")
    )
    assert features(engine, window, rows, ("JFK", 12)) == [(float("inf"), 1.0, float("inf"), 1.0)]


def test_views_of_one_spine_stand_side_by_side(engine: Any) -> None:
    snapshot = engine.add("flights", pa.Table.from_pylist(ROWS, schema=SCHEMA))
    engine.register(
        "spine", pa.table({"origin": ["JFK", "JFK"], "at": pa.array([minute(60)] * 2, INSTANT), "weight": [1, 2]})
    )
    one, two = view(n=mp.count()), mp.Features("hourly", entity=airport, source=flights, every="2h", n=mp.count())
    relation = join_features(engine, "spine", "at", [PinnedView(one, snapshot), PinnedView(two, snapshot)])
    table = engine.table(f"SELECT * FROM {relation} ORDER BY weight")
    assert table.column_names == ["origin", "at", "weight", "traffic__n", "hourly__n"]
    assert [row["traffic__n"] for row in table.to_pylist()] == [2, 2]
    assert [row["hourly__n"] for row in table.to_pylist()] == [0, 0]


def test_no_views_give_the_spine(engine: Any) -> None:
    engine.register("spine", pa.table({"x": [1, 2]}))
    assert engine.rows(f"SELECT * FROM {join_features(engine, 'spine', None, [])} ORDER BY x") == [(1,), (2,)]


def test_what_cannot_be_joined_is_refused(engine: Any) -> None:
    snapshot = engine.add("flights", pa.Table.from_pylist(ROWS, schema=SCHEMA))
    engine.register("spine", pa.table({"origin": ["JFK"], "at": pa.array([minute(60)], INSTANT), "noted": ["x"]}))
    engine.register("numbers", pa.table({"origin": [1], "at": pa.array([minute(60)], INSTANT)}))
    good = PinnedView(view(n=mp.count()), snapshot)

    def refused(kind: type[Exception], message: str, spine: str, at: str | None, *views: PinnedView) -> None:
        with pytest.raises(kind, match=message):
            join_features(engine, spine, at, views)

    refused(DefinitionError, "joined twice", "spine", "at", good, good)
    refused(DefinitionError, "examples have no instant", "spine", None, good)
    refused(SchemaMismatch, "no column 'when'", "spine", "when", good)
    refused(SchemaMismatch, "'noted' of the examples is no instant", "spine", "noted", good)
    refused(SchemaMismatch, "'origin' is integer in the examples and string", "numbers", "at", good)
    text = PinnedView(view(total=mp.sum("origin", over="1h")), snapshot)
    refused(SchemaMismatch, "'origin' of flights@.* is string", "spine", "at", text)
    timed = PinnedView(view(time="delay", n=mp.count()), snapshot)
    refused(SchemaMismatch, "'delay' of flights@.* is double", "spine", "at", timed)
    gone = PinnedView(view(n=mp.max("dealy")), snapshot)
    refused(SchemaMismatch, "reads column 'dealy'", "spine", "at", gone)
    engine.register("taken", pa.table({"origin": ["JFK"], "at": pa.array([minute(60)], INSTANT), "traffic__n": [1]}))
    refused(DefinitionError, "already have a column 'traffic__n'", "taken", "at", good)


def test_an_engine_without_point_in_time_joins_is_refused(engine: Any) -> None:
    class Other:
        dialect = "ducksdb"

    with pytest.raises(SettingsError, match="no point-in-time joins for the engine 'ducksdb'"):
        join_features(Other(), "spine", "at", [])
