"""The shape of what Spark is asked: what makes it fast, and cannot be seen in values."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest

import millpond as mp
from millpond.features.assembly import Points
from millpond.features.plan import plan_view
from millpond.features.ports import PinnedView
from millpond.features.sql_spark.join import SparkDialect
from millpond.lake.ports import Column, Snapshot

TYPES = {"id": "long", "origin": "string", "at": "timestamptz", "known": "timestamptz", "delay": "double"}
SNAPSHOT = Snapshot("flights", 1, datetime.now(UTC), 10, tuple(Column(name, type_) for name, type_ in TYPES.items()))
POINTS = Points("points", "entities", ("origin",), "s.__us")


class Recorder:
    """An engine that runs nothing: it keeps the queries, and answers as told."""

    def __init__(self, *answers: tuple[Any, ...]) -> None:
        self.answers, self.queries = list(answers), {}

    def scan(self, snapshot: Snapshot) -> str:
        return snapshot.table

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return [self.answers.pop(0)]

    def materialize(self, name: str, query: str) -> None:
        self.queries[name] = " ".join(query.split())


def view(**changes: Any) -> mp.Features:
    table = mp.Table("flights", key="id", time="at", known=changes.pop("known", None))
    windows = {f"mean_{over}": mp.mean("delay", over=over) for over in ("1h", "1d", "7d", "30d")}
    return mp.Features(
        "v", entity=mp.Entity("airport", key="origin"), source=table, **windows, last=mp.latest("delay"), **changes
    )


def queries(view: mp.Features, *answers: tuple[Any, ...]) -> dict[str, str]:
    engine = Recorder((0, 10**15), *answers)
    list(SparkDialect().compute(engine, "j", plan_view(PinnedView(view, SNAPSHOT)), POINTS))
    return engine.queries


def sorts(query: str) -> set[str]:
    """The orders in which frames want their rows: partition and order together."""
    found = re.findall(r"PARTITION BY (.+?) ORDER BY (.+?) ROWS BETWEEN", query)
    return {f"{partition}, {order}" for partition, order in found}


def test_all_windows_of_a_view_are_one_query_of_two_sorts() -> None:
    (name, query), *others = queries(view()).items()
    assert (name, others) == ("j_sweep0", [])
    assert sorts(query) == {"eid, b1, b2, b3, b4, av, r", "eid, b1, b2, b3, b4, back, r DESC"}
    assert query.count(" JOIN ") == 1  # events with the entities of the examples
    assert "RANGE" not in query


def test_blocks_of_longer_windows_are_made_of_blocks_of_shorter_ones() -> None:
    hour = 3_600_000_000
    (query,) = queries(view()).values()
    widths = {int(width) for width in re.findall(r"us - pmod\(us, (\d+)\) AS b", query)}
    assert widths == {hour, 24 * hour, 7 * 24 * hour, 28 * 24 * hour}


@pytest.mark.parametrize(
    ("shares", "kept"),
    [
        ((0.0, 0.0, 0.0, 0.0, 0.0), ["j_events", "j_sweep0"]),
        ((0.9, 0.01, 0.02, 0.1, 0.9), ["j_events", "j_sweep0", "j_late1", "j_late2", "j_late3", "j_sweep1"]),
    ],
)
def test_rows_late_to_a_window_decide_what_shares_a_sort(shares: tuple[float, ...], kept: list[str]) -> None:
    found = list(queries(view(known="known"), shares))
    assert found[: len(kept)] == kept
    assert len(found) == len(kept) + 2 * (shares[-1] > 0)  # the hour goes alone where most rows are late to it
