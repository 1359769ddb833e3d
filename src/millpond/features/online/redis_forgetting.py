"""Deleting an entity from all replicas, and from what Redis holds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from millpond.features.online.events import ViewRows, from_bytes, to_bytes
from millpond.features.online.ports import EntityKey
from millpond.features.online.redis_connection import SEQUENCE, Operation
from millpond.features.online.redis_generations import Entered, scrub
from millpond.features.online.redis_replica import key_bytes
from millpond.features.online.redis_shared import Shared

if TYPE_CHECKING:
    import pyarrow as pa

_AT_ONCE = 100


def forget(shared: Shared, entity: str, key: EntityKey) -> int:
    """As `OnlineStore.forget`; the count is that of this server's replica.

    Replicas delete the entity when they come to the operation. What Redis holds is cleared here, and what could not be
    (the process is killed, say) is left out by whoever takes it over.
    """
    connection, keys = shared.connection, shared.connection.keys
    held = [Entered.read(data) for data in connection.hash(keys.views).values()]
    held = [each for each in held if each.view["entity"] == entity]
    being_made = [json.loads(each)["view"] for each in connection.hash(keys.making).values()]
    if not held and not being_made:
        return 0
    encoded = {each.of.fingerprint: ViewRows(each.of).entities.encode(key) for each in held}  # raises before it is said
    packed = key_bytes(key)
    commands: list[list[str | bytes]] = [["HSET", keys.forgotten, SEQUENCE, entity.encode() + b"\0" + packed]]
    meta = json.dumps({"entity": entity, "key": packed.hex(), "origin": shared.replica.origin})
    sequence = shared.commit(Operation("forget", meta, commands=commands)).sequence
    shared.applied(sequence)
    for entry in held:
        for generation in entry.generations:
            scrub(connection, generation, encoded[entry.of.fingerprint])
    rows = {(each.view["table"], each.of.entity_keys): ViewRows(each.of) for each in held}
    for (table, _), of_view in rows.items():
        _scrub_log(shared, table, of_view, of_view.entities.encode(key), sequence)
    return int(shared.replica.result(sequence).get("count", 0))


def _scrub_log(shared: Shared, table: str, view: ViewRows, entity: bytes, until: int) -> None:
    connection, keys = shared.connection, shared.connection.keys
    start = "-"
    while True:
        with connection.errors():
            found = connection.client.xrange(keys.log, start, f"{until}-0", count=_AT_ONCE)
        for id_, fields in found:
            meta = json.loads(fields[b"meta"])
            if fields[b"kind"] == b"events" and meta["table"] == table:
                number = id_.split(b"-")[0].decode()
                with connection.errors():
                    data = connection.client.hget(keys.payloads, number)
                if data is not None:
                    first = int(fields[b"last"]) - meta["events"] + 1
                    kept = _without(from_bytes(data), view, entity, range(first, first + meta["events"]))
                    if kept is not None:
                        connection.replace(keys.payloads, number, to_bytes(kept))
        if len(found) < _AT_ONCE:
            return
        start = f"({found[-1][0].decode()}"


def _without(rows: pa.Table, view: ViewRows, entity: bytes, positions: Iterable[int]) -> pa.Table | None:
    """The events of others, with their positions; None where all are of others."""
    import pyarrow as pa

    said = (rows.schema.metadata or {}).get(b"positions")
    numbers = json.loads(said) if said else list(positions)
    kept = [index for index, each in enumerate(view.entities_of(rows)) if each != entity]
    if len(kept) == rows.num_rows:
        return None
    return rows.take(pa.array(kept, pa.int64())).replace_schema_metadata(
        {b"positions": json.dumps([numbers[each] for each in kept])}
    )
