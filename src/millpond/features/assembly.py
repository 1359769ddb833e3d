"""The frame of a join, the same for every dialect: distinct points, each view's features at them, and back."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from millpond.core.errors import DataError
from millpond.features.plan import Feature, Kind, ViewPlan
from millpond.features.spine import check_spine
from millpond.lake.ports import Engine

_LARGEST = 2**63 - 1


@dataclass(frozen=True)
class Points:
    """The distinct (entity, instant) pairs of views with the same entity key and grid.

    Attributes:
        table: Columns pid, eid, us, and the entity's key columns; us is missing where views have no time.
        entities: Columns eid, and the entity's key columns.
        keys: The entity's key columns.
        instant: The instant as an expression over the spine's `__us`; None where no row has one.
    """

    table: str
    entities: str
    keys: tuple[str, ...]
    instant: str | None


@dataclass(frozen=True)
class Computed:
    """A relation with features: column `pid`, and one column a feature, under the feature's full name.

    A point that is missing, or a null, is a feature over nothing. Sums of integers may have more than 64 bits.
    """

    relation: str
    features: tuple[Feature, ...]


class Dialect(Protocol):
    """What an engine's SQL has to say for its part of a join."""

    @property
    def numbered(self) -> str:
        """An expression that gives every row of a query that is kept its own number (a 64-bit integer)."""
        ...

    def quote(self, name: str) -> str:
        """A column's name as an identifier."""
        ...

    def microseconds(self, instant: str) -> str:
        """An instant as microseconds since the epoch."""
        ...

    def kinds(self, engine: Engine, relation: str) -> Mapping[str, Kind]:
        """The columns of a relation, with their kinds."""
        ...

    def compute(self, engine: Engine, prefix: str, plan: ViewPlan, points: Points) -> Iterator[Computed]:
        """Every feature of a view at its points; temporary tables have names that begin with `prefix`."""
        ...


class _Group(NamedTuple):
    """What views share their points by: the entity's key columns, whether they have a time, and their grid's step."""

    keys: tuple[str, ...]
    timed: bool
    every: int | None


def select_list(*parts: str | Sequence[str]) -> str:
    """Expressions joined for a SELECT or an ORDER BY; sequences are flattened."""
    flat: list[str] = []
    for part in parts:
        flat += [part] if isinstance(part, str) else list(part)
    return ", ".join(flat)


def assemble(dialect: Dialect, engine: Engine, spine: str, at: str | None, plans: Sequence[ViewPlan]) -> str:
    """As `millpond.features.point_in_time.join_features`, of views resolved against their snapshots."""
    quote, prefix = dialect.quote, f"__join_{secrets.token_hex(6)}"
    columns = dialect.kinds(engine, spine)
    check_spine(columns, at, plans)
    rows = f"{prefix}_spine"
    instant = dialect.microseconds(quote(at)) if at is not None else "CAST(NULL AS BIGINT)"
    engine.materialize(rows, f"SELECT *, {instant} AS __us FROM {spine}")
    groups: dict[_Group, Points] = {}
    joins, values = [], [f"s.{quote(column)}" for column in columns]
    for index, plan in enumerate(plans):
        group = _Group(plan.entity_keys, plan.time is not None, plan.every)
        if group not in groups:
            groups[group] = _make_points(dialect, engine, f"{prefix}_{len(groups)}", rows, group)
        computed = list(dialect.compute(engine, f"{prefix}_v{index}", plan, groups[group]))
        found = {each.name: f"v{index}_{number}" for number, one in enumerate(computed) for each in one.features}
        for number, one in enumerate(computed):
            _check_sums(dialect, engine, one, plan)
            joins.append((group, f"LEFT JOIN {one.relation} v{index}_{number} ON v{index}_{number}.pid = %s.pid"))
        values += [_final(quote(each.name), each, found[each.name]) for each in plan.features]
    text = f"{rows} s"
    for index, (group, points) in enumerate(groups.items()):
        alias = f"p{index}"
        on = [f"s.{quote(key)} = {alias}.{quote(key)}" for key in points.keys]
        on += [f"{points.instant} = {alias}.us"] if points.instant else []
        text += f" LEFT JOIN {points.table} {alias} ON {' AND '.join(on)} "
        text += " ".join(join % alias for of, join in joins if of == group)
    return f"(SELECT {select_list(values)} FROM {text})"


def _make_points(dialect: Dialect, engine: Engine, prefix: str, rows: str, group: _Group) -> Points:
    keys, timed, every = group
    names = [dialect.quote(key) for key in keys]
    present = " AND ".join(f"{name} IS NOT NULL" for name in names)
    entities, points = f"{prefix}_entities", f"{prefix}_points"
    engine.materialize(
        entities,
        f"""SELECT {dialect.numbered} AS eid, *
            FROM (SELECT DISTINCT {select_list(names)} FROM {rows} WHERE {present}) AS entities""",
    )
    if not timed:
        engine.materialize(points, f"SELECT eid AS pid, * FROM {entities}")
        return Points(points, entities, keys, None)
    instant = "s.__us"
    if every is not None:  # % takes the sign of its left side; the grid goes on below zero
        instant = f"(s.__us - ((s.__us % {every}) + {every}) % {every})"
    on = " AND ".join(f"s.{name} = e.{name}" for name in names)
    engine.materialize(
        points,
        f"""SELECT {dialect.numbered} AS pid, * FROM (
            SELECT DISTINCT e.eid, {instant} AS us, {select_list([f"e.{name}" for name in names])}
            FROM {rows} s JOIN {entities} e ON {on} WHERE s.__us IS NOT NULL) AS points""",
    )
    return Points(points, entities, keys, instant)


def _check_sums(dialect: Dialect, engine: Engine, computed: Computed, plan: ViewPlan) -> None:
    """Refuse sums that do not fit into 64 bits."""
    sums = [each for each in computed.features if each.is_integer_sum]
    if not sums:
        return
    # as text: sums may have 128 bits, which engines need not hand over
    names = [dialect.quote(each.name) for each in sums]
    bounds = [f"CAST({bound}({name}) AS STRING)" for name in names for bound in ("min", "max")]
    found = engine.rows(f"SELECT {select_list(bounds)} FROM {computed.relation} AS computed")[0]
    for feature, least, most in zip(sums, found[::2], found[1::2], strict=True):
        if least is not None and feature.column and (int(least) < -_LARGEST - 1 or int(most) > _LARGEST):
            raise DataError(
                f"The sum {feature.name} reaches {most if int(most) > _LARGEST else least}, "
                "which does not fit into a 64-bit integer",
                where=f"column {feature.column.name!r} of {plan.pinned.snapshot}",
                hint="shorten the window, or sum a float column",
            )


def _final(name: str, feature: Feature, alias: str) -> str:
    value = f"{alias}.{name}"
    if feature.is_count:
        value = f"CAST(coalesce({value}, 0) AS BIGINT)"
    elif feature.is_integer_sum:
        value = f"CAST({value} AS BIGINT)"
    return f"{value} AS {name}"
