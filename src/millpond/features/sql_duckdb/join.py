"""The join in DuckDB: distinct points, the events that matter, one computation a form, and back to the spine."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from millpond.core.errors import DataError, DefinitionError, SchemaMismatch
from millpond.core.names import did_you_mean
from millpond.features.plan import Feature, Kind, ViewPlan, column_kind
from millpond.features.sql_duckdb.distinct import distinct
from millpond.features.sql_duckdb.evidence import evidence
from millpond.features.sql_duckdb.names import Computed, ViewTables, quote, select_list
from millpond.features.sql_duckdb.picks import first, first_over, latest
from millpond.features.sql_duckdb.timeless import timeless
from millpond.features.sql_duckdb.windows import windows
from millpond.lake.ports import Engine

_LARGEST = 2**63 - 1


@dataclass(frozen=True)
class _Points:
    """The distinct (entity, instant) pairs of views with the same entity key and grid.

    Attributes:
        table: Columns pid, eid, us, and the entity's key columns.
        entities: Columns eid, and the entity's key columns.
        keys: The entity's key columns.
        instant: The instant as an expression over the spine's `__us`; None where no row has one.
    """

    table: str
    entities: str
    keys: tuple[str, ...]
    instant: str | None


class _Group(NamedTuple):
    """What views share their points by: the entity's key columns, whether they have a time, and their grid's step."""

    keys: tuple[str, ...]
    timed: bool
    every: int | None


class DuckDBDialect:
    """Point-in-time joins in DuckDB's SQL.

    Args:
        tile_rows: Rows of an entity that the smallest tiles of `windows` should hold; speed depends on it alone.
    """

    def __init__(self, tile_rows: float = 8.0) -> None:
        self._tile_rows = tile_rows

    def join(self, engine: Engine, spine: str, at: str | None, plans: Sequence[ViewPlan]) -> str:
        """As `millpond.features.point_in_time.join_features`, of views resolved against their snapshots."""
        prefix = f"__join_{secrets.token_hex(6)}"
        columns = _check_spine(engine, spine, at, plans)
        rows = f"{prefix}_spine"
        instant = f"epoch_us({quote(at)})" if at is not None else "NULL::BIGINT"
        engine.execute(f"CREATE TEMP TABLE {rows} AS SELECT *, {instant} AS __us FROM {spine}")
        groups: dict[_Group, _Points] = {}
        joins, values = [], [f"s.{quote(column)}" for column in columns]
        for index, plan in enumerate(plans):
            group = _Group(plan.entity_keys, plan.time is not None, plan.every)
            if group not in groups:
                groups[group] = _make_points(engine, f"{prefix}_{len(groups)}", rows, group)
            points = groups[group]
            tables = _make_tables(engine, f"{prefix}_v{index}", plan, points, self._tile_rows)
            computed = list(_compute(engine, tables))
            found = {each.name: f"v{index}_{number}" for number, one in enumerate(computed) for each in one.features}
            for number, one in enumerate(computed):
                _check_sums(engine, one, plan)
                joins.append((group, f"LEFT JOIN {one.relation} v{index}_{number} ON v{index}_{number}.pid = %s.pid"))
            values += [_final(each, found[each.name]) for each in plan.features]
        text = f"{rows} s"
        for index, (group, points) in enumerate(groups.items()):
            alias = f"p{index}"
            on = [f"s.{quote(key)} = {alias}.{quote(key)}" for key in points.keys]
            on += [f"{points.instant} = {alias}.us"] if points.instant else []
            text += f" LEFT JOIN {points.table} {alias} ON {' AND '.join(on)} "
            text += " ".join(join % alias for of, join in joins if of == group)
        return f"(SELECT {select_list(values)} FROM {text})"

    def evidence(
        self, engine: Engine, plan: ViewPlan, example: str, at: datetime | None
    ) -> dict[str, tuple[int, datetime | None, list[tuple[Any, ...]]]]:
        """As `millpond.features.point_in_time.Dialect.evidence`."""
        return evidence(engine, plan, example, at)

    def keep(self, engine: Engine, name: str, query: str) -> None:
        """Keep the rows of a query as a temporary table."""
        engine.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {query}")

    def quote(self, name: str) -> str:
        """A column's name in double quotes."""
        return quote(name)


def _check_spine(engine: Engine, spine: str, at: str | None, plans: Sequence[ViewPlan]) -> tuple[str, ...]:
    """The spine's column names, after the columns that the views need were found fit."""
    types = {row[0]: _spine_kind(row[1]) for row in engine.rows(f"DESCRIBE SELECT * FROM {spine}")}
    if at is not None:
        _need(at, types)
        if types[at] != "instant":
            raise SchemaMismatch(
                f"Column {at!r} of the examples is no instant", hint="it must be a timestamp with a time zone"
            )
    for plan in plans:
        source = {column.name: column_kind(column.type) for column in plan.pinned.snapshot.columns}
        for key in plan.entity_keys:
            _need(key, types)
            if types[key] != source[key]:
                raise SchemaMismatch(
                    f"Entity key {key!r} is {types[key]} in the examples and {source[key]} in {plan.pinned.snapshot}",
                    where=str(plan.pinned.view.declared_at),
                    hint="give the column the same type in both tables",
                )
        for feature in plan.features:
            if feature.name in types:
                raise DefinitionError(
                    f"The examples already have a column {feature.name!r}, which is a feature's name",
                    where=str(plan.pinned.view.declared_at),
                    hint="rename the view, the feature or the column",
                )
    return tuple(types)


def _need(column: str, types: dict[str, Kind]) -> None:
    if column not in types:
        raise SchemaMismatch(
            f"The examples have no column {column!r}", hint=did_you_mean(column, types, noun="columns")
        )


def _spine_kind(type_: str) -> Kind:
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


def _make_points(engine: Engine, prefix: str, rows: str, group: _Group) -> _Points:
    keys, timed, every = group
    names = [quote(key) for key in keys]
    present = " AND ".join(f"{name} IS NOT NULL" for name in names)
    entities, points = f"{prefix}_entities", f"{prefix}_points"
    engine.execute(f"""
        CREATE TEMP TABLE {entities} AS
        SELECT row_number() OVER () AS eid, *
        FROM (SELECT DISTINCT {select_list(names)} FROM {rows} WHERE {present})""")
    if not timed:
        engine.execute(f"CREATE TEMP TABLE {points} AS SELECT eid AS pid, * FROM {entities}")
        return _Points(points, entities, keys, None)
    instant = "s.__us"
    if every is not None:  # % takes the sign of its left side; the grid goes on below zero
        instant = f"(s.__us - ((s.__us % {every}) + {every}) % {every})"
    on = select_list(names)
    engine.execute(f"""
        CREATE TEMP TABLE {points} AS
        SELECT row_number() OVER () AS pid, * FROM (
            SELECT DISTINCT e.eid, {instant} AS us, {select_list([f"e.{name}" for name in names])}
            FROM {rows} s JOIN {entities} e USING ({on}) WHERE s.__us IS NOT NULL)""")
    return _Points(points, entities, keys, instant)


def _make_tables(engine: Engine, prefix: str, plan: ViewPlan, points: _Points, tile_rows: float) -> ViewTables:
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


def _check_sums(engine: Engine, computed: Computed, plan: ViewPlan) -> None:
    """Refuse sums that do not fit into 64 bits."""
    for feature in computed.features:
        if feature.is_integer_sum and feature.column is not None:
            name = quote(feature.name)
            # as text: sums have 128 bits, which engines need not hand over
            least, most = f"min({name})::VARCHAR", f"max({name})::VARCHAR"
            lowest, highest = engine.rows(f"SELECT {least}, {most} FROM {computed.relation}")[0]
            if lowest is not None and (int(lowest) < -_LARGEST - 1 or int(highest) > _LARGEST):
                raise DataError(
                    f"The sum {feature.name} reaches {highest if int(highest) > _LARGEST else lowest}, "
                    "which does not fit into a 64-bit integer",
                    where=f"column {feature.column.name!r} of {plan.pinned.snapshot}",
                    hint="shorten the window, or sum a float column",
                )


def _final(feature: Feature, alias: str) -> str:
    value = f"{alias}.{quote(feature.name)}"
    if feature.is_count:
        value = f"coalesce({value}, 0)::BIGINT"
    elif feature.is_integer_sum:
        value += "::BIGINT"
    return f"{value} AS {quote(feature.name)}"
