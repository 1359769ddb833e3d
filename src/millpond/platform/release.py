"""Which version answers for a model: promotion, recorded with who, when and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from millpond.platform import live_gates
from millpond.platform.platform import Platform
from millpond.registry.ports import Version

if TYPE_CHECKING:
    from millpond.training.gates import GateResult

CHAMPION, CHALLENGER = "champion", "challenger"


def promote(platform: Platform, model: str, which: int | str, *, why: str, force: bool = False) -> Version:
    """Make a version the model's champion; servers take it within a second or two, between two requests.

    Promoting the champion again changes nothing. A version that has served before is judged by its gates on live
    traffic first, on its own predictions. The move is in the audit log with the version it replaced, and what those
    gates said.

    Args:
        platform: The project.
        model: The model's name.
        which: Number of a version, or an alias.
        why: Kept in the audit log.
        force: Promote whatever the gates on live traffic say.

    Raises:
        NotFound: There is no such model or version.
        VersionRefused: A gate on live traffic failed.
    """
    version = platform.store.version(model, which)
    if CHAMPION in version.aliases:
        return version
    judged = live_gates.judge_own(platform, version)
    if not force:
        live_gates.require(version, judged)
    before = next((each for each in platform.store.versions(model) if CHAMPION in each.aliases), None)
    # Recorded first: a process that dies between the two leaves a move on record that was not made, never the reverse.
    platform.audit(
        action="promote",
        object=str(version),
        why=why,
        details={"replaces": before.number if before else None, "gates": "see the version", **_said(judged)},
    )
    platform.store.set_alias(model, CHAMPION, version.number)
    return platform.store.version(model, version.number)


def _said(judged: Sequence[GateResult]) -> dict[str, Any]:
    said = [{"gate": each.gate, "passed": each.passed, "reason": each.reason} for each in judged]
    return {"live": said} if said else {}
