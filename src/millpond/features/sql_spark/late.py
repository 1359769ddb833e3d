"""Rows that became visible too late for `sweep`: each is in the window for `av < t <= us + over`, an interval.

The bits in which instants are written make a tree: an interval `[a, e)` belongs to the node at whose middle, the
greatest multiple of a power of two, `a` and `e` part. In the left half of the node the interval holds `t` when
`a <= t`, in the right half when `t < e`; so a frame that runs through each half, from its outer end to its middle, has
seen at `t` the intervals of the node that hold it. A point looks at one node a level, at the levels that occur.
"""

from __future__ import annotations

from millpond.features.assembly import select_list
from millpond.features.sql_spark.measures import measures, running
from millpond.features.sql_spark.names import ViewTables, Window
from millpond.lake.ports import Engine

#: Makes instants positive, so that their bits are in the order of time.
_ZERO = 2**62


def late_parts(engine: Engine, tables: ViewTables, window: Window, late: str, names: list[str]) -> str:
    """A query of parts (eid, pid, `names`) of the windows of points: what late rows give to them.

    Args:
        engine: Keeps the late rows.
        tables: The view's.
        window: The window; not over all that is visible.
        late: Which events are late.
        names: The columns of parts, one a window; others than this window's are null.
    """
    assert window.over is not None
    rows = tables.name(f"late{window.number}")
    group = (window.over - 1).bit_length()  # an interval meets two stretches of this many bits at most
    begin, end = f"av + {_ZERO + 1}", f"us + {window.over + 1 + _ZERO}"
    middle = f"shiftleft(shiftright({end} - 1, {group}), {group})"
    pieces = f"""explode(CASE WHEN {begin} < {middle}
        THEN array(named_struct('a', {begin}, 'e', {middle}), named_struct('a', {middle}, 'e', {end}))
        ELSE array(named_struct('a', {begin}, 'e', {end})) END)"""
    columns = select_list("eid", ["us", "r"], tables.values)
    engine.materialize(
        rows,
        f"""SELECT *, length(bin(a ^ e)) - 1 AS level FROM (
            SELECT {columns}, piece.a AS a, piece.e AS e FROM (
                SELECT *, {pieces} AS piece FROM {tables.events} WHERE {late} AND av < us + {window.over}))""",
    )
    points = f"""
        SELECT eid, pid, at, explode(filter(sequence(0, 62), bit -> getbit(levels, bit) = 1)) AS level FROM (
            SELECT p.eid, p.pid, p.us + {_ZERO} AS at, m.levels
            FROM {tables.points} p JOIN (
                SELECT eid, shiftright(a, {group}) AS stretch, bit_or(shiftleft(1L, level)) AS levels
                FROM {rows} GROUP BY eid, stretch) m
            ON p.eid = m.eid AND shiftright(p.us + {_ZERO}, {group}) = m.stretch)"""
    both = f"""
        SELECT {select_list(columns, "CAST(NULL AS BIGINT) AS pid", "level, shiftright(a, level + 1) AS node, side")},
            CASE WHEN side = 0 THEN a ELSE -e END AS place
        FROM (SELECT *, explode(array(0, 1)) AS side FROM {rows})
        UNION ALL
        SELECT {select_list("eid, at AS us", tables.nothing, "pid, level, shiftright(at, level + 1) AS node, side")},
            CASE WHEN side = 0 THEN at ELSE -at - 1 END AS place
        FROM (SELECT *, CAST(getbit(at, level) AS INT) AS side FROM ({points}))"""
    found = running(measures(tables.plan, window.features), "OVER o")
    parts = [f"found AS {name}" if name == f"w{window.number}" else f"NULL AS {name}" for name in names]
    return f"""
        SELECT {select_list("eid, pid", parts)} FROM (
            SELECT eid, pid, {found} AS found FROM ({both})
            WINDOW o AS (PARTITION BY eid, level, node, side ORDER BY place, r DESC
                         ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW))
        WHERE pid IS NOT NULL"""
