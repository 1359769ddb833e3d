"""What tables, views and models have meant: append-only, each meaning of an object with its version number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, insert, select  # noqa: TID253

from millpond.access.database import reading, writing
from millpond.access.ports import AppliedDefinition
from millpond.access.schema import applied_definitions as applied
from millpond.core.fingerprints import fingerprint
from millpond.core.time import now

_Key = tuple[str, str]


class SqlDefinitionLog:
    """Implements `DefinitionReader` and `DefinitionWriter`.

    Numbers are given under the write lock, so that two processes never give one number to two meanings.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def everything(self) -> list[AppliedDefinition]:
        with reading(self._engine) as connection:
            return [_applied(row) for row in connection.execute(select(applied).order_by(applied.c.sequence))]

    def in_force(self) -> dict[_Key, AppliedDefinition]:
        with reading(self._engine) as connection:
            return _in_force(connection)

    def apply(
        self,
        who: str,
        meanings: Mapping[_Key, Mapping[str, Any] | None],
        code: Callable[[], tuple[str | None, bool]],
    ) -> list[AppliedDefinition]:
        prints = {key: None if each is None else fingerprint(each) for key, each in meanings.items()}
        with reading(self._engine) as connection:
            if not _differing(connection, prints):
                return []
        commit, dirty = code()  # asks git, which takes a while: not under the write lock
        with writing(self._engine) as connection:
            sequence = connection.scalar(select(func.coalesce(func.max(applied.c.sequence), 0))) or 0
            made = []
            for kind, name in _differing(connection, prints):
                sequence += 1
                print_ = prints[kind, name]
                row = AppliedDefinition(
                    sequence=sequence,
                    kind=kind,
                    name=name,
                    number=None if print_ is None else _number(connection, kind, name, print_),
                    fingerprint=print_,
                    meaning=meanings[kind, name],
                    at=now(),
                    who=who,
                    code_commit=commit,
                    code_dirty=dirty,
                )
                connection.execute(insert(applied).values(**vars(row)))
                made.append(row)
        return made


def _differing(connection: Connection, prints: Mapping[_Key, str | None]) -> list[_Key]:
    found = _in_force(connection)
    return [key for key, print_ in prints.items() if print_ != (found[key].fingerprint if key in found else None)]


def _in_force(connection: Connection) -> dict[_Key, AppliedDefinition]:
    last = select(func.max(applied.c.sequence)).group_by(applied.c.kind, applied.c.name)
    query = select(applied).where(applied.c.sequence.in_(last), applied.c.number.is_not(None))
    return {(row.kind, row.name): _applied(row) for row in connection.execute(query.order_by(applied.c.sequence))}


def _number(connection: Connection, kind: str, name: str, print_: str) -> int:
    mine = (applied.c.kind == kind) & (applied.c.name == name)
    before = connection.scalar(select(applied.c.number).where(mine, applied.c.fingerprint == print_).limit(1))
    if before is not None:
        return int(before)
    return int(connection.scalar(select(func.coalesce(func.max(applied.c.number), 0)).where(mine)) or 0) + 1


def _applied(row: Row[Any]) -> AppliedDefinition:
    return AppliedDefinition(**row._mapping)
