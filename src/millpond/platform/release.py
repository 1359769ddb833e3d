"""Which version answers for a model: promotion, recorded with who, when and why."""

from __future__ import annotations

from millpond.platform.platform import Platform
from millpond.registry.ports import Version

CHAMPION, CHALLENGER = "champion", "challenger"


def promote(platform: Platform, model: str, which: int | str, *, why: str) -> Version:
    """Make a version the model's champion; servers take it within a second or two, between two requests.

    Promoting the champion again changes nothing. The move is in the audit log with the version it replaced.

    Raises:
        NotFound: There is no such model or version.
    """
    version = platform.store.version(model, which)
    if CHAMPION in version.aliases:
        return version
    before = next((each for each in platform.store.versions(model) if CHAMPION in each.aliases), None)
    # Recorded first: a process that dies between the two leaves a move on record that was not made, never the reverse.
    platform.audit(
        action="promote",
        object=str(version),
        why=why,
        details={"replaces": before.number if before else None, "gates": "see the version"},
    )
    platform.store.set_alias(model, CHAMPION, version.number)
    return platform.store.version(model, version.number)
