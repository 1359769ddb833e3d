"""Which version answers for a model: releases step by step, promotion and rollback, recorded with who, when and why.

What is decided is written first, together with its entry in the audit log, in one transaction; then the champion's
alias is moved, where it is to be; then the release is closed, and serving processes are told. A process that is killed
in between leaves a decision that `resume` carries out. Moves of one model are made one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from millpond.access.ports import AuditNote, ReleaseRecord
from millpond.core.errors import NotFound, RequestError
from millpond.definitions.release import Release, release_from
from millpond.platform import live_gates
from millpond.platform.alone import alone
from millpond.platform.applied import record_release
from millpond.platform.deployments import publish
from millpond.platform.platform import Platform
from millpond.platform.versions import CHAMPION
from millpond.registry.ports import Version
from millpond.serving.traffic.ladder import ACTIVE, TRIED, Move, Position, after, first

if TYPE_CHECKING:
    from millpond.training.gates import GateResult


def declared_release(platform: Platform, model: str) -> Release | None:
    """How the project declares that versions of a model take over; None is at once, and where it is not declared."""
    declared = platform.definitions.models.get(model)
    return declared.release if declared is not None else None


def start(
    platform: Platform,
    model: str,
    which: int | str,
    release: Release | None = None,
    *,
    why: str,
    force: bool = False,
) -> ReleaseRecord:
    """Begin to release a version: it shadows the live one, or answers the first share of the requests.

    Where no version answers yet, it is promoted at once. A version that has served before is judged by its gates on
    live traffic first.

    Args:
        platform: The project.
        model: The model's name.
        which: Number of a version, or an alias.
        release: How; None takes what the model declares, else `Release()`.
        why: Kept in the audit log.
        force: Begin whatever the gates on live traffic say.

    Returns:
        The release, as it is then.

    Raises:
        NotFound: There is no such model or version.
        RequestError: The version answers already.
        VersionRefused: A gate on live traffic failed.
        Conflict: Another release of the model is under way.
    """
    version = platform.store.version(model, which)
    if CHAMPION in version.aliases:
        raise RequestError(f"{version} answers already", hint=f"see `millpond deploy {model} --status`")
    declared = declared_release(platform, model)
    plan = release or declared or Release()
    judged = _judged(platform, version, force=force)
    with _alone(platform, model):
        champion = _champion(platform, model)
        begins = first(plan) if champion is not None else Position("promoting", 0, 1.0)
        action = "promote" if begins.state == "promoting" else "release"
        replaces = champion.number if champion else None
        details = {"replaces": replaces, "plan": plan.describe(), **_told(begins), **_said(judged)}
        begun = platform.access.releases.begin(
            AuditNote(platform.user, action, str(version), why, details),
            model=model,
            version=version.number,
            against=replaces,
            kind="release",
            plan=plan.describe(),
            **begins._asdict(),
        )
        found = _complete(platform, begun)
    publish(platform)
    if plan is declared:
        record_release(platform, platform.definitions.model(model))
    return found


def advance(
    platform: Platform,
    model: str,
    *,
    why: str,
    seen: ReleaseRecord | None = None,
    details: Mapping[str, Any] | None = None,
) -> ReleaseRecord:
    """Take a release to its next step; after the last one the version is promoted.

    Args:
        platform: The project.
        model: The model's name.
        why: Kept in the audit log.
        seen: Where the release was when this was decided; None looks.
        details: Further details for the audit log.

    Raises:
        NotFound: No release of the model is under way.
        Conflict: The release is somewhere else by now.
    """
    return _move(platform, model, "advance", why, seen, details)


def abort(platform: Platform, model: str, *, why: str) -> ReleaseRecord:
    """End a release without judging its version: the live version answers everything again. As `advance`."""
    return _move(platform, model, "abort", why, None, None)


def rollback(
    platform: Platform,
    model: str,
    *,
    why: str,
    seen: ReleaseRecord | None = None,
    details: Mapping[str, Any] | None = None,
) -> ReleaseRecord:
    """Take back a release that is under way; else make the version champion again that was it before the present one.

    Args:
        platform: The project.
        model: The model's name.
        why: Kept in the audit log.
        seen: As in `advance`.
        details: As in `advance`.

    Raises:
        NotFound: No release is under way, and no version was champion before.
        Conflict: The release is somewhere else by now.
    """
    active = seen or platform.access.releases.active(model)
    if active is not None and active.state in TRIED:
        return _move(platform, model, "rollback", why, active, details)
    resume(platform)
    with _alone(platform, model):
        champion = _champion(platform, model)
        before = _champion_before(platform, model, champion)
        replaces = champion.number if champion else None
        note = AuditNote(platform.user, "rollback", str(before), why, {"replaces": replaces})
        begun = platform.access.releases.begin(
            note,
            model=model,
            version=before.number,
            against=replaces,
            kind="rollback",
            plan=Release().describe(),
            state="promoting",
            step=0,
            share=1.0,
        )
        found = _complete(platform, begun)
    publish(platform)
    return found


def promote(platform: Platform, model: str, which: int | str, *, why: str, force: bool = False) -> Version:
    """Make a version the model's champion at once; servers take it within a second, between two requests.

    A release of that version that is under way is thereby complete. Promoting the champion again changes nothing. A
    version that has served before is judged by its gates on live traffic first, on its own predictions. The move is in
    the audit log with the version it replaced, and what those gates said.

    Args:
        platform: The project.
        model: The model's name.
        which: Number of a version, or an alias.
        why: Kept in the audit log.
        force: Promote whatever the gates on live traffic say.

    Raises:
        NotFound: There is no such model or version.
        VersionRefused: A gate on live traffic failed.
        Conflict: Another version of the model is being released.
    """
    version = platform.store.version(model, which)
    under_way = platform.access.releases.active(model)
    if CHAMPION in version.aliases and (under_way is None or under_way.version != version.number):
        return version
    judged = _judged(platform, version, force=force)
    with _alone(platform, model):
        champion = _champion(platform, model)
        replaces = champion.number if champion else None
        details = {"replaces": replaces, "gates": "see the version", **_said(judged)}
        note = AuditNote(platform.user, "promote", str(version), why, details)
        active = platform.access.releases.active(model)
        if active is not None and active.version == version.number:
            if active.state in TRIED:
                active = _write(platform, active, "promote", note)
        elif champion is not None and champion.number == version.number and active is None:
            return version
        else:
            active = platform.access.releases.begin(
                note,
                model=model,
                version=version.number,
                against=replaces,
                kind="promotion",
                plan=Release().describe(),
                state="promoting",
                step=0,
                share=1.0,
            )
        _complete(platform, active)
    publish(platform)
    return platform.store.version(model, version.number)


def resume(platform: Platform) -> list[ReleaseRecord]:
    """Carry out what was decided by processes that were killed, and tell serving processes; idempotent.

    Returns:
        The releases that were completed by this call.
    """
    found = []
    for each in platform.access.releases.all_active():
        if each.state == "promoting":
            with _alone(platform, each.model):
                present = platform.access.releases.get(each.id)
                if present.active:
                    found.append(_complete(platform, present))
    publish(platform)
    return found


def _move(
    platform: Platform,
    model: str,
    move: Move,
    why: str,
    seen: ReleaseRecord | None,
    details: Mapping[str, Any] | None,
) -> ReleaseRecord:
    release = seen or platform.access.releases.active(model)
    if release is None:
        raise NotFound(f"No release of {model} is under way", hint=f"begin one: millpond deploy {model} VERSION")
    with _alone(platform, model):
        object = f"{model}/{release.version}"
        note = AuditNote(platform.user, move, object, why, {"replaces": release.against, **(details or {})})
        found = _complete(platform, _write(platform, release, move, note))
    publish(platform)
    return found


def _write(platform: Platform, release: ReleaseRecord, move: Move, note: AuditNote) -> ReleaseRecord:
    """Put a move on record, with its entry in the audit log."""
    now_at = Position(release.state, release.step, release.share)  # type: ignore[arg-type]
    to = after(release_from(release.plan), now_at, move)
    action = "promote" if to.state == "promoting" else note.action
    return platform.access.releases.move(
        release,
        **to._asdict(),
        active=to.state in ACTIVE,
        note=replace(note, action=action, details={**note.details, "from": _told(now_at), **_told(to)}),
    )


def _complete(platform: Platform, release: ReleaseRecord) -> ReleaseRecord:
    """Carry out a promotion that was decided; every other release is left as it is. The caller holds the lock."""
    if release.state != "promoting":
        return release
    platform.store.set_alias(release.model, CHAMPION, release.version)
    return platform.access.releases.move(
        release, state="promoted", step=release.step, share=1.0, active=False, note=None
    )


def _champion(platform: Platform, model: str) -> Version | None:
    return next((each for each in platform.store.versions(model) if CHAMPION in each.aliases), None)


def _champion_before(platform: Platform, model: str, champion: Version | None) -> Version:
    """The version that was champion before the present one: a rollback does not count as a way forward."""
    line: list[int] = []
    for each in reversed(platform.access.releases.of(model)):
        if each.state != "promoted":
            continue
        if each.kind == "rollback":
            while line and line[-1] != each.version:
                line.pop()
        elif each.against is not None and line[-1:] != [each.against]:
            line.append(each.against)
        if line[-1:] != [each.version]:
            line.append(each.version)
    while champion is not None and line and line[-1] == champion.number:
        line.pop()
    if not line and champion is not None:
        line = _replaced_by(platform, champion)
    if not line:
        raise NotFound(
            f"No version of {model} answered before the present one",
            hint=f"promote a version: millpond deploy {model} VERSION",
        )
    return platform.store.version(model, line[-1])


def _replaced_by(platform: Platform, champion: Version) -> list[int]:
    """From the audit log, for promotions that are older than the record of releases."""
    for entry in platform.access.audit.entries(10_000):
        if entry.action == "promote" and entry.object == str(champion):
            replaced = entry.details.get("replaces")
            return [] if replaced is None else [int(replaced)]
    return []


def _judged(platform: Platform, version: Version, *, force: bool) -> Sequence[GateResult]:
    judged = live_gates.judge_own(platform, version)
    if not force:
        live_gates.require(version, judged)
    return judged


def _said(judged: Sequence[GateResult]) -> dict[str, Any]:
    said = [{"gate": each.gate, "passed": each.passed, "reason": each.reason} for each in judged]
    return {"live": said} if said else {}


def _told(position: Position) -> dict[str, Any]:
    return {"state": position.state, "step": position.step, "share": position.share}


@contextmanager
def _alone(platform: Platform, model: str) -> Iterator[None]:
    with alone(platform, f"release-{model}"):
        yield
