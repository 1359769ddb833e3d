"""Releases, promotions and rollbacks: what answers, what is on record, and what a kill leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from moving import LADDER

from millpond.core.errors import Conflict, NotFound, RequestError
from millpond.definitions.release import Release
from millpond.platform import release, versions
from millpond.platform.deployments import publish
from millpond.platform.platform import Platform, open_project
from millpond.serving.routing import Routing, set_loaded
from millpond.serving.traffic.deployment import Deployment

pytestmark = pytest.mark.slow


def champion(platform: Platform) -> int:
    return platform.store.version("plain", "champion").number


def deployed(platform: Platform) -> Deployment:
    return Routing(platform.settings.serving).current().deployments["plain"]


def audited(platform: Platform, since: int = 0) -> list[tuple[str, str, str]]:
    """Action, object and state after, oldest first."""
    entries = [each for each in platform.access.audit.entries() if each.sequence > since]
    return [(each.action, each.object, str(each.details.get("state", ""))) for each in reversed(entries)]


def last_entry(platform: Platform) -> int:
    return platform.access.audit.entries(1)[0].sequence


def test_a_release_goes_up_its_ladder(shop):
    before = last_entry(shop)
    began = release.start(shop, "plain", 3, Release(steps=(0.1, 0.5), shadow=True, rules=()), why="try it")
    assert (began.state, began.against, began.who, began.why) == ("shadowing", 1, "ann", "try it")
    assert deployed(shop).shadows == (3,)
    assert deployed(shop).choose("anybody") == (1, "live")
    release.advance(shop, "plain", why="the shadow is fine")
    first = deployed(shop)
    assert (first.live, first.canary, first.share, first.epoch) == (1, 3, 0.1, f"{began.id}.1")
    release.advance(shop, "plain", why="so is the canary")
    second = deployed(shop)
    assert (second.share, second.salt) == (0.5, first.salt)
    assert champion(shop) == 1
    done = release.advance(shop, "plain", why="all is well")
    assert (done.state, done.active, done.share) == ("promoted", False, 1.0)
    assert (champion(shop), deployed(shop)) == (3, Deployment("plain", 3))
    assert audited(shop, before) == [
        ("release", "plain/3", "shadowing"),
        ("advance", "plain/3", "stepping"),
        ("advance", "plain/3", "stepping"),
        ("promote", "plain/3", "promoting"),
    ]
    assert shop.access.audit.verify().intact


def test_a_release_can_be_taken_back_aborted_or_jumped(shop):
    release.start(shop, "plain", 3, LADDER, why="try it")
    with pytest.raises(Conflict, match="Version 3 of plain is being released"):
        release.start(shop, "plain", 2, LADDER, why="another")
    with pytest.raises(Conflict, match="is being released"):
        release.promote(shop, "plain", 2, why="another")
    assert release.promote(shop, "plain", 1, why="it answers already").number == 1
    assert release.rollback(shop, "plain", why="it is worse").state == "rolled back"
    assert deployed(shop) == Deployment("plain", 1)
    release.start(shop, "plain", 3, LADDER, why="again")
    assert release.abort(shop, "plain", why="not today").state == "aborted"
    release.start(shop, "plain", 2, LADDER, why="the other one")
    assert release.promote(shop, "plain", 2, why="enough").number == 2
    assert (champion(shop), deployed(shop)) == (2, Deployment("plain", 2))
    assert shop.access.releases.active("plain") is None
    for move in (release.advance, release.abort):
        with pytest.raises(NotFound, match="No release of plain is under way"):
            move(shop, "plain", why="there is none")
    with pytest.raises(RequestError, match="plain/2 answers already"):
        release.start(shop, "plain", 2, LADDER, why="once more")


def test_rolling_back_goes_back_and_back(shop):
    release.promote(shop, "plain", 2, why="forward")
    release.promote(shop, "plain", 3, why="forward")
    release.rollback(shop, "plain", why="back")
    assert champion(shop) == 2
    release.rollback(shop, "plain", why="back again")
    assert champion(shop) == 1
    release.promote(shop, "plain", 3, why="forward")
    release.rollback(shop, "plain", why="back")
    assert (champion(shop), deployed(shop).live) == (1, 1)


def test_a_move_that_was_decided_on_an_older_state_is_refused(shop):
    seen = release.start(shop, "plain", 3, LADDER, why="try it")
    release.advance(shop, "plain", why="first", seen=seen)
    for move in (release.advance, release.rollback):
        with pytest.raises(Conflict, match="has moved on meanwhile"):
            move(shop, "plain", why="second", seen=seen)
    assert deployed(shop).share == 0.5


def test_what_is_published_is_all_that_a_serving_process_needs(shop):
    release.start(shop, "plain", 3, LADDER, why="try it")
    routing = Routing(shop.settings.serving)
    table = routing.current()
    assert routing.current() is table
    version = table.versions["plain", 3]
    assert version.served.inputs == {"amount": "float64"}
    assert (version.directory / "MLmodel").is_file()
    assert version.served == versions.served_model(shop, shop.store.version("plain", 3))
    generation = table.generation
    assert publish(shop) == generation
    release.abort(shop, "plain", why="enough")
    assert routing.current().generation == generation + 1
    document = shop.settings.serving / "routing.json"
    good = document.read_text()
    document.write_text(good[: len(good) // 2])
    assert routing.current().generation == generation + 1
    assert publish(shop) > generation + 1
    assert routing.current().generation > generation + 1


def test_a_copied_project_has_moved(shop, tmp_path):
    publish(shop)
    moved = tmp_path / "moved"
    shop.settings.root.rename(moved)
    [version] = [
        each for (_, number), each in Routing(moved / ".millpond" / "serving").current().versions.items() if number == 1
    ]
    assert (version.directory / "MLmodel").is_file()


def test_a_model_is_unloaded_everywhere_until_it_is_loaded(shop):
    publish(shop)
    one, other = Routing(shop.settings.serving), Routing(shop.settings.serving)
    assert one.current().deployments["plain"].loaded
    set_loaded(shop.settings.serving, "plain", False)
    set_loaded(shop.settings.serving, "plain", False)
    assert not one.current().deployments["plain"].loaded
    assert not other.current().deployments["plain"].loaded
    publish(shop)
    assert not deployed(shop).loaded
    set_loaded(shop.settings.serving, "plain", True)
    assert one.current().deployments["plain"].loaded


BEGIN = [
    ("access/audit.py:append_in", "return"),
    ("access/release_log.py:begin", "return"),
    ("platform/deployments.py:_write", "call"),
    ("core/durable.py:sync_directory", "call"),
]
PROMOTE = [
    ("access/release_log.py:begin", "return"),
    ("registry/mlflow_store.py:set_alias", "return"),
    ("access/release_log.py:move", "return"),
    ("platform/deployments.py:_write", "call"),
]


def settle(shop: Platform) -> Platform:
    """What the next process does: twice, as it may be killed too."""
    again = open_project(shop.settings.root, user="bob")
    release.resume(again)
    assert release.resume(again) == []
    assert again.access.audit.verify().intact
    return again


@pytest.mark.parametrize("at", BEGIN, ids=lambda at: f"{at[0]}-{at[1]}")
def test_a_start_that_is_killed(shop, spawn, at):
    before = last_entry(shop)
    assert spawn(shop, "start", at) == -9
    again = settle(shop)
    active = again.access.releases.active("plain")
    if at[0].endswith("append_in"):  # its transaction was not committed
        assert active is None
        assert audited(again, before) == []
        assert deployed(again) == Deployment("plain", 1)
    else:
        assert active is not None
        assert deployed(again).share == 0.1
        assert audited(again, before) == [("release", "plain/3", "stepping")]
    assert champion(again) == 1
    assert release.promote(again, "plain", 3, why="on").number == 3


@pytest.mark.parametrize(
    ("move", "at"),
    [*(("promote", at) for at in PROMOTE), *(("rollback", at) for at in PROMOTE[:2])],
    ids=lambda each: each if isinstance(each, str) else f"{each[0]}-{each[1]}",
)
def test_a_promotion_or_rollback_that_is_killed_is_completed(shop, spawn, move, at):
    wanted = 3
    if move == "rollback":
        release.promote(shop, "plain", 3, why="forward")
        wanted = 1
    before = last_entry(shop)
    assert spawn(shop, move, at) == -9
    again = settle(shop)
    assert (champion(again), deployed(again)) == (wanted, Deployment("plain", wanted))
    assert again.access.releases.active("plain") is None
    assert [each[:2] for each in audited(again, before)] == [(move, f"plain/{wanted}")]


@pytest.mark.parametrize(
    "at",
    [
        ("access/audit.py:append_in", "return"),
        ("access/release_log.py:move", "return"),
        ("registry/mlflow_store.py:set_alias", "return"),
        ("core/durable.py:sync_directory", "call"),
    ],
    ids=lambda at: f"{at[0]}-{at[1]}",
)
def test_the_last_advance_that_is_killed(shop, spawn, at):
    release.start(shop, "plain", 3, LADDER, why="try it")
    release.advance(shop, "plain", why="on")
    assert spawn(shop, "advance", at) == -9
    again = settle(shop)
    undone = at[0].endswith("append_in")
    assert champion(again) == (1 if undone else 3)
    assert deployed(again).share == (0.5 if undone else 0.0)


def test_of_several_at_once_one_wins(shop, spawn):
    processes = [spawn(shop, "start", wait=False) for _ in range(4)]
    for each in processes:
        each.join(60)
    assert sorted(each.exitcode for each in processes) == [0, 8, 8, 8]
    assert deployed(shop).share == 0.1
    processes = [spawn(shop, "promote", wait=False) for _ in range(3)]
    for each in processes:
        each.join(60)
    assert {each.exitcode for each in processes} == {0}
    assert (champion(shop), deployed(shop)) == (3, Deployment("plain", 3))
    assert audited(shop)[-2:] == [("release", "plain/3", "stepping"), ("promote", "plain/3", "promoting")]


def test_the_document_is_json_for_people_too(shop):
    publish(shop)
    found = json.loads(Path(shop.settings.serving / "routing.json").read_text())
    assert set(found) == {"format", "generation", "published_at", "models", "versions"}
    assert found["models"]["plain"]["live"] == 1
    assert found["versions"]["plain/1"]["extras"]["features"]["needed"] is False
