"""The right to be forgotten: one entity, deleted from the online store at once and from the lake by a rewrite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from millpond.core.errors import NotFound, RequestError
from millpond.core.fingerprints import fingerprint
from millpond.core.names import did_you_mean
from millpond.core.values import read_value
from millpond.definitions.features import Entity
from millpond.lake.ports import Engine, Snapshot
from millpond.lake.schema import quoted
from millpond.platform.alone import alone
from millpond.platform.batch_jobs import give_up_all
from millpond.platform.events import land
from millpond.platform.platform import Platform
from millpond.platform.predictions import flush
from millpond.platform.progress import step

_KINDS = {"int": "int64", "long": "int64", "string": "string", "boolean": "bool", "date": "date", "double": "float64"}


@dataclass(frozen=True)
class Forgotten:
    """What forgetting an entity deleted.

    Attributes:
        entity: The entity's name.
        online: Values and rows deleted from the online store.
        rows: Table -> rows deleted from it in the lake.
        pinned: Snapshots that still hold rows of the entity, because a version or a receipt pins them.
        sources: Files that the entity's tables were ingested from; Millpond does not change them.
    """

    entity: str
    online: int
    rows: Mapping[str, int]
    pinned: tuple[str, ...]
    sources: tuple[str, ...]


def forget(platform: Platform, name: str, key: Mapping[str, Any]) -> Forgotten:
    """Delete an entity: online first, then every row with its key in every table of the lake, predictions included.

    Old snapshots are expired, except those that a version or a receipt pins; these are told. Their files are deleted
    now, those of the last day by a running platform once they are a day old.
    Batches that were stopped are given up: what they have finished may be of the entity.
    Killed at any point, it may be repeated. The audit log keeps that it was done, and a fingerprint of the key.

    Args:
        platform: The project.
        name: The entity.
        key: Its key columns with their values, which may be text.

    Raises:
        NotFound: No such entity.
        RequestError: The key is not the entity's, or a value is not of its column's type.
        Conflict: A batch is running.
    """
    entities = platform.definitions.entities
    if name not in entities:
        raise NotFound(f"There is no entity {name!r}", hint=did_you_mean(name, entities, noun="entities"))
    entity = entities[name]
    if set(key) != set(entity.keys):
        hint = f"its key is {', '.join(entity.keys)}"
        raise RequestError(f"{', '.join(key) or 'nothing'} is not the key of {entity.subject}", hint=hint)
    values = _typed(platform, entity, key)
    give_up_all(platform)
    platform.audit(action="forget", object=f"entity {name}", details={"key": fingerprint({**key})})
    land(platform)
    online = _forget_online(platform, entity, values)
    flush(platform)
    rows: dict[str, int] = {}
    pinned: list[str] = []
    for table in platform.lake.tables():
        found = _forget_in(platform, table, values)
        if found:
            rows[table] = found
        pinned += _still_there(platform, table, values)
    online += _forget_online(platform, entity, values)  # what a refresh has read from the lake meanwhile
    platform.lake.collect_garbage()
    return Forgotten(name, online, rows, tuple(pinned), tuple(dict.fromkeys(_sources(platform, entity))))


def _forget_online(platform: Platform, entity: Entity, values: Mapping[str, Any]) -> int:
    if not platform.has_online:
        return 0
    with step(platform.listener, f"forget {entity.name} online") as current:
        found = platform.online.forget(entity.name, tuple(values[each] for each in entity.keys))
        current.detail = f"{found:,} values and rows"
    return found


def _typed(platform: Platform, entity: Entity, key: Mapping[str, Any]) -> dict[str, Any]:
    """The key's values in the types that the lake has them in."""
    types: dict[str, str] = {}
    for view in platform.definitions.views.values():
        if view.entity.name == entity.name and platform.lake.exists(view.source.name):
            columns = platform.lake.snapshot(view.source.name).columns
            types |= {column.name: column.type for column in columns if column.name in entity.keys}
    values = {}
    for name, value in key.items():
        try:
            values[name] = read_value(value, _KINDS.get(types.get(name, "string"), "string"))
        except ValueError as error:
            raise RequestError(f"{value!r} is no value for {name}: {error}", where=entity.subject) from error
        if values[name] is None:
            raise RequestError(f"{name} is empty", where=entity.subject, hint="give its value")
    return values


def _forget_in(platform: Platform, table: str, values: Mapping[str, Any]) -> int:
    """Rewrite a table without the entity's rows, and let its old snapshots go; how many rows it lost."""
    snapshot = _current(platform, table)
    condition = _condition(snapshot, values) if snapshot is not None else None
    if snapshot is None or condition is None:
        return 0
    with alone(platform, f"table-{table}"), platform.engine() as engine:
        snapshot = platform.lake.snapshot(table)
        found = _count(engine, snapshot, condition)
        if found:
            with step(platform.listener, f"rewrite {table}") as current:
                rest = engine.reader(f"SELECT * FROM {engine.scan(snapshot)} WHERE NOT coalesce({condition}, false)")
                platform.lake.overwrite(table, rest, properties=dict(snapshot.properties))
                current.detail = f"{found:,} rows deleted"
        platform.lake.expire(table, keep_last=1, older_than=timedelta(0))
    return found


def _still_there(platform: Platform, table: str, values: Mapping[str, Any]) -> Iterator[str]:
    """The old snapshots that are kept and hold the entity."""
    current = _current(platform, table)
    if current is None:
        return
    with platform.engine() as engine:
        for snapshot in platform.lake.history(table):
            condition = _condition(snapshot, values)
            if snapshot.id != current.id and condition is not None and _count(engine, snapshot, condition):
                yield str(snapshot)


def _current(platform: Platform, table: str) -> Snapshot | None:
    try:
        return platform.lake.snapshot(table)
    except NotFound:
        return None


def _condition(snapshot: Snapshot, values: Mapping[str, Any]) -> str | None:
    """What holds for rows of the entity; None where the table cannot have any."""
    types = {column.name: column.type for column in snapshot.columns}
    from millpond.serving.log.tables import REQUEST, is_prediction_table

    if set(values) <= set(types):
        return " AND ".join(f'CAST("{name}" AS VARCHAR) = {_text(value)}' for name, value in values.items())
    if is_prediction_table(snapshot.table):
        held = {name: [each for each in types if each.partition("@")[0] == REQUEST + name] for name in values}
        if all(held.values()):
            texts = {
                name: "coalesce(" + ", ".join(f"CAST({quoted(each)} AS VARCHAR)" for each in columns) + ")"
                for name, columns in held.items()
            }
            return " AND ".join(f"{texts[name]} = {_text(value)}" for name, value in values.items())
    return None


def _count(engine: Engine, snapshot: Snapshot, condition: str) -> int:
    return int(engine.rows(f"SELECT count(*) FROM {engine.scan(snapshot)} WHERE {condition}")[0][0])


def _text(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return "'" + text.replace("'", "''") + "'"


def _sources(platform: Platform, entity: Entity) -> Iterator[str]:
    for view in platform.definitions.views.values():
        if view.entity.name == entity.name:
            for table in platform.definitions.behind(view.source):
                yield from table.sources
