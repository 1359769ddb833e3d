"""Pushing events: told apart, logged and applied in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

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
    key, told = tell(table, key, rows)
    with environment.write() as txn:
        return apply(environment, txn, rules, table, key, rows, told)


def tell(table: str, key: Sequence[str], rows: pa.Table) -> tuple[tuple[str, ...], list[tuple[bytes, bytes]]]:
    """The key's columns, and of each event its key and its digest.

    Raises:
        DataError: The table has no key, or an event has null in it.
        SchemaMismatch: The events lack a column of it.
    """
    if not key:
        raise DataError(
            f"Table {table!r} has no key, so an event that is sent twice could not be told from two events",
            hint=f'declare it: mp.Table("{table}", key=...)',
        )
    return tuple(key), list(zip(keys_of(table, key, rows), digests(rows), strict=True))


def apply(
    environment: Environment,
    txn: Any,
    rules: Callable[[bytes], LiveRules],
    table: str,
    key: tuple[str, ...],
    rows: pa.Table,
    told: Sequence[tuple[bytes, bytes]],
    positions: Sequence[int] | None = None,
) -> Pushed:
    """Log and apply the events that are new, within a transaction.

    Args:
        environment: The store.
        txn: The transaction; it writes.
        rules: Gives the rules of a live view.
        table: The table.
        key: Columns of its key.
        rows: The events.
        told: As `tell` gave for them.
        positions: One an event, in order, where another store gave them; None numbers those that are new.
    """
    record = records.ensure_table(environment, txn, table, key)
    if record.key != key:
        record = records.change_key(environment, txn, table, record, key)
    start = records.counted(environment, txn, b"position") + 1
    fresh: list[int] = []
    taken: list[int] = []
    latest = 0
    for index, (encoded, digest) in enumerate(told):
        name = record.prefix + encoded
        before = txn.get(name, None, environment.seen)
        if before is not None and before[:16] == digest:
            latest = max(latest, SEEN.unpack(before)[1])
        else:
            taken.append(positions[index] if positions is not None else start + len(fresh))
            txn.put(name, SEEN.pack(digest, taken[-1]), db=environment.seen)
            fresh.append(index)
    if not fresh:
        return Pushed(latest, 0, len(told))
    if positions is None:
        records.count_up(environment, txn, b"position", len(fresh))
    events = rows if len(fresh) == rows.num_rows else rows.take(fresh)
    _log(environment, txn, record.prefix, taken, events)
    for view, head in records.heads(environment, txn):
        if head.live and head.table == record.id:
            of_view = rules(view)
            of_view.check_key(key)
            grown = of_view.apply(environment, txn, head.prefix, events)
            changed = head._replace(position=taken[-1], entities=head.entities + grown)
            records.put_head(environment, txn, view, changed)
    return Pushed(taken[-1], len(fresh), len(told) - len(fresh))


def _log(environment: Environment, txn: Any, table: bytes, positions: Sequence[int], events: pa.Table) -> None:
    """Add events to the log, an entry for each run of positions without a gap."""
    start = 0
    for stop in range(1, len(positions) + 1):
        if stop == len(positions) or positions[stop] != positions[stop - 1] + 1:
            log.append(environment, txn, table, positions[start], events.slice(start, stop - start))
            start = stop
