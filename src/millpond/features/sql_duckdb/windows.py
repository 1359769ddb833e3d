"""Counts, sums, means, deviations, minima and maxima, over windows or over all that is visible.

Time is cut into tiles, of width `g` at level 0 and eight times as wide at each level above, and each entity's rows are
aggregated by tile. A window `[t - over, t)` is put together from the widest tiles that lie wholly in it: at each
level the children of the two tiles in which its ends lie, and at the bottom the rows of two tiles. All joins are on
equality; a window touches about a dozen tiles a level, however many rows it holds.

A tile is known as a whole only when all of its rows are, so it holds those rows alone that became visible within the
same tile of level 0. Every other row is late. A late row is in the window for `av < t <= us + over`, an interval of
`t`, which is covered by tiles in the same manner: at each level by the children of the tiles of its ends, and
at the bottom by comparing it with the points in two tiles. A point then meets one tile a level.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from millpond.features.assembly import Computed, select_list
from millpond.features.plan import Feature
from millpond.features.sql_duckdb.names import ViewTables, quote
from millpond.features.sql_duckdb.picks import first_at
from millpond.lake.ports import Engine

_FAN_OUT = 8


@dataclass(frozen=True)
class _Measure:
    """What is kept of rows.

    Attributes:
        name: Its column.
        value: Of a single row.
        function: Merges values of rows and of tiles alike.
        of_rows: Makes a tile's value from rows, where `function` does not; then tiles are not made of tiles.
    """

    name: str
    value: str
    function: str
    of_rows: str = ""

    @property
    def merged(self) -> str:
        return f"{self.function}({self.name}) AS {self.name}"

    @property
    def made(self) -> str:
        return f"{self.of_rows} AS {self.name}" if self.of_rows else self.merged


@dataclass(frozen=True)
class _Grid:
    """The tiles of a view.

    Attributes:
        origin: Instant at which tile 0 of every level begins: the first event's; microseconds since the epoch.
        width: Width of a tile of level 0, in microseconds.
        late: Whether there are late rows.
    """

    origin: int
    width: int
    late: bool

    def levels(self, over: int) -> list[tuple[int, int]]:
        """Level and width of the tiles that may lie wholly within a window."""
        found, level, width = [], 0, self.width
        while width < over:
            found.append((level, width))
            level, width = level + 1, width * _FAN_OUT
        return found


def windows(engine: Engine, tables: ViewTables, features: tuple[Feature, ...]) -> Iterator[Computed]:
    """Features over windows, and over all that is visible.

    `first` comes here only with a window and where rows are late; `picks` is faster at the others.
    """
    everything = engine.rows(f"""
        SELECT (SELECT max(us) FROM {tables.points}) - (SELECT min(us) FROM {tables.events})""")[0][0]
    of_window: dict[int, list[Feature]] = {}
    for each in features:
        of_window.setdefault(max(1, everything or 0) if each.over is None else each.over, []).append(each)
    grid = _make_grid(engine, tables, max(of_window))
    _make_tiles(engine, tables, grid, _measures(features), max(of_window))
    for over, wanted in of_window.items():
        yield from _window(engine, tables, grid, over, tuple(wanted))


def _make_grid(engine: Engine, tables: ViewTables, longest: int) -> _Grid:
    """A width at which the tile of a typical point holds few rows."""
    origin, rate = engine.rows(f"""
        SELECT min(first), sum(points * events / (last - first + 1.0)) / sum(points) FROM (
            SELECT eid, count(*) AS events, min(us) AS first, max(us) AS last FROM {tables.events} GROUP BY eid)
        JOIN (SELECT eid, count(*) AS points FROM {tables.points} GROUP BY eid) USING (eid)""")[0]
    if origin is None:  # no events
        return _Grid(0, longest, late=False)
    width = max(1, min(longest, int(tables.tile_rows / rate)))
    tile = f"us - {origin}"
    late = (
        tables.is_late
        and engine.rows(f"""
        SELECT count(*) FROM {tables.events} WHERE (av - {origin}) // {width} <> ({tile}) // {width}""")[0][0]
    )
    return _Grid(origin, width, late=bool(late))


def _measures(features: tuple[Feature, ...]) -> list[_Measure]:
    found: dict[str, _Measure] = {}

    def add(name: str, value: str, function: str, of_rows: str = "") -> None:
        found.setdefault(name, _Measure(name, value, function, of_rows))

    for each in features:
        slot = each.slot
        if each.kind == "first":
            add("m_first", "us", "min")
        elif each.kind in ("min", "max"):
            add(f"m_{each.kind}_{slot}", slot, each.kind)
        else:
            if each.kind != "sum":
                add(f"m_n_{slot}", f"({slot} IS NOT NULL)::DOUBLE" if each.column else "1::DOUBLE", "sum")
            if each.kind != "count":
                add(f"m_sum_{slot}", _summand(each), "sum")
            if each.kind == "std":  # squares of the differences from the tile's mean; a single row has none
                squares = f"coalesce(var_pop(m_sum_{slot}::DOUBLE) * count(m_sum_{slot}), 0)"
                add(f"m_sq_{slot}", "0::DOUBLE", "sum", squares)
    return list(found.values())


def _summand(feature: Feature) -> str:
    if feature.column is None or not feature.column.exact:
        return f"{feature.slot}::DOUBLE"
    return feature.slot if feature.column.kind == "decimal" else f"{feature.slot}::BIGINT"


def _rows(tables: ViewTables, grid: _Grid, values: list[str], *, late: bool = False) -> str:
    """The events, or the late ones, with instants counted from the grid's origin, and their tile."""
    us, av = f"us - {grid.origin}", f"av - {grid.origin}"
    same = "<>" if late else "="
    where = f"WHERE ({av}) // {grid.width} {same} ({us}) // {grid.width}" if grid.late else ""
    columns = [f"{us} AS start", f"{av} AS seen", f"({us}) // {grid.width} AS tile"]
    return f"(SELECT {select_list('eid', columns, values)} FROM {tables.events} {where})"


def _make_tiles(engine: Engine, tables: ViewTables, grid: _Grid, measures: list[_Measure], longest: int) -> None:
    """Tiles of all levels in one table: eid, level, parent, tile, start, stop, and the measures."""
    name = tables.name("tiles")
    names, made, merged = [[getattr(each, of) for each in measures] for of in ("name", "made", "merged")]
    rows = _rows(tables, grid, [f"{each.value} AS {each.name}" for each in measures])
    for level, width in grid.levels(longest):
        head = f"{level} AS level, tile // {_FAN_OUT} AS parent, tile"
        head += f", tile * {width} AS start, (tile + 1) * {width} AS stop"
        if level == 0:
            engine.execute(
                f"CREATE TEMP TABLE {name} AS SELECT {select_list('eid', head, made)} FROM {rows} GROUP BY ALL"
            )
        elif any(each.of_rows for each in measures):
            below = f"(SELECT {select_list('eid', f'start // {width} AS tile', names)} FROM {rows})"
            engine.execute(f"INSERT INTO {name} SELECT {select_list('eid', head, made)} FROM {below} GROUP BY ALL")
        else:
            below = f"(SELECT {select_list('eid, parent AS tile', names)} FROM {name} WHERE level = {level - 1})"
            engine.execute(f"INSERT INTO {name} SELECT {select_list('eid', head, merged)} FROM {below} GROUP BY ALL")


def _window(
    engine: Engine, tables: ViewTables, grid: _Grid, over: int, features: tuple[Feature, ...]
) -> Iterator[Computed]:
    measures = _measures(features)
    merged = tables.name(f"window_{over}")
    engine.execute(f"""
        CREATE TEMP TABLE {merged} AS
        SELECT {select_list("pid", [each.merged for each in measures])}
        FROM ({_pairs(tables, grid, over, measures)}) GROUP BY pid""")
    plain = tuple(each for each in features if each.kind not in ("first", "std"))
    if plain:
        values = [f"{_value(each)} AS {quote(each.name)}" for each in plain]
        yield Computed(f"(SELECT {select_list('pid', values)} FROM {merged})", plain)
    deviations = tuple(each for each in features if each.kind == "std")
    if deviations:
        yield _deviations(engine, tables, grid, over, deviations)
    firsts = tuple(each for each in features if each.kind == "first")
    if firsts:
        matched = tables.name(f"first_at_{over}")
        engine.execute(f"""
            CREATE TEMP TABLE {matched} AS
            SELECT p.pid, p.eid, p.us AS t, m.m_first AS us FROM {merged} m JOIN {tables.points} p USING (pid)""")
        yield first_at(engine, tables, matched, firsts, over)


def _value(feature: Feature) -> str:
    slot = feature.slot
    if feature.kind in ("min", "max"):
        return f"m_{feature.kind}_{slot}"
    if feature.kind == "count":
        return f"m_n_{slot}"
    if feature.kind == "mean":
        return f"m_sum_{slot}::DOUBLE / nullif(m_n_{slot}, 0)"
    return f"m_sum_{slot}" if feature.is_integer_sum else f"m_sum_{slot}::DOUBLE"


def _pairs(tables: ViewTables, grid: _Grid, over: int, measures: list[_Measure]) -> str:
    """Rows (pid, measures) whose merger is the window's: tiles, and single rows at its ends."""
    points = f"""(
        SELECT pid, eid, greatest(us - {grid.origin + over}, 0) AS lo, us - {grid.origin} AS hi
        FROM {tables.points} WHERE us > {grid.origin})"""
    values = [f"{each.value} AS {each.name}" for each in measures]
    names = [each.name for each in measures]
    parts = [
        f"""SELECT {select_list("p.pid", names)}
            FROM (SELECT *, {_ends("lo", "hi", str(grid.width))} AS tile FROM {points}) p
            JOIN {_rows(tables, grid, values)} r
            ON p.eid = r.eid AND p.tile = r.tile AND r.start >= p.lo AND r.seen < p.hi"""
    ]
    levels = grid.levels(over)
    if levels:
        widths = ", ".join(f"({level}, {width * _FAN_OUT}::BIGINT)" for level, width in levels)
        parts.append(f"""
            SELECT {select_list("p.pid", names)}
            FROM (SELECT pid, eid, lo, hi, level, {_ends("lo", "hi", "width")} AS parent
                  FROM {points}, (VALUES {widths}) AS levels (level, width)) p
            JOIN {tables.name("tiles")} r
            ON p.eid = r.eid AND p.level = r.level AND p.parent = r.parent AND r.start > p.lo AND r.stop <= p.hi""")
    if grid.late:
        parts += _late_pairs(tables, grid, over, measures)
    return " UNION ALL ".join(parts)


def _late_pairs(tables: ViewTables, grid: _Grid, over: int, measures: list[_Measure]) -> list[str]:
    values = [f"{each.value} AS {each.name}" for each in measures]
    names, merged = [each.name for each in measures], [each.merged for each in measures]
    rows = f"""(
        SELECT {select_list("eid, seen + 1 AS a", f"start + {over + 1} AS b", names)}
        FROM {_rows(tables, grid, values, late=True)} WHERE seen < start + {over})"""
    points = f"(SELECT pid, eid, us - {grid.origin} AS hi FROM {tables.points} WHERE us > {grid.origin})"
    parts = [
        f"""SELECT {select_list("p.pid", names)}
            FROM (SELECT *, hi // {grid.width} AS tile FROM {points}) p
            JOIN (SELECT *, {_ends("a", "b", str(grid.width))} AS tile FROM {rows}) r
            ON p.eid = r.eid AND p.tile = r.tile AND r.a <= p.hi AND p.hi < r.b"""
    ]
    places = select_list("eid", f"a // {grid.width} AS a, b // {grid.width} AS b")
    if any(each.of_rows for each in measures):
        cells, made = f"(SELECT {select_list(places, names)} FROM {rows})", [each.made for each in measures]
    else:
        cells, made = f"(SELECT {select_list(places, merged)} FROM {rows} GROUP BY ALL)", merged
    for _, width in grid.levels(over):
        tile = width // grid.width
        a, b = f"a // {tile}", f"b // {tile}"
        above_a, above_b = f"a // {tile * _FAN_OUT}", f"b // {tile * _FAN_OUT}"
        inner = f"""CASE WHEN {above_a} = {above_b} THEN range({a} + 1, {b}) ELSE list_concat(
            range({a} + 1, ({above_a} + 1) * {_FAN_OUT}), range({above_b} * {_FAN_OUT}, {b})) END"""
        parts.append(f"""
            SELECT {select_list("p.pid", names)} FROM {points} p JOIN (
                SELECT {select_list("eid, tile", made)}
                FROM (SELECT {select_list("eid", f"unnest({inner}) AS tile", names)} FROM {cells})
                GROUP BY eid, tile) r
            ON p.eid = r.eid AND p.hi // {width} = r.tile""")
    return parts


def _ends(lo: str, hi: str, width: str) -> str:
    """The tiles in which the ends lie, each once, as rows."""
    first, last = f"{lo} // {width}", f"{hi} // {width}"
    return f"unnest(CASE WHEN {first} = {last} THEN [{first}] ELSE [{first}, {last}] END)"


def _deviations(engine: Engine, tables: ViewTables, grid: _Grid, over: int, features: tuple[Feature, ...]) -> Computed:
    """Sample deviations in a second pass, as squares of differences from the window's own mean do not cancel."""
    measures = _measures(features)
    means = {each.slot: f"m.m_sum_{each.slot}::DOUBLE / nullif(m.m_n_{each.slot}, 0)" for each in features}
    squares = {
        slot: f"sum(p.m_sq_{slot} + p.m_n_{slot} * power(p.m_sum_{slot}::DOUBLE / nullif(p.m_n_{slot}, 0) - {mean}, 2))"
        for slot, mean in means.items()
    }
    values = [
        f"sqrt({squares[each.slot]} / nullif(any_value(m.m_n_{each.slot}) - 1, 0)) AS {quote(each.name)}"
        for each in features
    ]
    computed = tables.name(f"deviations_{over}")
    engine.execute(f"""
        CREATE TEMP TABLE {computed} AS
        SELECT {select_list("p.pid", values)}
        FROM ({_pairs(tables, grid, over, measures)}) p JOIN {tables.name(f"window_{over}")} m USING (pid)
        GROUP BY p.pid""")
    return Computed(computed, features)
