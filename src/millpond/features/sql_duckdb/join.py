"""The join in DuckDB: the events that matter, and one computation a form."""

from __future__ import annotations

from collections.abc import Iterator

from millpond.features.assembly import Computed, Points, select_list
from millpond.features.plan import Feature, Kind, ViewPlan
from millpond.features.sql_duckdb.distinct import distinct
from millpond.features.sql_duckdb.names import ViewTables, quote
from millpond.features.sql_duckdb.picks import first, first_over, latest
from millpond.features.sql_duckdb.timeless import timeless
from millpond.features.sql_duckdb.windows import windows
from millpond.lake.ports import Engine


class DuckDBDialect:
    """Point-in-time joins in DuckDB's SQL.

    Args:
        tile_rows: Rows of an entity that the smallest tiles of `windows` should hold; speed depends on it alone.
    """

    numbered = "row_number() OVER ()"

    def __init__(self, tile_rows: float = 8.0) -> None:
        self._tile_rows = tile_rows

    def compute(self, engine: Engine, prefix: str, plan: ViewPlan, points: Points) -> Iterator[Computed]:
        """As `millpond.features.assembly.Dialect.compute`."""
        tables = _make_tables(engine, prefix, plan, points, self._tile_rows)
        yield from _compute(engine, tables)

    def kinds(self, engine: Engine, relation: str) -> dict[str, Kind]:
        """The columns of a relation, with their kinds."""
        return {row[0]: _kind(row[1]) for row in engine.rows(f"DESCRIBE SELECT * FROM {relation}")}

    def microseconds(self, instant: str) -> str:
        """An instant as microseconds since the epoch."""
        return f"epoch_us({instant})"

    def quote(self, name: str) -> str:
        """A column's name in double quotes."""
        return quote(name)


def _kind(type_: str) -> Kind:
    """The kind of one of DuckDB's types."""
    kinds: dict[str, Kind] = {
        "VARCHAR": "string",
        "BOOLEAN": "boolean",
        "DATE": "date",
        "TIMESTAMP WITH TIME ZONE": "instant",
        "FLOAT": "float",
        "DOUBLE": "float",
    }
    if type_.startswith("DECIMAL"):
        return "decimal"
    return "integer" if type_.endswith("INT") or type_ == "INTEGER" else kinds.get(type_, "other")


def _make_tables(engine: Engine, prefix: str, plan: ViewPlan, points: Points, tile_rows: float) -> ViewTables:
    """Copy the events that may matter, under short names, and measure what decides between forms."""
    events = f"{prefix}_events"
    picks = bool(plan.of("latest", "first"))
    on = " AND ".join(f"s.{quote(key)} = e.{quote(key)}" for key in plan.entity_keys)
    columns = [f"s.{quote(column.name)} AS {column.slot}" for column in plan.columns]
    if picks:
        columns += [f"s.{quote(key)} AS k{index}" for index, key in enumerate(plan.row_keys)]
    wheres = []
    if plan.time is not None:
        us = f"epoch_us(s.{quote(plan.time)})"
        known = f"epoch_us(s.{quote(plan.known)})" if plan.known else us
        visible = f"greatest({us}, {known})" if plan.known else us
        columns += [f"{us} AS us", f"{visible} AS av"] + ([f"{known} AS kn"] if picks and plan.known else [])
        oldest, newest = engine.rows(f"SELECT min(us), max(us) FROM {points.table}")[0]
        wheres = [f"{us} IS NOT NULL", f"{known} IS NOT NULL"]
        wheres += [f"{visible} < {newest}"] if newest is not None else []
        wheres += [f"{us} >= {oldest - plan.reach}"] if oldest is not None and plan.reach is not None else []
    engine.execute(f"""
        CREATE TEMP TABLE {events} AS
        SELECT {select_list("e.eid", columns)} FROM {engine.scan(plan.pinned.snapshot)} s
        JOIN {points.entities} e ON {on} {f"WHERE {' AND '.join(wheres)}" if wheres else ""}""")
    late = engine.rows(f"SELECT max(av - us) FROM {events}")[0][0] if plan.known else 0
    return ViewTables(plan, prefix, events, points.table, tile_rows, is_late=bool(late))


def _compute(engine: Engine, tables: ViewTables) -> Iterator[Computed]:
    """Every feature of the view, each in the form that suits it."""
    plan = tables.plan
    if plan.time is None:
        yield from timeless(engine, tables, plan.features)
        return
    forms: dict[str, list[Feature]] = {}
    for feature in plan.features:
        forms.setdefault(_form(tables, feature), []).append(feature)
    functions = {
        "latest": latest,
        "first": first,
        "first_over": first_over,
        "distinct": distinct,
        "windows": windows,
    }
    for form, features in forms.items():
        yield from functions[form](engine, tables, tuple(features))


def _form(tables: ViewTables, feature: Feature) -> str:
    if feature.kind == "latest":
        return "latest"
    if feature.kind == "nunique":
        return "distinct"
    if feature.kind == "first" and feature.over is None:
        return "first"
    return "first_over" if feature.kind == "first" and not tables.is_late else "windows"
