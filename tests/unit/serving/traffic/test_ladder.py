import pytest

from millpond.core.errors import Conflict
from millpond.definitions.release import Release
from millpond.serving.traffic.ladder import Position, after, first


def walk(release, moves):
    found = [first(release)]
    for move in moves:
        found.append(after(release, found[-1], move))
    return found


def test_the_way_up():
    release = Release(steps=(0.05, 0.25, 1.0), shadow="30m")
    assert walk(release, ["advance"] * 3) == [
        Position("shadowing", 0, 0.0),
        Position("stepping", 1, 0.05),
        Position("stepping", 2, 0.25),
        Position("promoting", 2, 1.0),
    ]
    assert first(Release(steps=(0.1, 1.0))) == Position("stepping", 1, 0.1)
    assert walk(Release(steps=(), shadow=True), ["advance"])[-1].state == "promoting"
    assert first(Release(steps=(1.0,))).state == "promoting"


@pytest.mark.parametrize(
    ("move", "state"), [("rollback", "rolled back"), ("abort", "aborted"), ("promote", "promoting")]
)
def test_the_ways_out(move, state):
    release = Release()
    end = after(release, first(release), move)
    assert (end.state, end.share) == (state, 1.0 if move == "promote" else 0.0)
    for again in ("advance", "rollback", "abort", "promote"):
        with pytest.raises(Conflict):
            after(release, end, again)
