"""Deleting an entity: its values, its live rows, its events in the log, and what tells that they were there."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from millpond.features.online import log, records
from millpond.features.online.applying import LiveRules
from millpond.features.online.environment import Environment
from millpond.features.online.events import Place, ViewRows, keys_of
from millpond.features.online.ports import EntityKey, OnlineView
from millpond.features.online.records import TableRecord
from millpond.features.online.transactions import Writes, after

#: What is kept of a row that was pushed: digest and position.
SEEN = struct.Struct(">16sQ")


@dataclass(frozen=True)
class Forgetting:
    """One transaction that deletes an entity.

    Attributes:
        environment: The store.
        txn: The transaction; it writes.
        rules: Gives the rules of a live view.
    """

    environment: Environment
    txn: Any
    rules: Callable[[bytes], LiveRules]

    def forget(self, entity: str, key: EntityKey) -> int:
        """As `OnlineStore.forget`."""
        environment, txn = self.environment, self.txn
        under_way = {intent.view for intent in records.intents(environment, txn)}
        count, tables = 0, dict[tuple[str, tuple[str, ...]], ViewRows]()
        for view_id, view in records.views(environment, txn):
            if view.entity != entity:
                continue
            rows = ViewRows(view)
            encoded = rows.entities.encode(key)
            count += self._forget_view(view_id, encoded)
            if view_id in under_way:
                records.mark_forgotten(environment, txn, view_id, encoded)
            tables[view.table, view.entity_keys] = rows
        for (table, _), rows in tables.items():
            record = records.table_of(environment, txn, table)
            if record is not None:
                count += self._forget_log(table, record, rows, rows.entities.encode(key))
                self._forget_seen(record)
        return count

    def _forget_view(self, view: bytes, entity: bytes) -> int:
        environment, txn = self.environment, self.txn
        head = records.head_of(environment, txn, view)
        if head is None:
            return 0
        if head.live:
            count = forget_live(environment, txn, self.rules(view), head.prefix, entity)
        else:
            count = int(txn.delete(head.prefix + entity, db=environment.values))
        if count:
            records.put_head(environment, txn, view, head._replace(entities=head.entities - 1))
        return count

    def _forget_log(self, name: str, table: TableRecord, rows: ViewRows, entity: bytes) -> int:
        environment, txn, count = self.environment, self.txn, 0
        for entry in list(log.entries(environment, txn, table.prefix, 0)):
            events = entry.rows()
            keep = [each != entity for each in rows.entities_of(events)]
            if all(keep):
                continue
            log.remove(environment, txn, table.prefix, entry, keep)
            count += keep.count(False)
            if set(table.key) <= set(events.column_names):
                for index, key in enumerate(keys_of(name, table.key, events)):
                    seen = txn.get(table.prefix + key, db=environment.seen)
                    if not keep[index] and seen is not None and SEEN.unpack(seen)[1] == entry.first + index:
                        txn.delete(table.prefix + key, db=environment.seen)
        return count

    def _forget_seen(self, table: TableRecord) -> None:
        """Whose rows those were that have left the log is not known: forget the keys of all of them.

        One of them that comes again is then logged again, and replaces its row by the same row.
        """
        cursor = self.txn.cursor(self.environment.seen)
        found = cursor.set_range(table.prefix)
        while found and cursor.key().startswith(table.prefix):
            gone = SEEN.unpack(cursor.value())[1] <= table.purged
            found = cursor.delete() if gone else cursor.next()


def forget_live(environment: Environment, txn: Any, rules: LiveRules, prefix: bytes, entity: bytes) -> int:
    """Delete an entity from a generation of a live view; how many rows were deleted."""
    deleted: int = rules.live.forget(Writes(txn, environment.live), prefix, entity)
    is_of = Place.is_of(entity)
    places = Writes(txn, environment.places)
    for key in [key for key, place in places.scan(prefix, after(prefix)) if is_of(place)]:
        places.delete(key)
    return deleted


def drop(environment: Environment, txn: Any, view: OnlineView) -> None:
    """Delete the state of a view; its entries become waste."""
    view_id = records.view_id(view)
    head = records.head_of(environment, txn, view_id)
    if head is not None:
        records.put_garbage(environment, txn, head.prefix)
    txn.delete(view_id, db=environment.heads)
    txn.delete(view_id, db=environment.views)
