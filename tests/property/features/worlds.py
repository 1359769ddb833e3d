"""Random tables, views and examples, small and full of coincidences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

import millpond as mp

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
INSTANT = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [
        ("g", pa.string()),
        ("h", pa.int64()),
        ("id", pa.int64()),
        ("name", pa.string()),
        ("time", INSTANT),
        ("known", INSTANT),
        ("whole", pa.int64()),
        ("small", pa.int32()),
        ("real", pa.float64()),
        ("round", pa.float64()),
        ("money", pa.decimal128(10, 2)),
        ("huge", pa.decimal128(38, 4)),
        ("text", pa.string()),
        ("flag", pa.bool_()),
        ("day", pa.date32()),
        ("stamp", INSTANT),
    ]
)
SPINE = pa.schema([("row", pa.int64()), ("g", pa.string()), ("h", pa.int64()), ("at", INSTANT)])
NUMBERS = ("whole", "small", "real", "round", "money", "huge", "flag")
COLUMNS = (*NUMBERS, "text", "day", "stamp")
STEPS = ("1us", "1s", "3s", "5s", "12s", "40s", "90s", "7m")


@dataclass(frozen=True)
class Source:
    """Rows of one table, and a view of it."""

    view: mp.Features
    rows: list[dict[str, Any]]

    def table(self) -> pa.Table:
        return pa.Table.from_pylist(self.rows, schema=SCHEMA)


@dataclass(frozen=True)
class Case:
    """Views of tables, and examples."""

    sources: tuple[Source, ...]
    spine: list[dict[str, Any]]

    @property
    def view(self) -> mp.Features:
        """The view of a case that has one."""
        (source,) = self.sources
        return source.view

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of the table of a case that has one."""
        (source,) = self.sources
        return source.rows

    def examples(self) -> pa.Table:
        return pa.Table.from_pylist(self.spine, schema=SPINE)


def instants() -> st.SearchStrategy[datetime]:
    """Mostly whole seconds around the epoch, so that they meet each other and the windows' ends."""
    seconds = st.integers(-30, 60) | st.integers(-2000, 2000)
    near = st.sampled_from([0, 0, 0, 0, 1, -1, 500_000])
    return st.builds(lambda s, us: EPOCH + timedelta(seconds=s, microseconds=us), seconds, near)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(strategy, strategy, strategy, st.none())


def groups() -> st.SearchStrategy[Any]:
    return st.sampled_from(["a", "a", "a", "b", "c", None])


@st.composite
def rows(draw: st.DrawFn, number: int) -> dict[str, Any]:
    time = draw(maybe(instants()) if draw(st.integers(0, 5)) == 0 else instants())
    late = draw(st.sampled_from([0, 0, 0, -4, 1, 2, 3, 5, 12, 40, 300, None]))
    known = draw(maybe(instants())) if late is None else time and time + timedelta(seconds=late)
    return {
        "g": draw(groups()),
        "h": draw(st.sampled_from([1, 1, 2, None])),
        "id": number,
        "name": draw(st.sampled_from(["x", "y"])),
        "time": time,
        "known": known,
        "whole": draw(maybe(st.integers(-5, 5) | st.integers(-(2**55), 2**55))),
        "small": draw(maybe(st.integers(-3, 3))),
        "real": draw(maybe(st.sampled_from([0.1, 0.2, -0.3, 1e6, 7.25, 1e-3]))),
        "round": draw(maybe(st.integers(-4, 4).map(float))),
        "money": draw(maybe(st.integers(-300, 300).map(lambda cents: Decimal(cents) / 100))),
        "huge": draw(maybe(st.integers(-3, 3).map(lambda n: Decimal(n) * Decimal("1e30")))),
        "text": draw(maybe(st.sampled_from(["", "p", "q", "é", "z"]))),
        "flag": draw(maybe(st.booleans())),
        "day": draw(maybe(st.sampled_from([date(1969, 12, 31), date(2020, 2, 29)]))),
        "stamp": draw(maybe(instants())),
    }


def overs() -> st.SearchStrategy[str]:
    return st.sampled_from(STEPS)


def aggregations(*, timed: bool) -> st.SearchStrategy[mp.Features]:
    over = maybe(overs()) if timed else st.none()
    number, column = st.sampled_from(NUMBERS), st.sampled_from(COLUMNS)
    return st.one_of(
        st.builds(mp.count, maybe(column), over=over),
        st.builds(mp.sum, number, over=over),
        st.builds(mp.mean, number, over=over),
        st.builds(mp.std, number, over=over),
        st.builds(mp.min, column, over=over),
        st.builds(mp.max, column, over=over),
        st.builds(mp.nunique, column, over=over),
        st.builds(mp.first, column, over=over),
        st.builds(mp.latest, column, within=over),
    )


@st.composite
def views(draw: st.DrawFn, name: str = "view") -> mp.Features:
    timed = draw(st.integers(0, 7)) > 0
    key = draw(st.sampled_from(["id", "id", ("name", "id"), ()]))
    known = draw(st.sampled_from([None, "known", "known", "time"])) if timed else None
    table = mp.Table(f"{name}_events", key=key, time="time" if timed else None, known=known)
    features = draw(st.lists(aggregations(timed=timed), min_size=1, max_size=9))
    return mp.Features(
        name,
        entity=mp.Entity("thing", key=draw(st.sampled_from(["g", "g", ("g", "h"), ("h", "g")]))),
        source=table,
        every=draw(st.sampled_from([None, None, None, "1s", "7s", "1m"])),
        **{f"f{number}": each for number, each in enumerate(features)},
    )


@st.composite
def sources(draw: st.DrawFn, name: str = "view", most: int = 25) -> Source:
    return Source(draw(views(name)), [draw(rows(number)) for number in range(draw(st.integers(0, most)))])


@st.composite
def spines(draw: st.DrawFn, events: Sequence[dict[str, Any]], most: int = 12) -> list[dict[str, Any]]:
    """Examples, many of them at the instants of events."""
    met = [
        time + timedelta(seconds=s) for row in events for time in (row["time"], row["known"]) if time for s in (0, 3)
    ]
    at = st.one_of(instants(), st.sampled_from(met)) if met else instants()
    at = maybe(at) if draw(st.integers(0, 3)) == 0 else at
    spine: list[dict[str, Any]] = []
    for number in range(draw(st.integers(1, most))):
        again = spine and draw(st.integers(0, 5)) == 0
        where = dict(spine[-1]) if again else {"g": draw(groups()), "h": draw(st.sampled_from([1, 2])), "at": draw(at)}
        spine.append({**where, "row": number})
    return spine


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """One view of one table."""
    source = draw(sources())
    return Case((source,), draw(spines(source.rows)))


@st.composite
def wide_cases(draw: st.DrawFn, views: int, examples: int) -> Case:
    """Views of as many tables, and as many examples: for engines that take long over a join, whatever its size."""
    drawn = [draw(sources(f"view{number}")) for number in range(views)]
    spine = draw(spines([row for source in drawn for row in source.rows], most=examples))
    return Case(tuple(drawn), spine)


def crowded_case(seed: int, views: int = 1) -> Case:
    """Larger tables than `cases` draws: few entities and instants, so that everything happens at once."""
    random = Random(seed)
    crowded = tuple(_crowded_source(random, f"view{number}") for number in range(views))
    ends = [time for source in crowded for row in source.rows for time in (row["time"], row["known"])]
    spine = []
    for number in range(100):
        back = timedelta(seconds=random.choice([0, 0, 0, 1, 5, 40, 120]), microseconds=random.choice([0, 0, 0, 0, 1]))
        g = random.choice(["a", "a", "a", "b", "c"])
        spine.append({"row": number, "g": g, "h": 1, "at": random.choice(ends) + back})
    return Case(crowded, spine)


def _crowded_source(random: Random, name: str) -> Source:
    known, key = random.choice([None, "known", "known", "known"]), random.choice(["id", ("name", "id"), ()])
    table = mp.Table(f"{name}_events", key=key, time="time", known=known)
    features: list[mp.Features] = []
    for over in ("1us", "1s", "5s", "40s", "2m", None):
        number, column = random.choice(NUMBERS), random.choice(COLUMNS)
        features += [mp.count(over=over), mp.sum(number, over=over), mp.mean(number, over=over)]
        features += [mp.std(number, over=over), mp.min(column, over=over), mp.max(column, over=over)]
        features += [mp.nunique(column, over=over), mp.first("text", over=over), mp.latest("whole", within=over)]
    view = mp.Features(
        name,
        entity=mp.Entity("thing", key="g"),
        source=table,
        every=random.choice([None, None, None, "7s"]),
        **{f"f{number}": each for number, each in enumerate(random.sample(features, 24))},
    )
    length, lates = (
        random.choice([20, 100, 400]),
        random.choice([[0, 0, 0, 3], [1, 2, 5, 40], [0, -5, 5, 60, 119, 120, 121]]),
    )
    return Source(view, [_crowded_row(random, number, length, lates) for number in range(random.choice([30, 150]))])


def _crowded_row(random: Random, number: int, length: int, lates: list[int]) -> dict[str, Any]:
    time = EPOCH + timedelta(seconds=random.randrange(-length // 2, length // 2))
    values = {
        "whole": random.choice([number, number, 2**40 + number, -number]),
        "small": random.randrange(-5, 5),
        "real": random.choice([0.1, 0.2, -0.3, 7.25, 1e6]),
        "round": float(random.randrange(-9, 9)),
        "money": Decimal(random.randrange(-500, 500)) / 100,
        "huge": Decimal(random.randrange(-3, 3)) * Decimal("1e30"),
        "text": f"t{number}",
        "flag": random.random() < 0.5,
        "day": date(2020, 1, 1) + timedelta(days=random.randrange(9)),
        "stamp": time,
    }
    values = {name: None if random.random() < 0.1 else value for name, value in values.items()}
    row = {"g": random.choice(["a", "a", "a", "b"]), "h": 1, "id": (number * 7919) % 1009, "name": random.choice("xy")}
    return {**row, "time": time, "known": time + timedelta(seconds=random.choice(lates)), **values}
