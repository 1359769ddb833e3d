"""The audit log: append-only, each entry carrying the hash of the one before."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, insert, select, update  # noqa: TID253

from millpond.access.database import reading, writing
from millpond.access.ports import AuditEntry, Verdict
from millpond.access.schema import audit, audit_head
from millpond.core.fingerprints import canonical_json
from millpond.core.time import format_instant, now

_GENESIS = "0" * 64


class SqlAuditLog:
    """Implements `AuditReader` and `AuditWriter`.

    An entry that is changed, removed, inserted or cut off the end breaks the chain, and `verify` says where. Somebody
    who can write the whole database file could write the whole chain anew: keep `Verdict.head` elsewhere where that
    matters.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def append(
        self, who: str, action: str, object: str, why: str = "", details: Mapping[str, Any] | None = None
    ) -> AuditEntry:
        with writing(self._engine) as connection:
            return append_in(connection, who, action, object, why, details)

    def entries(self, limit: int = 100, before: int | None = None) -> list[AuditEntry]:
        query = select(audit).order_by(audit.c.sequence.desc()).limit(limit)
        if before is not None:
            query = query.where(audit.c.sequence < before)
        with reading(self._engine) as connection:
            return [_entry(row) for row in connection.execute(query)]

    def verify(self) -> Verdict:
        """Read the whole log, in constant memory, at one moment."""
        expected, previous = 1, _GENESIS
        with reading(self._engine) as connection:
            head = connection.execute(select(audit_head.c.sequence, audit_head.c.hash)).one_or_none()
            rows = connection.execution_options(stream_results=True, yield_per=1000)
            for row in rows.execute(select(audit).order_by(audit.c.sequence)):
                if row.sequence != expected:
                    return _broken(expected, previous, f"entry {expected} is missing; the next one is {row.sequence}")
                if row.previous_hash != previous:
                    return _broken(expected, previous, f"entry {expected} does not follow from the one before it")
                if row.hash != _chain(dict(row._mapping), previous):
                    return _broken(expected, previous, f"entry {expected} was changed after it was written")
                expected, previous = expected + 1, row.hash
        if head is None:
            return _broken(expected, previous, "the record of where the log ends is missing")
        if head.sequence != expected - 1 or head.hash != previous:
            return _broken(expected, previous, f"the log ends at {expected - 1}; {head.sequence} were written")
        return Verdict(True, expected - 1, previous)


def append_in(
    connection: Connection,
    who: str,
    action: str,
    object: str,
    why: str = "",
    details: Mapping[str, Any] | None = None,
) -> AuditEntry:
    """Append an entry within a writing transaction, so that it is there if and only if what it tells is."""
    sequence, previous = connection.execute(select(audit_head.c.sequence, audit_head.c.hash)).one()
    values: dict[str, Any] = {
        "sequence": sequence + 1,
        "at": now(),
        "who": who,
        "action": action,
        "object": object,
        "why": why,
        "details": dict(details or {}),
    }
    chained = _chain(values, previous)
    connection.execute(insert(audit).values(**values, previous_hash=previous, hash=chained))
    connection.execute(update(audit_head).values(sequence=sequence + 1, hash=chained))
    return AuditEntry(**values, hash=chained)


def _broken(sequence: int, head: str, problem: str) -> Verdict:
    return Verdict(False, sequence - 1, head, sequence, problem)


def _chain(values: Mapping[str, Any], previous: str) -> str:
    at: datetime = values["at"]
    said = {name: values[name] for name in ("sequence", "who", "action", "object", "why", "details")}
    text = canonical_json({**said, "at": format_instant(at), "previous": previous})
    return hashlib.sha256(text.encode()).hexdigest()


def _entry(row: Row[Any]) -> AuditEntry:
    return AuditEntry(row.sequence, row.at, row.who, row.action, row.object, row.why, row.details, row.hash)
