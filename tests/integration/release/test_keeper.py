"""The keeper, driven by what real statistics of several processes say."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime
from typing import Any

import pytest
from moving import die_at

from millpond.core.errors import MillpondError
from millpond.definitions.release import Release, live_metric, max_difference, max_errors, max_latency
from millpond.platform import release
from millpond.platform.platform import Platform, open_project
from millpond.platform.predictions import open_predictor
from millpond.platform.release_keeper import KEEPER, ReleaseKeeper
from millpond.serving.log.spool import PredictionLog
from millpond.serving.routing import Routing
from millpond.serving.traffic.statistics import Statistics

pytestmark = pytest.mark.slow


class Gateways:
    """What serving processes do with requests: choose by what is published, answer, count."""

    def __init__(self, platform: Platform, number: int = 2) -> None:
        self.routing = Routing(platform.settings.serving)
        self.statistics = [Statistics() for _ in range(number)]
        self.failed: list[tuple[str, int, str]] = []

    def answer(self, requests: int, *, error: bool = False, seconds: float = 0.002, apart: float = 0.0) -> None:
        """Requests of so many customers, of which the canary fails, is slow, or differs."""
        deployment = self.routing.current().deployments["plain"]
        for number in range(requests):
            statistics = self.statistics[number % len(self.statistics)]
            statistics.enter("plain", deployment.epoch)
            version, variant = deployment.choose(f"c{number}")
            bad = version == 3
            raised = MillpondError("the model raised") if bad and error else None
            statistics.observe("plain", version, variant, 1, seconds if bad else 0.002, raised)
            if (variant == "canary" and deployment.compares) or deployment.shadows:
                shadow = "canary" if variant == "canary" else "shadow"
                statistics.compare("plain", 3, shadow, [0.2 + apart], [0.2], [True], [True])
            if deployment.shadows:
                statistics.observe("plain", 3, "shadow", 1, seconds, MillpondError("raised") if error else None)

    def fetch(self) -> list[dict[str, Any]]:
        generation = self.routing.current().generation
        return [each.snapshot(generation, self.failed) for each in self.statistics]


QUICK = Release(
    steps=(0.2, 0.5, 1.0),
    every="1ms",
    rules=(max_errors(0.01), max_latency("p99", ms=50), max_difference(0.2, share=0.05)),
    requests=100,
)


def begin(shop: Platform, plan: Release = QUICK) -> tuple[Gateways, ReleaseKeeper]:
    release.start(shop, "plain", 3, plan, why="try it")
    gateways = Gateways(shop)
    return gateways, ReleaseKeeper(open_project(shop.settings.root), gateways.fetch)


def newest(shop: Platform) -> Any:
    return shop.access.releases.of("plain", 1)[0]


def test_a_good_version_goes_up_to_the_promotion(shop):
    gateways, keeper = begin(shop, Release(**{**vars(QUICK), "shadow": "1ms"}))
    states = []
    for _ in range(3):
        states.append((newest(shop).state, newest(shop).step))
        gateways.answer(99 if newest(shop).state == "shadowing" else 150)
        keeper.tick()
        assert (newest(shop).state, newest(shop).step) == states[-1]
        gateways.answer(1500)
        keeper.tick()
    assert states == [("shadowing", 0), ("stepping", 1), ("stepping", 2)]
    assert newest(shop).state == "promoted"
    assert shop.store.version("plain", "champion").number == 3
    entries = shop.access.audit.entries(3)
    assert [each.who for each in entries] == [KEEPER] * 3
    assert entries[0].details["findings"][0]["rule"] == "errors <= 0.01 of the requests"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"error": True}, "requests failed"),
        ({"seconds": 0.2}, "p99 is 20"),
        ({"apart": 0.6}, "rows compared are further apart"),
    ],
    ids=["raises", "slow", "wrong"],
)
def test_a_bad_version_is_taken_back_within_its_step(shop, fault, said):
    gateways, keeper = begin(shop, Release(**{**vars(QUICK), "every": "1h"}))
    sent = 0
    while newest(shop).state == "stepping":
        gateways.answer(100, **fault)
        sent += 100
        assert sent < 2000
        keeper.tick()
    found = newest(shop)
    assert found.state == "rolled back"
    assert said in shop.access.audit.entries(1)[0].why
    assert gateways.routing.current().deployments["plain"].canary is None
    assert sent <= (200 if "error" in fault else 1000)
    keeper.tick()
    assert shop.store.version("plain", "champion").number == 1


def test_a_version_that_cannot_be_loaded_is_taken_back(shop):
    gateways, keeper = begin(shop)
    gateways.failed = [("plain", 3, "its files are corrupt")]
    keeper.tick()
    assert newest(shop).state == "rolled back"
    assert "its files are corrupt" in shop.access.audit.entries(1)[0].why


def test_what_was_counted_survives_kills_of_the_keeper_and_of_serving_processes(shop):
    gateways, keeper = begin(shop, Release(**{**vars(QUICK), "every": "1h", "rules": (max_errors(0.01),)}))
    gateways.answer(400)
    keeper.tick()
    keeper.tick()
    before = newest(shop).counted
    gateways.statistics[0] = Statistics()  # a worker was killed and started again
    gateways.answer(400)
    again = ReleaseKeeper(open_project(shop.settings.root), gateways.fetch)
    again.tick()
    counted = newest(shop).counted
    assert len(counted) == 3
    assert set(before) < set(counted)
    total = sum(tally["requests"] for part in counted.values() for tally in part.values())
    assert total == 800
    assert newest(shop).step_started_at == newest(shop).started_at


@pytest.mark.parametrize(
    "at",
    [("access/audit.py:append_in", "return"), ("access/release_log.py:move", "return")],
    ids=lambda at: at[0].rpartition(":")[2],
)
def test_a_keeper_that_is_killed_while_it_moves_a_release(shop, at):
    gateways, _ = begin(shop)
    gateways.answer(1500)
    snapshots = gateways.fetch()
    shop.access.close()
    child = os.fork()
    if child == 0:
        try:
            keeper = ReleaseKeeper(open_project(shop.settings.root), lambda: snapshots)
            die_at(*at)
            keeper.tick()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    moved = at[0].endswith("move")
    assert newest(shop).step == (2 if moved else 1)
    ReleaseKeeper(open_project(shop.settings.root), lambda: snapshots).tick()
    assert newest(shop).step == 2
    assert Routing(shop.settings.serving).current().deployments["plain"].share == 0.5
    advances = [each for each in shop.access.audit.entries() if each.action == "advance"]
    assert len(advances) == 1
    assert shop.access.audit.verify().intact


def test_a_metric_is_judged_when_labels_come(shop):
    rule = live_metric("accuracy", at_least=0.99, labels=20)
    gateways, keeper = begin(shop, Release(steps=(0.5,), every="1ms", rules=(rule,), requests=1))
    gateways.answer(10)
    keeper.tick()
    assert newest(shop).findings[0]["said"] == "0 of 20 labels are known"
    shop.lake.overwrite("orders", orders(known_from=50))
    log = PredictionLog(shop.settings.spool)
    for number in (1, 3):
        with open_predictor(shop, shop.store.version("plain", number), log) as predictor:
            predictor.predict(orders(0).select([column.name for column in predictor.served.columns]), None, "ann")
    log.close()
    ReleaseKeeper(open_project(shop.settings.root), gateways.fetch).tick()
    assert newest(shop).findings[0]["said"] == "10 of 20 labels are known"
    shop.lake.overwrite("orders", orders(known_from=0))
    ReleaseKeeper(open_project(shop.settings.root), gateways.fetch).tick()
    assert newest(shop).state == "rolled back"
    assert newest(shop).findings[0]["said"].endswith("over 60 labels")


def orders(known_from: int) -> Any:
    """Sixty orders that no line through the amounts tells apart; the labels of the first are not known yet."""
    import pyarrow as pa

    moments = [datetime.fromtimestamp(1_700_000_000 + number * 3600, UTC) for number in range(60)]
    labels = [number % 2 if number >= known_from else None for number in range(60)]
    return pa.table(
        {
            "order_id": [f"o{number}" for number in range(60)],
            "ordered_at": pa.array(moments, pa.timestamp("us", "UTC")),
            "amount": [number + 0.5 for number in range(60)],
            "returned": pa.array(labels, pa.int64()),
        }
    )
