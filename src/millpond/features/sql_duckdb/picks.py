"""`latest` and `first`: find each point's event instant with an ASOF join, then the row at that instant.

Rows are considered in the order in which they become visible (`av`). Of rows with equal time, one that becomes
visible later also became known later: either both are late, and then `av` is `known`, or the earlier one was known by
its time and the later one was not. So the greatest (time, known) visible at `t` is the last of the rows that reach or
pass the greatest time seen before them, and the least is the last of those that fall below the least time seen.
"""

from __future__ import annotations

from collections.abc import Iterator

from millpond.features.assembly import Computed, select_list
from millpond.features.plan import Feature
from millpond.features.sql_duckdb.names import ViewTables, quote
from millpond.lake.ports import Engine


def latest(engine: Engine, tables: ViewTables, features: tuple[Feature, ...]) -> Iterator[Computed]:
    """The visible row with the greatest (time, known, key)."""
    steps = f"(SELECT eid, us, av FROM {tables.events})"
    if tables.is_late:
        steps = f"""(
            SELECT eid, av, us FROM (
                SELECT eid, av, us, max(us) OVER (
                    PARTITION BY eid ORDER BY av ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
                FROM (SELECT eid, av, max(us) AS us FROM {tables.events} GROUP BY eid, av))
            WHERE before IS NULL OR us >= before)"""
    matched = tables.name("latest_at")
    engine.execute(f"""
        CREATE TEMP TABLE {matched} AS
        SELECT p.pid, p.eid, p.us AS t, e.us, e.av
        FROM {tables.points} p ASOF JOIN {steps} e ON p.eid = e.eid AND p.us > e.av""")
    yield _fetch(engine, tables, matched, features, on=("eid", "us", "av"), suffix="latest")


def first(engine: Engine, tables: ViewTables, features: tuple[Feature, ...]) -> Iterator[Computed]:
    """The visible row with the least (time, known, key), of all rows; windows are `first_over`."""
    steps = f"(SELECT eid, min(us) AS us, min(us) AS av FROM {tables.events} GROUP BY eid)"
    if tables.is_late:
        steps = f"""(
            SELECT eid, av, us FROM (
                SELECT eid, av, us, min(us) OVER (
                    PARTITION BY eid ORDER BY av ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
                FROM (SELECT eid, av, min(us) AS us FROM {tables.events} GROUP BY eid, av))
            WHERE before IS NULL OR us < before)"""
    matched = tables.name("first_at")
    engine.execute(f"""
        CREATE TEMP TABLE {matched} AS
        SELECT p.pid, p.eid, p.us AS t, e.us
        FROM {tables.points} p ASOF JOIN {steps} e ON p.eid = e.eid AND p.us > e.av""")
    yield _fetch(engine, tables, matched, features, on=("eid", "us"), suffix="first")


def first_over(engine: Engine, tables: ViewTables, features: tuple[Feature, ...]) -> Iterator[Computed]:
    """`first` with windows, where no row is late: the next event at or after the window's start."""
    for over in sorted({each.over for each in features if each.over is not None}):
        matched = tables.name(f"first_at_{over}")
        engine.execute(f"""
            CREATE TEMP TABLE {matched} AS
            SELECT pid, eid, t, us FROM (
                SELECT p.pid, p.eid, p.us AS t, e.us
                FROM {tables.points} p ASOF JOIN (SELECT eid, us FROM {tables.events}) e
                ON p.eid = e.eid AND p.us - {over} <= e.us)
            WHERE us < t""")
        yield first_at(engine, tables, matched, tuple(each for each in features if each.over == over), over)


def first_at(engine: Engine, tables: ViewTables, matched: str, features: tuple[Feature, ...], over: int) -> Computed:
    """The rows with the least (known, key) at known least times: `matched` has pid, eid, t, us.

    Of rows with equal time, the first to be known is the first to be visible, so it need not be looked at `t`.
    """
    return _fetch(engine, tables, matched, features, on=("eid", "us"), suffix=f"first_{over}")


def _fetch(
    engine: Engine,
    tables: ViewTables,
    matched: str,
    features: tuple[Feature, ...],
    *,
    on: tuple[str, ...],
    suffix: str,
) -> Computed:
    """Join to `matched` the one event that wins among those that agree in `on`."""
    direction, best = ("ASC", "min") if suffix.startswith("first") else ("DESC", "max")
    slots = sorted({each.slot for each in features})
    order = (["kn"] if tables.plan.known else []) + list(tables.key_slots)
    ranked = select_list([f"{slot} {direction}" for slot in order])
    rows = f"FROM {tables.events} SEMI JOIN {matched} USING ({select_list(on)})"
    if tables.plan.row_keys:
        winners = f"""SELECT {select_list(on, slots)} {rows}
            QUALIFY row_number() OVER (PARTITION BY {select_list(on)} ORDER BY {ranked}) = 1"""
    else:
        tied = f"SELECT {select_list(on, slots)} {rows}"
        if order:
            tied += f" QUALIFY rank() OVER (PARTITION BY {select_list(on)} ORDER BY {ranked}) = 1"
        values = [f"{best}({slot}) AS {slot}" for slot in slots]
        winners = f"SELECT {select_list(on, values)} FROM ({tied}) GROUP BY {select_list(on)}"
    values = [f"{_aged(each)} AS {quote(each.name)}" for each in features]
    computed = tables.name(suffix)
    engine.execute(f"""
        CREATE TEMP TABLE {computed} AS
        SELECT {select_list("m.pid", values)} FROM {matched} m JOIN ({winners}) e USING ({select_list(on)})""")
    return Computed(computed, features)


def _aged(feature: Feature) -> str:
    if feature.within is None:
        return f"e.{feature.slot}"
    return f"CASE WHEN m.us >= m.t - {feature.within} THEN e.{feature.slot} END"
