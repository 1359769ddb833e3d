"""The join in Spark: the events that matter, and one computation a form."""

from __future__ import annotations

from collections.abc import Iterator

from millpond.features.assembly import Computed, Points, select_list
from millpond.features.plan import Kind, ViewPlan
from millpond.features.sql_spark.distinct import distinct
from millpond.features.sql_spark.names import ViewTables
from millpond.features.sql_spark.sweep import sweep
from millpond.features.sql_spark.timeless import timeless
from millpond.lake.ports import Engine
from millpond.lake.spark import quoted as quote

_KINDS: dict[str, Kind] = {
    "tinyint": "integer",
    "smallint": "integer",
    "int": "integer",
    "bigint": "integer",
    "boolean": "boolean",
    "float": "float",
    "double": "float",
    "string": "string",
    "date": "date",
    "timestamp": "instant",
}


class SparkDialect:
    """Point-in-time joins in Spark's SQL. Nothing but bounds, counts and shares comes to the driver."""

    numbered = "monotonically_increasing_id()"

    def compute(self, engine: Engine, prefix: str, plan: ViewPlan, points: Points) -> Iterator[Computed]:
        """As `millpond.features.assembly.Dialect.compute`."""
        tables = _make_tables(engine, prefix, plan, points)
        if plan.time is None:
            yield from timeless(engine, tables, plan.features)
            return
        counted = plan.of("nunique")
        others = tuple(each for each in plan.features if each not in counted)
        if counted:
            yield from distinct(engine, tables, counted)
        if others:
            yield from sweep(engine, tables, others)

    def kinds(self, engine: Engine, relation: str) -> dict[str, Kind]:
        """The columns of a relation, with their kinds."""
        return {row[0]: _kind(row[1]) for row in engine.rows(f"DESCRIBE QUERY SELECT * FROM {relation}")}

    def microseconds(self, instant: str) -> str:
        """An instant as microseconds since the epoch."""
        return f"unix_micros({instant})"

    def quote(self, name: str) -> str:
        """A column's name in backticks."""
        return quote(name)


def _kind(type_: str) -> Kind:
    """The kind of one of Spark's types."""
    return "decimal" if type_.startswith("decimal") else _KINDS.get(type_, "other")


def _make_tables(engine: Engine, prefix: str, plan: ViewPlan, points: Points) -> ViewTables:
    """The events that may matter, under short names; kept where they are read more than once."""
    on = " AND ".join(f"s.{quote(key)} = e.{quote(key)}" for key in plan.entity_keys)
    values = {column.slot: f"s.{quote(column.name)}" for column in plan.columns}
    if plan.of("latest", "first"):
        values |= {f"k{index}": f"s.{quote(key)}" for index, key in enumerate(plan.row_keys)}
    columns, wheres = ["1 AS r"], []
    if plan.time is not None:
        us = f"unix_micros(s.{quote(plan.time)})"
        known = f"unix_micros(s.{quote(plan.known)})" if plan.known else us
        visible = f"greatest({us}, {known})" if plan.known else us
        columns += [f"{us} AS us", f"{visible} AS av"]
        if plan.known:
            values["kn"] = known
        oldest, newest = engine.rows(f"SELECT min(us), max(us) FROM {points.table}")[0]
        wheres = [f"{us} IS NOT NULL", f"{known} IS NOT NULL"]
        wheres += [f"{visible} < {newest}"] if newest is not None else []
        wheres += [f"{us} >= {oldest - plan.reach}"] if oldest is not None and plan.reach is not None else []
    columns += [f"{value} AS {name}" for name, value in values.items()]
    query = f"""
        SELECT {select_list("e.eid", columns)} FROM {engine.scan(plan.pinned.snapshot)} s
        JOIN {points.entities} e ON {on} {f"WHERE {' AND '.join(wheres)}" if wheres else ""}"""
    events = f"({query})"
    if plan.time is not None and (plan.known or plan.of("nunique")):
        events = f"{prefix}_events"
        engine.materialize(events, query)
    return ViewTables(plan, prefix, events, points.table, tuple(values))
