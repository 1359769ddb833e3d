"""The training-set join against the same result written by hand in SQL: time, memory, and that the two are equal.

Each way runs in a fresh process, on the same Parquet files, on two threads and 4 GiB, and writes its result to a
Parquet file. `python -m benchmarks.training_set` prints the table; `run()` returns its rows.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import millpond as mp
from benchmarks import processes
from millpond.features.ports import PinnedView
from millpond.lake.ports import Column, Snapshot

_MEMORY, _THREADS = "4GiB", 2
_REPEATS = 3
_HOUR = 3600
WINDOWS = {"1h": _HOUR, "1d": 24 * _HOUR, "7d": 7 * 24 * _HOUR, "30d": 30 * 24 * _HOUR}


@dataclass(frozen=True)
class Case:
    """One shape of data.

    Attributes:
        name: Shown in the table.
        events: Rows of the feature table, over 60 days.
        entities: Entities they are about; one in a hundred rows is about the first ten.
        examples: Rows of the spine; one in ten lies exactly on an event, one in ten an hour after one.
        late: Whether one event in ten becomes known up to three days late, and the view says so.
    """

    name: str
    events: int
    entities: int
    examples: int
    late: bool


CASES = (
    Case("sparse", 1_000_000, 20_000, 100_000, late=False),
    Case("dense", 1_000_000, 200, 100_000, late=False),
    Case("late", 1_000_000, 20_000, 100_000, late=True),
)


def view(case: Case) -> mp.Features:
    """Twenty features: four kinds over four windows, the latest of three columns, and a count of everything."""
    features = {}
    for over in WINDOWS:
        features[f"n_{over}"] = mp.count(over=over)
        features[f"cents_{over}"] = mp.sum("cents", over=over)
        features[f"mean_{over}"] = mp.mean("amount", over=over)
        features[f"top_{over}"] = mp.max("amount", over=over)
    events = mp.Table("events", key="id", time="ts", known="known" if case.late else None)
    latest = {f"last_{column}": mp.latest(column) for column in ("amount", "balance", "category")}
    return mp.Features(
        "v", entity=mp.Entity("account", key="account"), source=events, n=mp.count(), **latest, **features
    )


class FileEngine:
    """DuckDB over Parquet files named after their tables: what the measured process needs of an engine."""

    dialect = "duckdb"

    def __init__(self, folder: Path) -> None:
        import duckdb

        self._folder = folder
        self._connection = duckdb.connect()
        for option in ("TimeZone = 'UTC'", f"threads = {_THREADS}", f"memory_limit = '{_MEMORY}'"):
            self.execute(f"SET {option}")
        self.execute(f"SET temp_directory = '{folder / 'spill'}'")
        self.execute("SET preserve_insertion_order = false")

    def scan(self, snapshot: Snapshot) -> str:
        return f"read_parquet('{self._folder / snapshot.table}.parquet')"

    def execute(self, sql: str) -> None:
        self._connection.execute(sql).fetchall()

    def materialize(self, name: str, query: str) -> None:
        self.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {query}")

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql).fetchall()

    def reader(self, sql: str) -> Any:
        return self._connection.sql(sql).to_arrow_reader(65_536)

    @contextmanager
    def session(self) -> Iterator[None]:
        yield


def by_millpond(engine: Any, case: Case) -> str:
    """The join, as a query."""
    from millpond.features.point_in_time import join_features

    types = {"id": "long", "account": "long", "ts": "timestamptz", "known": "timestamptz", "amount": "double"}
    types |= {"cents": "long", "balance": "double", "category": "string"}
    columns = tuple(Column(name, type_) for name, type_ in types.items())
    snapshot = Snapshot("events", 1, datetime.now(UTC), case.events, columns)
    spine = engine.scan(Snapshot("examples", 1, datetime.now(UTC), case.examples, ()))
    relation = join_features(engine, spine, "asked", [PinnedView(view(case), snapshot)])
    names = ", ".join(view(case).columns)
    return f"SELECT example, {names} FROM {relation}"


def latest_by_hand(case: Case) -> str:
    """De-duplicate by the tie rule, then ASOF; with late rows, only those that advance the state."""
    if case.late:
        steps = """
            SELECT * FROM (
                SELECT *, greatest(ts, known) AS seen, max(ts) OVER (
                    PARTITION BY account ORDER BY greatest(ts, known), ts, known, id
                    ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
                FROM events)
            WHERE before IS NULL OR ts >= before
            QUALIFY row_number() OVER (PARTITION BY account, seen ORDER BY ts DESC, known DESC, id DESC) = 1"""
    else:
        steps = """
            SELECT *, ts AS seen FROM events
            QUALIFY row_number() OVER (PARTITION BY account, ts ORDER BY id DESC) = 1"""
    return f"""
        SELECT l.example, e.amount AS v__last_amount, e.balance AS v__last_balance, e.category AS v__last_category
        FROM examples l ASOF LEFT JOIN ({steps}) e ON l.account = e.account AND l.asked > e.seen"""


def by_frames(engine: Any, case: Case) -> str:
    """Events and examples in one relation, a RANGE frame a window; what most experts would write."""
    del engine
    frames = ", ".join(
        f"w_{over} AS (PARTITION BY account ORDER BY ts RANGE BETWEEN INTERVAL '{seconds} seconds' PRECEDING "
        "AND INTERVAL '1 microsecond' PRECEDING)"
        for over, seconds in WINDOWS.items()
    )
    values = ", ".join(
        f"count(id) OVER w_{over} AS v__n_{over}, sum(cents) OVER w_{over} AS v__cents_{over}, "
        f"avg(amount) OVER w_{over} AS v__mean_{over}, max(amount) OVER w_{over} AS v__top_{over}"
        for over in WINDOWS
    )
    return f"""
        WITH mixed AS (
            SELECT account, ts, id, cents, amount, NULL::BIGINT AS example FROM events
            UNION ALL SELECT account, asked, NULL, NULL, NULL, example FROM examples),
        framed AS (
            SELECT example, count(id) OVER w AS v__n, {values} FROM mixed
            WINDOW w AS (PARTITION BY account ORDER BY ts RANGE BETWEEN UNBOUNDED PRECEDING
                AND INTERVAL '1 microsecond' PRECEDING), {frames})
        SELECT * FROM (SELECT * FROM framed WHERE example IS NOT NULL)
        JOIN ({latest_by_hand(case)}) USING (example)"""


def by_range_join(engine: Any, case: Case) -> str:
    """One join on the account and the instants, filtered aggregates; exact with late rows as it stands."""
    del engine
    values = ", ".join(
        f"count(*) FILTER (WHERE {inside}) AS v__n_{over}, sum(cents) FILTER (WHERE {inside}) AS v__cents_{over}, "
        f"avg(amount) FILTER (WHERE {inside}) AS v__mean_{over}, max(amount) FILTER (WHERE {inside}) AS v__top_{over}"
        for over, inside in ((o, f"e.ts >= l.asked - INTERVAL '{s} seconds'") for o, s in WINDOWS.items())
    )
    names = ", ".join(
        f"coalesce(v__n_{over}, 0) AS v__n_{over}, v__cents_{over}, v__mean_{over}, v__top_{over}" for over in WINDOWS
    )
    return f"""
        WITH joined AS (
            SELECT l.example, count(*) AS v__n, {values} FROM examples l JOIN events e
            ON e.account = l.account AND e.ts < l.asked {"AND e.known < l.asked" if case.late else ""}
            GROUP BY l.example)
        SELECT example, coalesce(v__n, 0) AS v__n, {names}, v__last_amount, v__last_balance, v__last_category
        FROM ({latest_by_hand(case)}) LEFT JOIN joined USING (example)"""


def by_tiles(engine: Any, case: Case) -> str:
    """Hour and day tiles and raw ends joined on equality, windows unnested; late rows joined raw. A tuned form."""
    windows = windows_by_tiles(engine, case)
    return f"SELECT * FROM ({windows}) JOIN ({latest_by_hand(case)}) USING (example)"


def windows_by_tiles(engine: Any, case: Case) -> str:
    """The features of `by_tiles` that are not the latest."""
    hour = _HOUR * 1_000_000
    safe = f"known // {hour} = us // {hour}" if case.late else "TRUE"
    engine.execute(f"""
        CREATE TEMP TABLE ev AS SELECT * FROM (
            SELECT account, epoch_us(ts) AS us, epoch_us(ts) // {hour} AS h, cents, amount,
                {"epoch_us(greatest(ts, known))" if case.late else "epoch_us(ts)"} AS known FROM events)""")
    engine.execute(f"""
        CREATE TEMP TABLE hours AS
        SELECT account, h, h // 24 AS d, count(*) AS n, count(amount) AS na, sum(cents) AS cents, sum(amount) AS s,
            max(amount) AS top FROM ev WHERE {safe} GROUP BY account, h""")
    engine.execute("""
        CREATE TEMP TABLE days AS
        SELECT account, d, sum(n) AS n, sum(na) AS na, sum(cents) AS cents, sum(s) AS s, max(top) AS top
        FROM hours GROUP BY account, d""")
    steps = ", ".join(f"('{over}', {seconds * 1_000_000}::BIGINT)" for over, seconds in WINDOWS.items())
    raw = "count(*) AS n, count(amount) AS na, sum(cents) AS cents, sum(amount) AS s, max(amount) AS top"
    tiles = "sum(n) AS n, sum(na) AS na, sum(cents) AS cents, sum(s) AS s, max(top) AS top"
    late = f"""
        UNION ALL SELECT example, k, {raw} FROM w JOIN (FROM ev WHERE NOT ({safe})) e
        ON e.account = w.account AND e.us >= w.lo AND e.known < w.us GROUP BY ALL"""
    pivoted = ", ".join(
        f"coalesce(max(n) FILTER (WHERE k = '{k}'), 0)::BIGINT AS v__n_{k}, "
        f"max(cents) FILTER (WHERE k = '{k}') AS v__cents_{k}, "
        f"max(s) FILTER (WHERE k = '{k}') / max(na) FILTER (WHERE k = '{k}' AND na > 0) AS v__mean_{k}, "
        f"max(top) FILTER (WHERE k = '{k}') AS v__top_{k}"
        for k in WINDOWS
    )
    everything = """
        SELECT example, sum(one) OVER (PARTITION BY account ORDER BY us, one ROWS UNBOUNDED PRECEDING) AS v__n
        FROM (SELECT NULL::BIGINT AS example, account, known AS us, 1 AS one FROM ev
              UNION ALL SELECT example, account, epoch_us(asked), 0 FROM examples) QUALIFY example IS NOT NULL"""
    return f"""
        WITH w AS (
            SELECT example, account, epoch_us(asked) AS us, epoch_us(asked) - s.size AS lo, s.k
            FROM examples, (VALUES {steps}) AS s (k, size)),
        parts AS (
            SELECT example, k, {raw}
            FROM (SELECT *, unnest(list_distinct([us // {hour}, lo // {hour}])) AS b FROM w) w
            JOIN (FROM ev WHERE {safe}) e
            ON e.account = w.account AND e.h = w.b AND e.us >= w.lo AND e.known < w.us GROUP BY ALL
            UNION ALL SELECT example, k, {tiles}
            FROM (SELECT *, unnest(list_distinct([us // {hour} // 24, lo // {hour} // 24])) AS b FROM w) w
            JOIN hours t ON t.account = w.account AND t.d = w.b AND t.h > w.lo // {hour} AND t.h < w.us // {hour}
            GROUP BY ALL
            UNION ALL SELECT example, k, {tiles}
            FROM (SELECT *, unnest(range(lo // {hour} // 24 + 1, us // {hour} // 24)) AS b FROM w) w
            JOIN days t ON t.account = w.account AND t.d = w.b GROUP BY ALL
            {late if case.late else ""}),
        merged AS (SELECT example, k, {tiles} FROM parts GROUP BY example, k),
        wide AS (SELECT example, {pivoted} FROM merged GROUP BY example)
        SELECT example, v__n, {", ".join(_window_names())} FROM ({everything}) LEFT JOIN wide USING (example)"""


def _window_names() -> list[str]:
    return [f"coalesce(v__n_{o}, 0) AS v__n_{o}, v__cents_{o}, v__mean_{o}, v__top_{o}" for o in WINDOWS]


WAYS = {"millpond": by_millpond, "frames": by_frames, "range join": by_range_join, "tiles": by_tiles}


def ways(case: Case) -> list[str]:
    """Those that are exact on the case, and end in good time.

    Frames cannot tell when a row became known; a range join compares each example with every row of its entity.
    """
    unfit = {"frames"} if case.late else set()
    unfit |= {"range join"} if case.events / case.entities > 1000 else set()
    return [way for way in WAYS if way not in unfit]


def generate(case: Case, folder: Path) -> None:
    """Write `events.parquet` and `examples.parquet`; the same for a case each time."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    random = np.random.default_rng(7)

    def accounts(number: int) -> Any:
        chosen = random.integers(0, case.entities, number)
        popular = random.random(number) < 0.01
        chosen[popular] = random.integers(0, 10, popular.sum())
        return chosen

    start = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
    account, second = accounts(case.events), random.integers(0, 60 * 86400, case.events)
    tied, to = random.integers(0, case.events, (2, case.events // 100))
    account[to], second[to] = account[tied], second[tied]
    ts = start + second * 1_000_000
    slow = random.random(case.events) < 0.1
    delay = np.where(slow, random.integers(60, 3 * 86400, case.events), random.integers(0, 60, case.events))
    cents, missing = random.integers(1, 50_000, case.events), random.random(case.events) < 0.02
    instant = pa.timestamp("us", tz="UTC")
    events = {
        "id": np.arange(case.events),
        "account": account,
        "ts": pa.array(ts, instant),
        "known": pa.array(ts + delay * 1_000_000, instant),
        "amount": pa.array(cents / 100.0, mask=missing),
        "cents": pa.array(cents, mask=missing),
        "balance": np.round(random.normal(1000, 300, case.events), 4),
        "category": np.array(list("abcde"))[random.integers(0, 5, case.events)],
    }
    who, at = accounts(case.examples), random.integers(0, 60 * 86400, case.examples)
    tenth = case.examples // 10
    for first, after in ((0, 0), (tenth, _HOUR)):
        met = random.integers(0, case.events, tenth)
        who[first : first + tenth], at[first : first + tenth] = account[met], second[met] + after
    who[-tenth // 5 :] += case.entities  # unknown accounts
    examples = {"example": np.arange(case.examples), "account": who, "asked": pa.array(start + at * 1_000_000, instant)}
    pq.write_table(pa.table(events), folder / "events.parquet", row_group_size=200_000)
    pq.write_table(pa.table(examples), folder / "examples.parquet")


def measure(case: Case, way: str, folder: Path) -> dict[str, float]:
    """Run one way in a fresh process: seconds of the join and the write, of the processors, and peak memory in MiB."""
    return processes.child("benchmarks.training_set", case.name, way, str(folder))


def child(case: Case, way: str, folder: Path) -> None:
    """What the fresh process does."""
    engine = FileEngine(folder)
    for table in ("events", "examples"):
        engine.execute(f"CREATE VIEW {table} AS FROM read_parquet('{folder / table}.parquet')")
    with processes.stopwatch() as figures:
        query = WAYS[way](engine, case)
        engine.execute(f"COPY ({query}) TO '{folder / way}.parquet' (FORMAT parquet)")
    processes.tell(**figures, MiB=processes.peak())


def differences(case: Case, way: str, folder: Path) -> int:
    """Values in which a way differs from Millpond's: floating means by more than a relative 1e-9, others at all."""
    ours, theirs = (f"read_parquet('{folder / name}.parquet')" for name in ("millpond", way))
    return different_values(FileEngine(folder), view(case).columns, ours, theirs, case.examples)


def different_values(engine: FileEngine, columns: Iterable[str], ours: str, theirs: str, examples: int) -> int:
    """Values in which two relations differ, by the measure of `differences`; all of an example that one lacks."""
    different = []
    for name in columns:
        same = f"a.{name} IS NOT DISTINCT FROM b.{name}"
        if "mean" in name:
            same = f"({same} OR abs(a.{name} - b.{name}) <= 1e-9 * abs(a.{name}))"
        different.append(f"count(*) FILTER (WHERE NOT coalesce({same}, FALSE))")
    query = f"SELECT count(*), {' + '.join(different)} FROM {ours} a JOIN {theirs} b USING (example)"
    rows, values = engine.rows(query)[0]
    return int(values) + (examples - int(rows)) * len(different)


def run() -> list[dict[str, Any]]:
    """Measure every case; the ratio is to the fastest hand-written way."""
    rows: list[dict[str, Any]] = []
    for case in CASES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            generate(case, folder)
            taken: dict[str, list[dict[str, float]]] = {way: [] for way in ways(case)}
            for number in range(_REPEATS):
                for way, seen in taken.items():
                    if number and way != "millpond" and seen[0]["seconds"] > 2 * _fastest(taken):
                        continue  # hopeless, and it would only lengthen the run
                    seen.append(measure(case, way, folder))
            wrong = {way: differences(case, way, folder) for way in ways(case) if way != "millpond"}
        rows += _report(case, taken, wrong)
    return rows


def _fastest(taken: dict[str, list[dict[str, float]]]) -> float:
    return min(each["seconds"] for way, seen in taken.items() for each in seen if way != "millpond")


def _report(case: Case, taken: dict[str, list[dict[str, float]]], wrong: dict[str, int]) -> Iterator[dict[str, Any]]:
    best = {way: min(seen, key=lambda one: one["seconds"]) for way, seen in taken.items()}
    ours = best.pop("millpond")
    rival = min(best, key=lambda way: best[way]["seconds"])
    values = case.examples * len(view(case).columns)
    shape = f"{case.events:,} events, {case.entities:,} entities, {case.examples:,} examples, 20 features"
    others = ", ".join(f"{way} {one['seconds']:.2f} s" for way, one in best.items())
    name = f"training set, {case.name}"
    yield {
        "name": f"{name}: time",
        "value": ours["seconds"] / best[rival]["seconds"],
        "goal": 1.3,
        "unit": f"x {rival} by hand",
        "note": f"{shape}; {ours['seconds']:.2f} s, by hand: {others}",
    }
    yield {
        "name": f"{name}: processor time",
        "value": ours["cpu"] / min(one["cpu"] for one in best.values()),
        "goal": 1.3,
        "unit": "x least by hand",
        "note": f"{ours['cpu']:.2f} s, by hand: " + ", ".join(f"{way} {one['cpu']:.2f} s" for way, one in best.items()),
    }
    yield {
        "name": f"{name}: memory",
        "value": ours["MiB"] / best[rival]["MiB"],
        "goal": 1.3,
        "unit": f"x {rival} by hand",
        "note": f"peak {ours['MiB']:.0f} MiB, by hand {best[rival]['MiB']:.0f} MiB",
    }
    yield {
        "name": f"{name}: speed",
        "value": values / ours["seconds"],
        "goal": None,
        "unit": "features/s",
        "note": "values of features, reading and writing Parquet included",
    }
    yield {
        "name": f"{name}: differences",
        "value": sum(wrong.values()),
        "goal": 0,
        "unit": "values",
        "note": "from the hand-written ways; floating means to a relative 1e-9, everything else exactly",
    }


def main() -> None:
    if len(sys.argv) > 1:
        case = next(each for each in CASES if each.name == sys.argv[1])
        child(case, sys.argv[2], Path(sys.argv[3]))
        return
    for row in run():
        goal = "" if row["goal"] is None else f"(goal {row['goal']})"
        print(f"{row['name']:36} {row['value']:14,.2f} {row['unit']:18} {goal:11} {row['note']}")


if __name__ == "__main__":
    main()
