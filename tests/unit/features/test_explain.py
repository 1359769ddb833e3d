from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

import millpond as mp
from millpond.core.errors import DataError, RequestError
from millpond.features.explain import explain
from millpond.features.ports import PinnedView

INSTANT = pa.timestamp("us", tz="UTC")


def minute(number: float) -> datetime:
    return datetime(2013, 1, 1, tzinfo=UTC) + timedelta(minutes=number)


ROWS = pa.table(
    {
        "id": list(range(1, 9)),
        "origin": ["JFK"] * 7 + ["LGA"],
        "departed": pa.array([minute(10 * n) for n in range(8)], INSTANT),
        "arrived": pa.array([minute(10 * n + 25) for n in range(8)], INSTANT),
        "delay": [1.0, None, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
    }
)
flights = mp.Table("flights", key="id", time="departed")
view = mp.Features(
    "landings",
    entity=mp.Entity("airport", key="origin"),
    source=flights,
    known="arrived",
    n=mp.count(),
    mean=mp.mean("delay", over="1h"),
    worst=mp.max("delay", over="1us"),
    last=mp.latest("delay", within="1h"),
    old=mp.latest("delay", within="1m"),
    first=mp.first("delay"),
)


def explained(engine: Any, keys: dict[str, Any], at: datetime) -> dict[str, Any]:
    pinned = PinnedView(view, engine.add("flights", ROWS))
    return {each.name.removeprefix("landings__"): each for each in explain(engine, [pinned], keys, at)}


def test_each_value_comes_with_the_rows_behind_it(idle_engine: Any) -> None:
    found = explained(idle_engine, {"origin": "JFK"}, minute(80))
    assert list(found) == ["n", "mean", "worst", "last", "old", "first"]
    n, mean, last = found["n"], found["mean"], found["last"]
    assert (n.value, n.rows, n.visible_since) == (6, 6, minute(75))
    assert n.example_rows == ({"id": 6}, {"id": 5}, {"id": 4}, {"id": 3}, {"id": 2})
    assert n.table == "flights"
    assert (mean.value, mean.rows, mean.example_rows[-1]) == (4.5, 4, {"id": 3})
    assert (last.value, last.rows, last.visible_since, last.example_rows) == (6.0, 1, minute(75), ({"id": 6},))
    assert (found["first"].value, found["first"].example_rows) == (1.0, ({"id": 1},))
    for name in ("worst", "old"):
        assert (found[name].value, found[name].rows, found[name].visible_since) == (None, 0, None)


def test_an_unknown_or_null_entity_has_no_rows(idle_engine: Any) -> None:
    for key in ("SFO", None):
        found = explained(idle_engine, {"origin": key}, minute(80))
        assert (found["n"].value, found["n"].rows, found["n"].example_rows) == (0, 0, ())


def test_a_missing_key_and_a_naive_instant_are_refused(idle_engine: Any) -> None:
    with pytest.raises(RequestError, match="key 'origin' is missing"):
        explained(idle_engine, {}, minute(80))
    with pytest.raises(DataError, match="names no time zone"):
        explained(idle_engine, {"origin": "JFK"}, datetime(2013, 1, 1))


def test_facts_without_time_are_visible_always(idle_engine: Any) -> None:
    planes = mp.Features(
        "planes", entity=view.entity, source=mp.Table("planes", key="id"), n=mp.count("delay"), last=mp.latest("delay")
    )
    pinned = PinnedView(planes, idle_engine.add("planes", ROWS))
    n, last = explain(idle_engine, [pinned], {"origin": "JFK"}, minute(-99))
    assert (n.value, n.rows, n.visible_since) == (6, 6, None)
    assert (last.value, last.rows, last.example_rows) == (7.0, 1, ({"id": 7},))
