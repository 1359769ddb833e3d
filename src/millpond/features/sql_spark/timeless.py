"""Tables without time: every row is always visible, so an entity has one value."""

from __future__ import annotations

from collections.abc import Iterator

from millpond.features.assembly import Computed, select_list
from millpond.features.plan import Feature
from millpond.features.sql_spark.measures import measures, running, value
from millpond.features.sql_spark.names import ViewTables
from millpond.lake.ports import Engine
from millpond.lake.spark import quoted as quote


def timeless(engine: Engine, tables: ViewTables, features: tuple[Feature, ...]) -> Iterator[Computed]:
    """Aggregates over all rows of an entity; `latest` and `first` take the greatest and the least key."""
    plan = tables.plan
    distinct = tuple(each for each in features if each.kind == "nunique")
    plain = tuple(each for each in features if each.kind != "nunique")
    if plain:
        rows = f"SELECT eid, {running(measures(plan, plain), '')} AS w FROM {tables.events} GROUP BY eid"
        values = [f"{value(plan, each, 'w.')} AS {quote(each.name)}" for each in plain]
        engine.materialize(tables.name("all"), f"SELECT {select_list('eid AS pid', values)} FROM ({rows})")
        yield Computed(tables.name("all"), plain)
    if distinct:
        values = [f"count(DISTINCT {each.slot}) AS {quote(each.name)}" for each in distinct]
        query = f"SELECT {select_list('eid AS pid', values)} FROM {tables.events} GROUP BY eid"
        engine.materialize(tables.name("distinct"), query)
        yield Computed(tables.name("distinct"), distinct)
