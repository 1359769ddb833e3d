"""Windows of aggregates that cannot be taken apart again: min, max, std, and sums and means of floats."""

from __future__ import annotations

from collections.abc import Iterator

from millpond.features.plan import Feature
from millpond.features.sql_duckdb.names import Computed, ViewTables, quote, select_list
from millpond.features.sql_duckdb.picks import first_at
from millpond.lake.ports import Engine

_CALLS = {
    "min": "min({})",
    "max": "max({})",
    "sum": "sum({}::DOUBLE)",
    "mean": "avg({}::DOUBLE)",
    "std": "stddev_samp({}::DOUBLE)",
}


def windows(engine: Engine, tables: ViewTables, features: tuple[Feature, ...]) -> Iterator[Computed]:
    for over in sorted({each.over for each in features if each.over is not None}):
        mine = tuple(each for each in features if each.over == over)
        plain = tuple(each for each in mine if each.kind != "first")
        firsts = tuple(each for each in mine if each.kind == "first")
        values = [f"{_CALLS[each.kind].format('e.' + each.slot)} AS {quote(each.name)}" for each in plain]
        computed = tables.name(f"window_{over}")
        engine.execute(f"""
            CREATE TEMP TABLE {computed} AS
            SELECT {select_list("p.pid, any_value(p.eid) AS eid, any_value(p.us) AS t, min(e.us) AS us", values)}
            FROM {tables.points} p JOIN {tables.events} e
            ON p.eid = e.eid AND e.us >= p.us - {over} AND e.us < p.us AND e.av < p.us GROUP BY p.pid""")
        if plain:
            yield Computed(computed, plain)
        if firsts:
            yield first_at(engine, tables, computed, firsts, over)
