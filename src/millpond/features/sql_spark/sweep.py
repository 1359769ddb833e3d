"""Features over windows, and over all that is visible, by running frames that never leave a block.

Time is cut into blocks no longer than the window. Then `[t - over, t)` is the end of one block, from `t - over` on,
and the beginning of another, up to `t`; sometimes with a whole block between them. What a frame that runs through a
block has seen at `t` is the one, what a frame that runs through it backwards has seen at `t - over` is the other. Any
aggregate that can be merged is put together so, in two passes over the rows, and nothing is subtracted (van Herk and
Gil-Werman do it for minima and maxima).

Windows form a chain: the blocks of the longer are made of whole blocks of the shorter, so one sort serves all of them
in each direction. Rows that became visible in a later block than that of their time, of the shortest kind, are left
to `late`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from millpond.features.assembly import Computed, select_list
from millpond.features.plan import Feature
from millpond.features.sql_spark.late import late_parts
from millpond.features.sql_spark.measures import measures, running, value
from millpond.features.sql_spark.names import ViewTables, Window
from millpond.lake.ports import Engine
from millpond.lake.spark import quoted as quote

#: A window shares its sort with longer ones unless so great a share of the rows would be late to its blocks.
_MOST_LATE = 0.2
_FRAME = "ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW"


@dataclass(frozen=True)
class _Blocked:
    """A window and the width of its blocks, in microseconds; None where one block is all time."""

    window: Window
    width: int | None


def sweep(engine: Engine, tables: ViewTables, features: tuple[Feature, ...]) -> Iterator[Computed]:
    """Every feature but `nunique`."""
    of_length: dict[int | None, list[Feature]] = {}
    for each in features:
        of_length.setdefault(None if each.kind == "latest" else each.over, []).append(each)
    lengths = sorted((length for length in of_length if length is not None), reverse=True)
    ordered: list[int | None] = [*([None] if None in of_length else []), *lengths]
    windows = [Window(number, over, tuple(of_length[over])) for number, over in enumerate(ordered)]
    for chain, are_late in _chains(engine, tables, windows):
        yield _compute(engine, tables, chain, are_late=are_late)


def _chains(engine: Engine, tables: ViewTables, windows: list[Window]) -> Iterator[tuple[list[_Blocked], bool]]:
    """The windows in chains, each from the longest to the shortest, and whether rows are late to the blocks."""
    late = _late(engine, tables, windows)
    chains: list[list[Window]] = []
    for window in windows:
        fits = chains and late[window.number] <= _MOST_LATE and (chains[-1][-1].over is not None or not any(late))
        chains = [*chains[:-1], [*chains[-1], window]] if fits else [*chains, [window]]
    for chain in chains:
        blocked: list[_Blocked] = []
        below = 1
        for window in reversed(chain):
            below = below * (window.over // below) if window.over is not None else 0
            blocked.insert(0, _Blocked(window, below or None))
        yield blocked, late[chain[-1].number] > 0


def _late(engine: Engine, tables: ViewTables, windows: list[Window]) -> list[float]:
    """For each window, the share of rows that are late to blocks of its length; for all time, of rows late at all."""
    if tables.plan.known is None:
        return [0.0] * len(windows)
    conditions = [_is_late(window.over) if window.over is not None else "av > us" for window in windows]
    shares = [f"coalesce(avg(CASE WHEN {condition} THEN 1D ELSE 0D END), 0D)" for condition in conditions]
    return list(engine.rows(f"SELECT {select_list(shares)} FROM {tables.events}")[0])


def _is_late(width: int) -> str:
    return f"av - us >= {width} - pmod(us, {width})"


def _compute(engine: Engine, tables: ViewTables, chain: list[_Blocked], *, are_late: bool) -> Computed:
    plan, kept = tables.plan, [measures(tables.plan, each.window.features) for each in chain]
    late = _is_late(chain[-1].width) if are_late and chain[-1].width is not None else None
    parts = _forwards(tables, chain, late)
    bounded = [each for each in chain if each.width is not None]
    if bounded:
        names = [f"w{each.window.number}" for each in chain]
        parts = f"SELECT {select_list('eid, pid', names)} FROM ({_backwards(tables, chain, bounded, parts)})"
        if late is not None:
            for each in bounded:
                parts += f" UNION ALL {late_parts(engine, tables, each.window, late, names)}"
        merged = [
            f"{measure.merge.format(f'w{each.window.number}.{measure.name}')} AS w{each.window.number}_{measure.name}"
            for each, of_window in zip(chain, kept, strict=True)
            for measure in of_window
        ]
        parts = f"SELECT {select_list('pid', merged)} FROM ({parts}) WHERE pid IS NOT NULL GROUP BY eid, pid"
        prefix = "w{}_"
    else:
        parts = f"SELECT * FROM ({parts}) WHERE pid IS NOT NULL"
        prefix = "w{}."
    values, features = [], []
    for each in chain:
        for feature in each.window.features:
            found = value(plan, feature, prefix.format(each.window.number))
            values.append(f"{found} AS {quote(feature.name)}")
            features.append(feature)
    computed = tables.name(f"sweep{chain[0].window.number}")
    engine.materialize(computed, f"SELECT {select_list('pid', values)} FROM ({parts})")
    return Computed(computed, tuple(features))


def _forwards(tables: ViewTables, chain: Sequence[_Blocked], late: str | None) -> str:
    """Events and points with, at points, a struct `w{number}` a window: what of it lies in the point's own block."""
    where = f"WHERE NOT ({late})" if late else ""
    blocks = [(each.window.number, each.width) for each in chain if each.width is not None]
    starts = [f"us - pmod(us, {width}) AS b{number}" for number, width in blocks]
    rows = f"""
        SELECT {select_list("*", starts)} FROM (
            SELECT {select_list("eid, us, av, CAST(NULL AS BIGINT) AS pid, r", tables.values)}
            FROM {tables.events} {where}
            UNION ALL SELECT eid, us, us AS av, pid, {tables.nothing} FROM {tables.points})"""
    found = [f"CASE WHEN pid IS NOT NULL THEN {_running(tables, each)} END AS w{each.window.number}" for each in chain]
    columns = select_list("eid, us, pid, r", tables.values, found)
    return f"SELECT {columns} FROM ({rows}) WINDOW {_windows(chain, 'b', 'av, r')}"


def _backwards(tables: ViewTables, chain: Sequence[_Blocked], bounded: Sequence[_Blocked], rows: str) -> str:
    """Parts (eid, pid, w{number}..) of the points' windows; rows without a pid are none.

    A point becomes a row for itself, with what was found forwards, a row at the start of each window, and one at the
    start of a block that lies wholly in it.
    """
    marks = ["named_struct('window', -1, 'position', us)"]
    for each in bounded:
        number, over, width = each.window.number, each.window.over, each.width
        marks.append(f"named_struct('window', {number}, 'position', us - {over})")
        if over != width:
            between = f"us - {over} - pmod(us - {over}, {width}) + {width}"
            marks.append(
                f"CASE WHEN {between} + {width} <= us THEN named_struct('window', {number}, 'position', {between}) END"
            )
    places = f"CASE WHEN pid IS NULL THEN array({marks[0]}) ELSE array({select_list(marks)}) END"
    kept = [f"w{each.window.number}" for each in chain]
    marked = f"""
        SELECT {select_list("eid, pid, r, mark.position AS us, mark.window AS window", tables.values, kept)} FROM (
            SELECT *, explode({places}) AS mark FROM ({rows}))
        WHERE mark IS NOT NULL"""
    starts = [f"pmod(us, {each.width}) - us AS b{each.window.number}" for each in bounded]
    marked = f"SELECT {select_list('*', '-us AS back', starts)} FROM ({marked})"
    parts = []
    for each in chain:
        name = f"w{each.window.number}"
        found = f"WHEN window = {each.window.number} THEN {_running(tables, each)}" if each in bounded else ""
        parts.append(f"CASE WHEN window = -1 THEN {name} {found} END AS {name}")
    return f"SELECT {select_list('eid, pid', parts)} FROM ({marked}) WINDOW {_windows(bounded, 'b', 'back, r DESC')}"


def _running(tables: ViewTables, each: _Blocked) -> str:
    return running(measures(tables.plan, each.window.features), f"OVER o{each.window.number}")


def _windows(chain: Sequence[_Blocked], block: str, order: str) -> str:
    """A frame a window; all of them want the rows in one and the same order."""
    blocks = [f"{block}{each.window.number}" for each in chain if each.width is not None]
    frames = []
    for each in chain:
        depth = blocks.index(f"{block}{each.window.number}") + 1 if each.width is not None else 0
        partition, inner = select_list("eid", blocks[:depth]), select_list(blocks[depth:], order)
        frames.append(f"o{each.window.number} AS (PARTITION BY {partition} ORDER BY {inner} {_FRAME})")
    return ", ".join(frames)
