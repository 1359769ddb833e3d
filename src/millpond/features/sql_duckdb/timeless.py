"""Tables without time: every row is always visible, so an entity has one value."""

from __future__ import annotations

from collections.abc import Iterator

from millpond.features.assembly import Computed, select_list
from millpond.features.plan import Feature
from millpond.features.sql_duckdb.names import ViewTables, quote
from millpond.lake.ports import Engine

_WHOLE = {
    "count": "count({})",
    "nunique": "count(DISTINCT {})",
    "mean": "avg({}::DOUBLE)",
    "std": "stddev_samp({}::DOUBLE)",
    "min": "min({})",
    "max": "max({})",
}


def timeless(engine: Engine, tables: ViewTables, features: tuple[Feature, ...]) -> Iterator[Computed]:
    """Aggregates over all rows of an entity; `latest` and `first` take the greatest and the least key."""
    groups = {"latest": ("DESC", "max"), "first": ("ASC", "min")}
    plain = tuple(each for each in features if each.kind not in groups)
    if plain:
        values = [f"{_aggregate(each)} AS {quote(each.name)}" for each in plain]
        computed = tables.name("all")
        engine.execute(f"""
            CREATE TEMP TABLE {computed} AS
            SELECT {select_list("eid AS pid", values)} FROM {tables.events} GROUP BY eid""")
        yield Computed(computed, plain)
    for kind, (direction, best) in groups.items():
        picked = tuple(each for each in features if each.kind == kind)
        if not picked:
            continue
        computed = tables.name(kind)
        if tables.plan.row_keys:
            values = [f"{each.slot} AS {quote(each.name)}" for each in picked]
            order = select_list([f"{slot} {direction}" for slot in tables.key_slots])
            query = f"""SELECT {select_list("eid AS pid", values)} FROM {tables.events}
                QUALIFY row_number() OVER (PARTITION BY eid ORDER BY {order}) = 1"""
        else:
            values = [f"{best}({each.slot}) AS {quote(each.name)}" for each in picked]
            query = f"SELECT {select_list('eid AS pid', values)} FROM {tables.events} GROUP BY eid"
        engine.execute(f"CREATE TEMP TABLE {computed} AS {query}")
        yield Computed(computed, picked)


def _aggregate(feature: Feature) -> str:
    column = feature.column
    if column is None:
        return "count(*)"
    if feature.kind in ("sum", "mean") and column.exact:
        total = f"sum({feature.slot}{'::BIGINT' if column.kind == 'boolean' else ''})"
        if feature.kind == "mean":
            return f"{total}::DOUBLE / nullif(count({feature.slot}), 0)"
        return total if feature.is_integer_sum else f"{total}::DOUBLE"
    if feature.kind == "sum":
        return f"sum({feature.slot}::DOUBLE)"
    return _WHOLE[feature.kind].format(feature.slot)
