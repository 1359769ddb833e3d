"""The tables of the platform database. Changed only together with a migration in `migrations/versions`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (  # noqa: TID253
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)


class Instant(TypeDecorator[datetime]):
    """An aware instant; kept in UTC, also by databases that know no time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:  # noqa: ARG002
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        stored: datetime = value
        return stored.replace(tzinfo=UTC) if stored.tzinfo is None else stored.astimezone(UTC)


metadata = MetaData()

identities = Table(
    "identities",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("kind", String(20), nullable=False),
    Column("created_at", Instant, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("identity", ForeignKey("identities.name"), nullable=False),
    Column("hash", String(64), nullable=False, unique=True),
    Column("prefix", String(16), nullable=False),
    Column("label", String(200), nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("last_used_at", Instant),
    Column("revoked_at", Instant),
)

login_codes = Table(
    "login_codes",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("identity", ForeignKey("identities.name"), nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("used_at", Instant),
)

sessions = Table(
    "sessions",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("identity", ForeignKey("identities.name"), nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("revoked_at", Instant),
    Index("sessions_of_identity", "identity"),
)

audit = Table(
    "audit",
    metadata,
    Column("sequence", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("at", Instant, nullable=False),
    Column("who", String(100), nullable=False),
    Column("action", String(100), nullable=False),
    Column("object", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("details", JSON, nullable=False),
    Column("previous_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)

#: One row: where the audit log ends, so that entries cut off its end are missed.
audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
)

#: Append-only: every time that an object took on another meaning. `number` is null where it was no longer declared.
applied_definitions = Table(
    "applied_definitions",
    metadata,
    Column("sequence", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("kind", String(20), nullable=False),
    Column("name", String(100), nullable=False),
    Column("number", Integer),
    Column("fingerprint", String(16)),
    Column("meaning", JSON(none_as_null=True)),
    Column("at", Instant, nullable=False),
    Column("who", String(100), nullable=False),
    Column("code_commit", String(64)),
    Column("code_dirty", Boolean, nullable=False),
    Index("applied_definitions_of_object", "kind", "name", "sequence"),
)

#: `active` is true or null, never false: so that one release of a model is active at most.
releases = Table(
    "releases",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model", String(100), nullable=False),
    Column("version", Integer, nullable=False),
    Column("against", Integer),
    Column("kind", String(20), nullable=False),
    Column("plan", JSON, nullable=False),
    Column("state", String(20), nullable=False),
    Column("step", Integer, nullable=False),
    Column("share", Float, nullable=False),
    Column("active", Boolean),
    Column("who", String(100), nullable=False),
    Column("why", Text, nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("step_started_at", Instant, nullable=False),
    Column("ended_at", Instant),
    Column("counted", JSON, nullable=False),
    Column("findings", JSON, nullable=False),
    UniqueConstraint("model", "active", name="one_active_release_of_a_model"),
)

#: Append-only: what the prediction log keeps of a model's answers, from an instant on.
log_policies = Table(
    "log_policies",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model", String(100), nullable=False),
    Column("sample", Float, nullable=False),
    Column("redact", JSON, nullable=False),
    Column("at", Instant, nullable=False),
    Column("who", String(100), nullable=False),
    Index("log_policies_of_model", "model", "id"),
)
