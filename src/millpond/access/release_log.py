"""Releases: how far each is, changed in one transaction together with what the audit log tells of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Engine, Row, insert, select, update  # noqa: TID253
from sqlalchemy.exc import IntegrityError  # noqa: TID253

from millpond.access.audit import append_in
from millpond.access.database import reading, writing
from millpond.access.ports import AuditNote, ReleaseRecord
from millpond.access.schema import releases
from millpond.core.errors import Conflict, NotFound
from millpond.core.time import now


class SqlReleases:
    """Keeps releases. Safe across threads and processes; what is written is durable when a call returns."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def begin(self, note: AuditNote, **values: Any) -> ReleaseRecord:
        """A new, active release; `values` are fields of `ReleaseRecord`.

        Raises:
            Conflict: Another release of the model is active.
        """
        moment = now()
        row = {
            **values,
            "active": True,
            "who": note.who,
            "why": note.why,
            "started_at": moment,
            "step_started_at": moment,
            "ended_at": None,
            "counted": {},
            "findings": [],
        }
        try:
            with writing(self._engine) as connection:
                result = connection.execute(insert(releases).values(**row))
                assert result.inserted_primary_key is not None
                number = int(result.inserted_primary_key[0])
                details = {"release": number, **note.details}
                append_in(connection, note.who, note.action, note.object, note.why, details)
        except IntegrityError as error:
            model = values["model"]
            other = self.active(model)
            what = f"version {other.version} of {model} is being released" if other else f"{model} is being released"
            hint = f"end that first: millpond deploy {model} --abort"
            raise Conflict(what[:1].upper() + what[1:], hint=hint) from error
        return ReleaseRecord(id=number, **row)

    def move(
        self, release: ReleaseRecord, *, state: str, step: int, share: float, active: bool, note: AuditNote | None
    ) -> ReleaseRecord:
        """Change where a release is, from where `release` says that it is.

        Raises:
            Conflict: It is somewhere else by now.
        """
        moment = now()
        values: dict[str, Any] = {"state": state, "step": step, "share": share, "active": True if active else None}
        if step != release.step or state == "stepping":
            values |= {"step_started_at": moment, "counted": {}, "findings": []}
        if not active:
            values["ended_at"] = moment
        where = (releases.c.id == release.id) & (releases.c.state == release.state) & (releases.c.step == release.step)
        with writing(self._engine) as connection:
            if connection.execute(update(releases).where(where).values(**values)).rowcount != 1:
                what = f"The release of version {release.version} of {release.model} has moved on meanwhile"
                raise Conflict(what, hint=f"look at it again: millpond deploy {release.model} --status")
            if note is not None:
                details = {"release": release.id, **note.details}
                append_in(connection, note.who, note.action, note.object, note.why, details)
        return self.get(release.id)

    def note(self, release: ReleaseRecord, counted: Mapping[str, Any], findings: Sequence[Mapping[str, Any]]) -> None:
        """Keep what was counted and found in a release's present step; nothing where it has moved on."""
        where = (releases.c.id == release.id) & (releases.c.state == release.state) & (releases.c.step == release.step)
        values = {"counted": dict(counted), "findings": list(findings)}
        with writing(self._engine) as connection:
            connection.execute(update(releases).where(where).values(**values))

    def get(self, number: int) -> ReleaseRecord:
        """Raises NotFound."""
        with reading(self._engine) as connection:
            row = connection.execute(select(releases).where(releases.c.id == number)).one_or_none()
        if row is None:
            raise NotFound(f"There is no release {number}.")
        return _record(row)

    def active(self, model: str) -> ReleaseRecord | None:
        """The release of a model that is under way."""
        with reading(self._engine) as connection:
            wanted = (releases.c.model == model) & releases.c.active.is_(True)
            row = connection.execute(select(releases).where(wanted)).one_or_none()
        return None if row is None else _record(row)

    def all_active(self) -> list[ReleaseRecord]:
        """All releases that are under way, oldest first."""
        with reading(self._engine) as connection:
            query = select(releases).where(releases.c.active.is_(True)).order_by(releases.c.id)
            return [_record(row) for row in connection.execute(query)]

    def of(self, model: str, limit: int | None = None) -> list[ReleaseRecord]:
        """The releases of a model, newest first."""
        with reading(self._engine) as connection:
            query = select(releases).where(releases.c.model == model).order_by(releases.c.id.desc()).limit(limit)
            return [_record(row) for row in connection.execute(query)]


def _record(row: Row[Any]) -> ReleaseRecord:
    return ReleaseRecord(**{**row._mapping, "active": bool(row.active)})
