"""The states of a release and the ways between them. Pure.

    shadowing --> stepping (1, 2 ...) --> promoting --> promoted
        \\_____________\\________________________________> rolled back, aborted

"promoting" is decided and written down, while the version is being made champion; what is in it is always completed.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from millpond.core.errors import Conflict
from millpond.definitions.release import Release

State = Literal["shadowing", "stepping", "promoting", "promoted", "rolled back", "aborted"]
Move = Literal["advance", "promote", "rollback", "abort"]

#: States in which a version is tried, and those in which a release still needs something.
TRIED: frozenset[State] = frozenset({"shadowing", "stepping"})
ACTIVE: frozenset[State] = TRIED | {"promoting"}


class Position(NamedTuple):
    """Where a release is: its state, its step (0 before the first) and the share that the version answers."""

    state: State
    step: int
    share: float


def first(release: Release) -> Position:
    """Where a release begins."""
    if release.shadows:
        return Position("shadowing", 0, 0.0)
    shares = release.shares
    return Position("stepping", 1, shares[0]) if shares else Position("promoting", 1, 1.0)


def after(release: Release, position: Position, move: Move) -> Position:
    """Where a move leads.

    Raises:
        Conflict: The release is over, or is being promoted.
    """
    if position.state not in TRIED:
        what = "is being promoted" if position.state == "promoting" else f"was {position.state}"
        raise Conflict(f"The release {what} already", hint="look at it again: millpond deploy MODEL --status")
    if move == "abort":
        return Position("aborted", position.step, 0.0)
    if move == "rollback":
        return Position("rolled back", position.step, 0.0)
    shares = release.shares
    if move == "promote" or position.step >= len(shares):
        return Position("promoting", position.step, 1.0)
    return Position("stepping", position.step + 1, shares[position.step])
