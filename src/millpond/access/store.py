"""Identities, and the secrets by which they are known: tokens, one-time login codes, browser sessions."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, Row, delete, insert, select, update  # noqa: TID253
from sqlalchemy.exc import IntegrityError  # noqa: TID253

from millpond.access.audit import SqlAuditLog
from millpond.access.database import open_database, reading, writing
from millpond.access.definition_log import SqlDefinitionLog
from millpond.access.policy_log import SqlLogPolicies
from millpond.access.ports import Identity, IdentityKind, IssuedToken, Token
from millpond.access.release_log import SqlReleases
from millpond.access.schema import identities, login_codes, sessions, tokens
from millpond.access.secrets import digest, new_secret, new_token, shown_prefix
from millpond.core.errors import Conflict, NotFound, RequestError
from millpond.core.time import Duration, grid_floor, now

CODE_LIFE = timedelta(minutes=10)
SESSION_LIFE = timedelta(days=30)
_HOUR = Duration.parse("1h")
_IDENTITY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")


class AccessStore:
    """Keeps identities and their secrets, and opens the logs beside them. Safe across threads and processes.

    Secrets are stored as SHA-256 only. Every write is one transaction. Revoking counts from the next call on.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.audit = SqlAuditLog(engine)
        self.definitions = SqlDefinitionLog(engine)
        self.releases = SqlReleases(engine)
        self.log_policies = SqlLogPolicies(engine)

    @classmethod
    def open(cls, database: Path) -> AccessStore:
        """Open `platform.db`, made and migrated as needed. Raises as `open_database`."""
        return cls(open_database(database))

    def close(self) -> None:
        self._engine.dispose()

    def create_identity(self, name: str, kind: IdentityKind = "user") -> Identity:
        """Raises Conflict where the name is taken, RequestError where it is no name."""
        if not _IDENTITY_NAME.fullmatch(name):
            hint = 'letters, digits and ". _ @ + -", starting with a letter or digit, at most 100'
            raise RequestError(f"{name!r} is no name for an identity.", hint=hint)
        identity = Identity(name, kind, now())
        try:
            with writing(self._engine) as connection:
                connection.execute(insert(identities).values(name=name, kind=kind, created_at=identity.created_at))
        except IntegrityError as error:
            raise Conflict(f"An identity called {name!r} exists already.") from error
        return identity

    def identity(self, name: str) -> Identity:
        """Raises NotFound."""
        with reading(self._engine) as connection:
            row = connection.execute(select(identities).where(identities.c.name == name)).one_or_none()
        if row is None:
            raise NotFound(f"There is no identity called {name!r}.")
        return _identity(row)

    def identities(self) -> list[Identity]:
        """By name."""
        with reading(self._engine) as connection:
            return [_identity(row) for row in connection.execute(select(identities).order_by(identities.c.name))]

    def issue_token(self, identity: str, label: str = "") -> IssuedToken:
        """A new token for an identity; raises NotFound where there is none of that name."""
        self.identity(identity)
        secret = new_token()
        values: dict[str, Any] = {
            "identity": identity,
            "prefix": shown_prefix(secret),
            "label": label,
            "created_at": now(),
            "last_used_at": None,
            "revoked_at": None,
        }
        with writing(self._engine) as connection:
            result = connection.execute(insert(tokens).values(hash=digest(secret), **values))
            assert result.inserted_primary_key is not None
            number = int(result.inserted_primary_key[0])
        return IssuedToken(Token(id=number, **values), secret)

    def tokens(self, identity: str | None = None) -> list[Token]:
        """All tokens, or an identity's, oldest first, revoked ones included."""
        query = select(tokens).order_by(tokens.c.id)
        if identity is not None:
            query = query.where(tokens.c.identity == identity)
        with reading(self._engine) as connection:
            return [_token(row) for row in connection.execute(query)]

    def find_token(self, secret: str) -> Token | None:
        """What is kept of a token, also of a revoked one."""
        with reading(self._engine) as connection:
            row = connection.execute(select(tokens).where(tokens.c.hash == digest(secret))).one_or_none()
        return None if row is None else _token(row)

    def revoke_token(self, number: int) -> None:
        """Idempotent; raises NotFound where there is no such token."""
        with writing(self._engine) as connection:
            if connection.scalar(select(tokens.c.id).where(tokens.c.id == number)) is None:
                raise NotFound(f"There is no token {number}.")
            valid = (tokens.c.id == number) & tokens.c.revoked_at.is_(None)
            connection.execute(update(tokens).where(valid).values(revoked_at=now()))

    def authenticate_token(self, secret: str) -> Identity | None:
        """Whose token this is; None for an unknown or revoked one. Notes the hour of its use."""
        token = tokens.join(identities, tokens.c.identity == identities.c.name)
        query = select(identities, tokens.c.id, tokens.c.last_used_at).select_from(token)
        with reading(self._engine) as connection:
            wanted = (tokens.c.hash == digest(secret)) & tokens.c.revoked_at.is_(None)
            row = connection.execute(query.where(wanted)).one_or_none()
        if row is None:
            return None
        hour = grid_floor(now(), _HOUR)
        if row.last_used_at != hour:
            with writing(self._engine) as connection:
                connection.execute(update(tokens).where(tokens.c.id == row.id).values(last_used_at=hour))
        return _identity(row)

    def issue_login_code(self, identity: str, at: datetime | None = None) -> str:
        """A code that makes one browser session, within `CODE_LIFE` of `at` (default: now)."""
        self.identity(identity)
        issued, code = at or now(), new_secret()
        with writing(self._engine) as connection:
            connection.execute(delete(login_codes).where(login_codes.c.expires_at < now() - SESSION_LIFE))
            values = {"hash": digest(code), "identity": identity, "expires_at": issued + CODE_LIFE}
            connection.execute(insert(login_codes).values(**values))
        return code

    def redeem_login_code(self, code: str) -> tuple[Identity, str] | None:
        """Use a code up, and open a session: whose it is, and its secret.

        None for an unknown, used or expired code. Of several calls with one code, also at once, one succeeds.
        """
        moment = now()
        with writing(self._engine) as connection:
            fresh = login_codes.c.used_at.is_(None) & (login_codes.c.expires_at > moment)
            mark = update(login_codes).where((login_codes.c.hash == digest(code)) & fresh).values(used_at=moment)
            identity = connection.scalar(mark.returning(login_codes.c.identity))
        return None if identity is None else (self.identity(identity), self.open_session(identity))

    def open_session(self, identity: str) -> str:
        """A new browser session; its secret."""
        secret, moment = new_secret(), now()
        values = {"identity": identity, "created_at": moment, "expires_at": moment + SESSION_LIFE}
        with writing(self._engine) as connection:
            connection.execute(delete(sessions).where(sessions.c.expires_at < moment))
            connection.execute(insert(sessions).values(hash=digest(secret), **values))
        return secret

    def authenticate_session(self, secret: str) -> Identity | None:
        """Whose session this is; None for an unknown, expired or revoked one."""
        session = sessions.join(identities, sessions.c.identity == identities.c.name)
        valid = sessions.c.revoked_at.is_(None) & (sessions.c.expires_at > now())
        query = select(identities).select_from(session).where((sessions.c.hash == digest(secret)) & valid)
        with reading(self._engine) as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _identity(row)

    def revoke_session(self, secret: str) -> None:
        """Idempotent."""
        with writing(self._engine) as connection:
            connection.execute(update(sessions).where(sessions.c.hash == digest(secret)).values(revoked_at=now()))

    def revoke_sessions(self, identity: str) -> int:
        """End all of an identity's sessions; how many there were."""
        with writing(self._engine) as connection:
            valid = (sessions.c.identity == identity) & sessions.c.revoked_at.is_(None)
            return connection.execute(update(sessions).where(valid).values(revoked_at=now())).rowcount


def _identity(row: Row[Any]) -> Identity:
    return Identity(row.name, row.kind, row.created_at)


def _token(row: Row[Any]) -> Token:
    values = {name: value for name, value in row._mapping.items() if name != "hash"}
    return Token(**values)
