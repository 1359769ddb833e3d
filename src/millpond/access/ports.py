"""Who may do something, and what was done: the nouns of access, and what other rooms need of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

IdentityKind = Literal["user", "service"]


@dataclass(frozen=True)
class Identity:
    """Somebody, or some program, that may use the platform.

    Attributes:
        name: Unique; letters, digits and ". _ @ + -", at most 100 characters.
        kind: "user" for a person, "service" for a program.
        created_at: UTC.
    """

    name: str
    kind: IdentityKind
    created_at: datetime


@dataclass(frozen=True)
class Token:
    """What is kept of an access token. The token itself is shown once, when it is made, and never stored.

    Attributes:
        id: Names the token in lists and when it is revoked.
        identity: Whose it is.
        prefix: The token's first characters, to recognise it by.
        label: What its owner called it.
        created_at: UTC.
        last_used_at: The hour of its last use (UTC, rounded down), or None.
        revoked_at: UTC, or None while it is valid.
    """

    id: int
    identity: str
    prefix: str
    label: str
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True)
class AuditEntry:
    """One thing that was done.

    Attributes:
        sequence: 1, 2, 3 ... without gaps.
        at: UTC, microseconds.
        who: The identity's name.
        action: A verb, such as "promote".
        object: What it was done to, such as "late_arrival/3".
        why: The reason given; possibly empty.
        details: Further plain JSON data.
        hash: SHA-256 over all of the above and the hash of the entry before, in hexadecimal.
    """

    sequence: int
    at: datetime
    who: str
    action: str
    object: str
    why: str
    details: Mapping[str, Any]
    hash: str


@dataclass(frozen=True)
class Verdict:
    """What reading the whole audit log found.

    Attributes:
        intact: Whether every entry is as it was written, and none is missing.
        entries: Number of entries read.
        head: Hash of the last entry; kept elsewhere, it also proves that the whole log was not written anew.
        broken_at: Sequence number of the first entry that is wrong or missing; None when intact.
        problem: What is wrong with it, in words.
    """

    intact: bool
    entries: int
    head: str
    broken_at: int | None = None
    problem: str = ""


class AuditReader(Protocol):
    """Reads the audit log. Safe across threads and processes."""

    def entries(self, limit: int = 100, before: int | None = None) -> Sequence[AuditEntry]:
        """The newest `limit` entries, newest first; with `before`, of those with a lower sequence number."""
        ...

    def verify(self) -> Verdict: ...


class AuditWriter(Protocol):
    """Writes the audit log. Safe across threads and processes."""

    def append(
        self, who: str, action: str, object: str, why: str = "", details: Mapping[str, Any] | None = None
    ) -> AuditEntry:
        """Durable when it returns."""
        ...


class Authenticator(Protocol):
    """Tells who a request comes from. Safe across threads and processes; revocation counts from the next call."""

    def authenticate_token(self, secret: str) -> Identity | None: ...

    def authenticate_session(self, secret: str) -> Identity | None: ...


@dataclass(frozen=True)
class IssuedToken:
    """A new token, with its secret: the only moment at which it is known."""

    token: Token
    secret: str = field(repr=False)


@dataclass(frozen=True)
class AppliedDefinition:
    """One time that a declared object took on a meaning.

    Attributes:
        sequence: Orders everything that was applied: 1, 2, 3 ...
        kind: "table", "view", "request_features", "model" or "release" (how a model's versions take over).
        name: The object's name.
        number: The version: 1 is the first meaning that the object had, 2 the next; a meaning that it had before is
            the version that it was then. None where the object was no longer declared.
        fingerprint: Of the meaning; None where there is none.
        meaning: Plain JSON; None where the object was no longer declared.
        at: When it was put on record; UTC.
        who: Who applied it.
        code_commit: Full git commit id of the project's code, or None.
        code_dirty: Whether there were uncommitted changes.
    """

    sequence: int
    kind: str
    name: str
    number: int | None
    fingerprint: str | None
    meaning: Mapping[str, Any] | None
    at: datetime
    who: str
    code_commit: str | None
    code_dirty: bool


class DefinitionReader(Protocol):
    """Reads what was applied. Safe across threads and processes."""

    def everything(self) -> Sequence[AppliedDefinition]:
        """All that was applied, oldest first."""
        ...

    def in_force(self) -> Mapping[tuple[str, str], AppliedDefinition]:
        """The last of each object, by kind and name; objects that are no longer declared are left out."""
        ...


class DefinitionWriter(Protocol):
    """Puts on record what was applied. Safe across threads and processes."""

    def apply(
        self,
        who: str,
        meanings: Mapping[tuple[str, str], Mapping[str, Any] | None],
        code: Callable[[], tuple[str | None, bool]],
    ) -> Sequence[AppliedDefinition]:
        """Put on record what differs from what is in force; all of it, durably, or nothing. Idempotent.

        Args:
            who: Who applies it.
            meanings: By kind and name; None for an object that is no longer declared.
            code: Gives the project's commit and whether there were uncommitted changes; called where it is needed.

        Returns:
            What was put on record; empty where everything was in force already.
        """
        ...


@dataclass(frozen=True)
class ReleaseRecord:
    """One time that a version took over from another, or was meant to.

    Attributes:
        id: Grows.
        model: The model's name.
        version: The version that takes over.
        against: The live version when it began; None where none was.
        kind: "release", "promotion" (at once) or "rollback" (to a version that was live before).
        plan: How, as plain JSON.
        state: Where it is, such as "stepping".
        step: 0 before the first.
        share: Of the requests that the version answers.
        active: Whether it still needs something; at most one release of a model is.
        who: Who began it.
        why: Why.
        started_at: UTC.
        step_started_at: When the present step began; UTC.
        ended_at: UTC, or None.
        counted: What serving processes counted in the present step, plain JSON by process.
        findings: What the rules said last, plain JSON.
    """

    id: int
    model: str
    version: int
    against: int | None
    kind: str
    plan: Mapping[str, Any]
    state: str
    step: int
    share: float
    active: bool
    who: str
    why: str
    started_at: datetime
    step_started_at: datetime
    ended_at: datetime | None
    counted: Mapping[str, Any]
    findings: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class PolicyRecord:
    """What the prediction log keeps of a model's answers, from an instant on.

    Attributes:
        model: The model's name.
        sample: Share of requests that are logged.
        redact: Columns whose values are never written down.
        at: When it was taken over; UTC.
        who: Who did.
    """

    model: str
    sample: float
    redact: tuple[str, ...]
    at: datetime
    who: str


@dataclass(frozen=True)
class AuditNote:
    """What goes into the audit log together with a change; see `AuditEntry`."""

    who: str
    action: str
    object: str
    why: str
    details: Mapping[str, Any] = field(default_factory=dict)
