"""What the prediction log keeps of a model's answers: as declared when its version was made, changed from then on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from millpond.access.ports import AuditNote
from millpond.platform.platform import Platform
from millpond.platform.progress import step
from millpond.registry.ports import Version
from millpond.serving.ports import LogPolicy


@dataclass(frozen=True)
class Policies:
    """What held for a version's answers since it was made.

    Attributes:
        all: Oldest first; the last holds now.
        since: When that was taken over; UTC. None where it holds since the version was made.
        by: Who took it over.
    """

    all: tuple[LogPolicy, ...]
    since: datetime | None = None
    by: str | None = None

    @property
    def present(self) -> LogPolicy:
        return self.all[-1]

    @property
    def redacted(self) -> tuple[str, ...]:
        """Columns that were redacted at any time: a null of theirs in the log says nothing."""
        return tuple(dict.fromkeys(name for each in self.all for name in each.redact))

    @property
    def least_sample(self) -> float:
        """The least share of requests that was ever logged."""
        return min(each.sample for each in self.all)


def take_over(platform: Platform, models: Iterable[str]) -> None:
    """Let what the project declares now hold for all versions of models, from the next publication of routes on.

    Models without versions, and those that the project does not declare, are left out. Each change is audited.
    """
    for name in models:
        model = platform.definitions.models.get(name)
        made = platform.store.versions(name) if model is not None else []
        if model is None or not made:
            continue
        wanted = LogPolicy(float(model.log.sample), tuple(model.log.redact))
        before = [policies(platform, each).present for each in made]
        if all(each == wanted for each in before):
            continue
        details = {"sample": wanted.sample, "redact": list(wanted.redact), "before": _plain(before[-1])}
        note = AuditNote(platform.user, "change log policy", name, "declared so", details)
        with step(platform.listener, f"log of {name}") as current:
            platform.access.log_policies.change(note, name, wanted.sample, wanted.redact)
            current.detail = told(wanted)


def policies(platform: Platform, version: Version) -> Policies:
    """What held for a version's answers, from its own spec and what was taken over since it was made."""
    kept = platform.store.spec(version).get("logging", {})
    own = LogPolicy(kept.get("sample", 1.0), tuple(kept.get("redact", ())))
    later = [each for each in platform.access.log_policies.of(version.model) if each.at > version.created_at]
    if not later:
        return Policies((own,))
    changed = tuple(LogPolicy(each.sample, each.redact) for each in later)
    return Policies((own, *changed), later[-1].at, later[-1].who)


def told(policy: LogPolicy) -> str:
    """A policy in words."""
    share = "all requests" if policy.sample >= 1 else f"{policy.sample:.4%}".rstrip("0%").rstrip(".") + " % of requests"
    return f"{share}, without {', '.join(policy.redact)}" if policy.redact else share


def _plain(policy: LogPolicy) -> dict[str, object]:
    return {"sample": policy.sample, "redact": list(policy.redact)}
