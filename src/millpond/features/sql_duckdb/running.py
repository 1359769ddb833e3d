"""Counts, exact sums and everything without a window: one pass over events and points in the order of time.

A row is in the window of length `over` at `t` exactly while `av < t <= us + over`. So it enters at its `av` and leaves
at its `us + over`, and what is additive is what has entered before `t` less what had happened before `t - over`. A row
that becomes visible only after it would have left (`av - us >= over`) does neither. At equal instants points
come before events, as visible means strictly before.
"""

from __future__ import annotations

from collections.abc import Iterator

from millpond.features.plan import Feature
from millpond.features.sql_duckdb.names import Computed, ViewTables, quote, select_list
from millpond.lake.ports import Engine

_RUNNING = {"min": "min({})", "max": "max({})", "sum": "sum({}::DOUBLE)", "std": "stddev_samp({}::DOUBLE)"}


class _Pass:
    """Collects the running aggregates that features need, each once."""

    def __init__(self, tables: ViewTables, windows: tuple[int, ...]) -> None:
        self._tables = tables
        self._windows = windows
        self.aggregates: dict[str, str] = {}

    def entered(self, call: str, slot: str, over: int | None = None) -> str:
        """Value of the aggregate over what has become visible, at the point itself."""
        return self._at(0, self._measure(call, f"i_{slot}", over))

    def left(self, call: str, slot: str, over: int) -> str:
        """Value of the aggregate over what happened before the window's start."""
        return self._at(self._windows.index(over) + 1, self._measure(call, f"o_{slot}", over))

    def _measure(self, call: str, column: str, over: int | None) -> str:
        aggregate = call.format(column if self._tables.late else "i_" + column[2:])
        if over is not None and over <= self._tables.late:
            aggregate += f" FILTER (WHERE late < {over})"
        return self.aggregates.setdefault(aggregate, f"m{len(self.aggregates)}")

    def _at(self, step: int, measure: str) -> str:
        return f"any_value({measure}) FILTER (WHERE step = {step})" if self._windows else measure


def running(engine: Engine, tables: ViewTables, features: tuple[Feature, ...]) -> Iterator[Computed]:
    """Counts and exact sums and means over any window, and all other aggregates over all that is visible."""
    windows = tuple(sorted({each.over for each in features if each.over is not None}))
    work = _Pass(tables, windows)
    values = [f"{_value(work, tables, each)} AS {quote(each.name)}" for each in features]
    measures = [f"{aggregate} OVER w AS {name}" for aggregate, name in work.aggregates.items()]
    computed = tables.name("running")
    engine.execute(f"""
        CREATE TEMP TABLE {computed} AS
        SELECT {select_list("pid", values)} FROM (
            SELECT {select_list("pid", "step", measures)} FROM ({_stream(tables, features, windows)})
            WINDOW w AS (PARTITION BY eid ORDER BY moment, is_event ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW))
        WHERE pid IS NOT NULL {"GROUP BY pid" if windows else ""}""")
    yield Computed(computed, features)


def _stream(tables: ViewTables, features: tuple[Feature, ...], windows: tuple[int, ...]) -> str:
    """Events and points as one relation. A late row stands in it twice: where it enters, and where it happened."""
    slots = sorted({each.slot for each in features})

    def columns(side: str, *, present: bool) -> list[str]:
        values = {slot: ("1" if slot == "r" else slot) if present else "NULL" for slot in slots}
        return [f"{value} AS {side}_{slot}" for slot, value in values.items()]

    head = "NULL::BIGINT AS pid, NULL::INTEGER AS step, eid, 1 AS is_event"
    steps = ", ".join(f"({step}, {over}::BIGINT)" for step, over in enumerate((0, *windows)))
    both = bool(tables.late and windows)
    late = "av - us AS late"
    if both:
        on_time = select_list(head, "av AS moment", late, columns("i", present=True), columns("o", present=True))
        entering = select_list(head, "av AS moment", late, columns("i", present=True), columns("o", present=False))
        leaving = select_list(head, "us AS moment", late, columns("i", present=False), columns("o", present=True))
        parts = [
            f"SELECT {on_time} FROM {tables.events} WHERE av = us",
            f"SELECT {entering} FROM {tables.events} WHERE av > us",
            f"SELECT {leaving} FROM {tables.events} WHERE av > us",
        ]
    else:
        parts = [f"SELECT {select_list(head, 'av AS moment', late, columns('i', present=True))} FROM {tables.events}"]
    sides = ("i", "o") if both else ("i",)
    nulls = [each for side in sides for each in columns(side, present=False)]
    parts.append(f"""
        SELECT {select_list("pid, step, eid, 0 AS is_event, us - back AS moment, NULL::BIGINT AS late", nulls)}
        FROM {tables.points}, (VALUES {steps}) AS steps (step, back)""")
    return " UNION ALL ".join(parts)


def _value(work: _Pass, tables: ViewTables, feature: Feature) -> str:
    slot, over, column = feature.slot, feature.over, feature.column

    def additive(call: str) -> str:
        entered = f"coalesce({work.entered(call, slot, over)}, 0)"
        return entered if over is None else f"({entered} - coalesce({work.left(call, slot, over)}, 0))"

    if feature.kind == "count":
        return additive("count({})")
    if feature.kind in ("sum", "mean") and column is not None and tables.is_exact(column):
        cast = "::BIGINT" if column.kind in ("boolean", "float") else ""
        total, number = additive(f"sum({{}}{cast})"), additive("count({})")
        value = total if feature.is_integer_sum else f"({total})::DOUBLE"
        return f"CASE WHEN {number} > 0 THEN {value}{f' / {number}' if feature.kind == 'mean' else ''} END"
    if feature.kind == "mean":
        return f"{work.entered('sum({}::DOUBLE)', slot)} / nullif({work.entered('count({})', slot)}, 0)"
    return work.entered(_RUNNING[feature.kind], slot)
