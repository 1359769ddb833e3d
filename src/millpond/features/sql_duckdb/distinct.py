"""`nunique`: a value counts at `t` while at least one of its rows is in the window.

A row is in the window while `av < t <= us + over`. The intervals of an entity's rows of one value are merged; each
merged interval adds one where it begins and takes one away after its end, and a running sum counts what is present.
"""

from __future__ import annotations

from collections.abc import Iterator

from millpond.features.assembly import Computed, select_list
from millpond.features.plan import Feature
from millpond.features.sql_duckdb.names import ViewTables, quote
from millpond.lake.ports import Engine


def distinct(engine: Engine, tables: ViewTables, features: tuple[Feature, ...]) -> Iterator[Computed]:
    """Number of distinct non-null values in each window, all of them in one pass."""
    wanted = sorted({(each.slot, each.over) for each in features}, key=str)
    names = {each: f"n{index}" for index, each in enumerate(wanted)}
    parts = []
    for (slot, over), name in names.items():
        changes = [f"{'change' if each == name else 'NULL::INTEGER'} AS {each}" for each in names.values()]
        present = _present(tables.events, slot, over)
        parts.append(f"SELECT NULL::BIGINT AS pid, eid, moment, 1 AS is_event, {select_list(changes)} FROM ({present})")
    nothing = [f"NULL AS {name}" for name in names.values()]
    parts.append(f"SELECT pid, eid, us AS moment, 0 AS is_event, {select_list(nothing)} FROM {tables.points}")
    sums = [f"sum({name}) OVER w AS {name}" for name in names.values()]
    values = [f"{names[each.slot, each.over]}::BIGINT AS {quote(each.name)}" for each in features]
    computed = tables.name("distinct")
    engine.execute(f"""
        CREATE TEMP TABLE {computed} AS
        SELECT {select_list("pid", values)} FROM (
            SELECT {select_list("pid", sums)} FROM ({" UNION ALL ".join(parts)})
            WINDOW w AS (PARTITION BY eid ORDER BY moment, is_event ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW))
        WHERE pid IS NOT NULL""")
    yield Computed(computed, features)


def _present(events: str, slot: str, over: int | None) -> str:
    """Rows (eid, moment, change) that say when a value comes (1) and goes (-1)."""
    if over is None:
        return f"SELECT eid, min(av) AS moment, 1 AS change FROM {events} WHERE {slot} IS NOT NULL GROUP BY eid, {slot}"
    intervals = f"""
        SELECT eid, {slot}, av, max(us + {over}) OVER (
            PARTITION BY eid, {slot} ORDER BY av, us ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS until
        FROM {events} WHERE {slot} IS NOT NULL AND av < us + {over}"""
    return f"""
        SELECT eid, unnest(CASE WHEN until IS NULL THEN [av] ELSE [av, until] END) AS moment,
            unnest(CASE WHEN until IS NULL THEN [1] ELSE [1, -1] END) AS change
        FROM ({intervals}) WHERE until IS NULL OR av > until
        UNION ALL
        SELECT eid, max(us + {over}) AS moment, -1 AS change
        FROM {events} WHERE {slot} IS NOT NULL AND av < us + {over} GROUP BY eid, {slot}"""
