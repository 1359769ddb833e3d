"""What the prediction log keeps of models' answers: each change together with what the audit log tells of it."""

from __future__ import annotations

from sqlalchemy import Engine, insert, select  # noqa: TID253

from millpond.access.audit import append_in
from millpond.access.database import reading, writing
from millpond.access.ports import AuditNote, PolicyRecord
from millpond.access.schema import log_policies
from millpond.core.time import now


class SqlLogPolicies:
    """Keeps log policies, append-only. Safe across threads and processes; durable when a call returns."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def of(self, model: str) -> list[PolicyRecord]:
        """All that ever held for a model, oldest first; the last one holds now."""
        query = select(log_policies).where(log_policies.c.model == model).order_by(log_policies.c.id)
        with reading(self._engine) as connection:
            rows = connection.execute(query)
            return [PolicyRecord(row.model, row.sample, tuple(row.redact), row.at, row.who) for row in rows]

    def change(self, note: AuditNote, model: str, sample: float, redact: tuple[str, ...]) -> None:
        """Let a policy hold for all versions of a model from now on; audited in the same transaction."""
        row = {"model": model, "sample": sample, "redact": list(redact), "at": now(), "who": note.who}
        with writing(self._engine) as connection:
            connection.execute(insert(log_policies).values(**row))
            append_in(connection, note.who, note.action, note.object, note.why, note.details)
