"""Pushing events: told apart, logged and applied in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from millpond.core.errors import DataError
from millpond.features.online import log, records
from millpond.features.online.applying import LiveRules
from millpond.features.online.environment import Environment
from millpond.features.online.events import digests, keys_of
from millpond.features.online.forgetting import SEEN
from millpond.features.online.ports import Pushed

if TYPE_CHECKING:
    import pyarrow as pa


def push(
    environment: Environment, rules: Callable[[bytes], LiveRules], table: str, key: Sequence[str], rows: pa.Table
) -> Pushed:
    """As `OnlineStore.push`; `rules` gives the rules of a live view."""
    key = tuple(key)
    if not key:
        raise DataError(
            f"Table {table!r} has no key, so an event that is sent twice could not be told from two events",
            hint=f'declare it: mp.Table("{table}", key=...)',
        )
    told = list(zip(keys_of(table, key, rows), digests(rows), strict=True))
    with environment.write() as txn:
        record = records.ensure_table(environment, txn, table, key)
        if record.key != key:
            record = records.change_key(environment, txn, table, record, key)
        first = records.counted(environment, txn, b"position") + 1
        fresh: list[int] = []
        latest = 0
        for index, (encoded, digest) in enumerate(told):
            name = record.prefix + encoded
            before = txn.get(name, None, environment.seen)
            if before is not None and before[:16] == digest:
                latest = max(latest, SEEN.unpack(before)[1])
            else:
                txn.put(name, SEEN.pack(digest, first + len(fresh)), db=environment.seen)
                fresh.append(index)
        if not fresh:
            return Pushed(latest, 0, len(told))
        last = records.count_up(environment, txn, b"position", len(fresh))
        events = rows if len(fresh) == rows.num_rows else rows.take(fresh)
        log.append(environment, txn, record.prefix, first, events)
        for view, head in records.heads(environment, txn):
            if head.live and head.table == record.id:
                of_view = rules(view)
                of_view.check_key(key)
                grown = of_view.apply(environment, txn, head.prefix, events)
                changed = head._replace(position=last, entities=head.entities + grown)
                records.put_head(environment, txn, view, changed)
        return Pushed(last, len(fresh), len(told) - len(fresh))
