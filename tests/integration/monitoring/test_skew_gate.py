"""The gate on live traffic: what it says of a new version, and of one that has served."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from millpond.core.errors import VersionRefused
from millpond.core.fingerprints import fingerprint
from millpond.definitions.models import Model
from millpond.platform import live_gates, release
from millpond.platform.loading import load_definitions
from millpond.platform.model_pages import version_page
from millpond.platform.platform import Platform, open_project
from millpond.platform.predictions import predict_rows
from millpond.platform.skew import measure_skew
from millpond.platform.train import train

pytestmark = pytest.mark.slow

GATE = "mp.no_skew(min_compared=10)"


def declared(shop: Platform, *changes: tuple[str, str]) -> Model:
    """The model as changed definitions declare it."""
    file = Path(shop.settings.root) / "definitions.py"
    text = file.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    changed = file.with_name(f"changed_{fingerprint(text)}.py")  # kept: a function's code is read when it is asked for
    changed.write_text(text)
    return load_definitions(changed).model("returned")


def verdict(shop: Platform, model: Model) -> Any:
    [result] = live_gates.judge_champion(shop, model).values()
    return result


def backdate(shop: Platform, customer: str = "c5", amount: float = 5000.25) -> None:
    row = {
        "order_id": [f"late-{amount}"],
        "customer_id": [customer],
        "ordered_at": pa.array([datetime.fromtimestamp(1_700_000_000 + 199 * 3600, UTC)], pa.timestamp("us", "UTC")),
        "category": ["boats"],
        "amount": [amount],
        "pieces": pa.array([7], pa.int64()),
        "gift": [True],
        "returned": pa.array([0], pa.int64()),
    }
    shop.lake.append("orders", pa.table(row))


def measurements(shop: Platform) -> int:
    with shop.engine() as engine:
        relation = engine.scan(shop.lake.snapshot("millpond.skew"))
        number: int = engine.rows(f"SELECT count(DISTINCT measurement) FROM {relation}")[0][0]
    return number


def test_it_passes_with_a_note_where_nothing_can_be_said(shop: Platform) -> None:
    model = declared(shop)
    result = verdict(shop, model)
    assert result.passed
    assert "answered no prediction yet" in result.reason
    [first] = version_page(shop, "returned", 1).summary.gates
    assert (first.passed, first.text) == (True, "no skew in 7d of live traffic")
    assert "no version serves yet" in str(first)
    assert live_gates.judge_own(shop, shop.store.version("returned", 1)) == ()


def test_honest_traffic_passes_and_is_measured_once(shop: Platform, orders_to_ask: Any) -> None:
    predict_rows(shop, "returned", orders_to_ask(40))
    model = declared(shop)
    result = verdict(shop, model)
    assert (result.passed, result.value, result.other) == (True, 0.0, 0.0)
    assert "0 of 640 values of 16 features of the champion (version 1) in 40 predictions differ" in result.reason
    assert verdict(shop, model) == result
    assert measurements(shop) == 1, "nothing has changed, so the measurement counts"
    predict_rows(shop, "returned", orders_to_ask(3))
    assert verdict(shop, model).passed
    assert measurements(shop) == 2, "there is newer traffic"
    backdate(shop)
    assert not verdict(shop, model).passed
    assert measurements(shop) == 3, "a table has changed"
    measure_skew(shop, "returned", sample=1)
    assert not verdict(shop, model).passed
    assert measurements(shop) == 5, "a smaller sample does not count"


def test_skew_fails_as_far_as_the_new_version_uses_the_same(shop: Platform, orders_to_ask: Any) -> None:
    made = predict_rows(shop, "returned", orders_to_ask(200))
    hit = sum(each.request["customer_id"] == "c5" for each in made)
    backdate(shop)
    result = verdict(shop, declared(shop))
    assert not result.passed
    assert f"habit__orders_30d ({hit} of 200)" in result.reason
    assert result.value == hit / 200
    # Features that are not used, or mean something else now, say nothing.
    assert verdict(shop, declared(shop, ("inputs=[habit, hourly, person,", "inputs=[person,"))).passed
    less = ("inputs=[habit, hourly,", "inputs=[habit,")
    assert not verdict(shop, declared(shop, less)).passed
    grid = ('"habit", entity=customer, source=orders,', '"habit", entity=customer, source=orders, every="1h",')
    assert verdict(shop, declared(shop, less, grid)).passed
    kept = declared(shop, ('mp.count(over="30d")', 'mp.count(over="29d")'))
    assert "orders_30d" not in verdict(shop, kept).reason
    assert not verdict(shop, kept).passed
    none = declared(shop, ('inputs=[habit, hourly, person, clock, "category", "amount"]', 'inputs=["amount"]'))
    assert "no feature means the same" in verdict(shop, none).reason


def test_a_share_is_allowed_only_of_enough(shop: Platform, orders_to_ask: Any) -> None:
    predict_rows(shop, "returned", orders_to_ask(200))
    backdate(shop)
    assert verdict(shop, declared(shop, (GATE, "mp.no_skew(max_share=0.1, min_compared=200)"))).passed
    few = verdict(shop, declared(shop, (GATE, "mp.no_skew(max_share=0.1, min_compared=201)")))
    assert not few.passed
    assert not verdict(shop, declared(shop, (GATE, "mp.no_skew(max_share=0.001, min_compared=200)"))).passed


def test_old_traffic_does_not_count_for_ever(shop: Platform, orders_to_ask: Any) -> None:
    import time

    predict_rows(shop, "returned", [row for row in orders_to_ask(200) if row["customer_id"] == "c5"])
    time.sleep(1.1)
    predict_rows(shop, "returned", [row for row in orders_to_ask(50) if row["customer_id"] != "c5"])
    backdate(shop)
    assert not verdict(shop, declared(shop)).passed
    assert verdict(shop, declared(shop, (GATE, 'mp.no_skew(min_compared=10, over="1s")'))).passed


def test_what_cannot_be_compared_does_not_pass(shop: Platform, orders_to_ask: Any) -> None:
    predict_rows(shop, "returned", orders_to_ask(20))
    shop.lake.drop("people")
    result = verdict(shop, declared(shop))
    assert not result.passed
    assert "person__age (20 of 20)" in result.reason


def test_a_champion_that_is_served_wrong_stops_the_next_version(shop: Platform, orders_to_ask: Any) -> None:
    predict_rows(shop, "returned", orders_to_ask(200))
    backdate(shop)
    file = Path(shop.settings.root) / "definitions.py"
    file.write_text(file.read_text().replace('estimator="linear", gates', 'estimator="linear", seed=4, gates'))
    again = open_project(shop.settings.root, user="bob")
    result = train(again, "returned")
    assert (result.trained, result.promoted) == (True, False)
    [gate] = result.gates
    assert not gate.passed
    assert "habit__orders_30d" in gate.reason
    page = version_page(again, "returned", 2)
    assert [each.passed for each in page.summary.gates] == [False]
    assert "habit__orders_30d" in result.report.read_text()
    assert "champion" in again.store.version("returned", 1).aliases
    assert train(again, "returned").promoted is False, "a judged version is left as it is"

    # By hand: the new version has served nothing; the old one has, and is judged by that.
    release.promote(again, "returned", 2, why="the skew is understood")
    with pytest.raises(VersionRefused, match="returned/1 may not answer: .*habit__orders_30d") as refused:
        release.promote(again, "returned", 1, why="back")
    assert "--force" in refused.value.hint
    assert "champion" in again.store.version("returned", 2).aliases
    release.promote(again, "returned", 1, why="back", force=True)
    assert "champion" in again.store.version("returned", 1).aliases
    [last, *_] = [each for each in again.access.audit.entries(10) if each.action == "promote"]
    assert (last.object, last.why) == ("returned/1", "back")
    assert last.details["live"][0]["passed"] is False
    assert again.access.audit.verify().intact


def test_a_version_that_was_served_well_may_return(shop: Platform, orders_to_ask: Any) -> None:
    predict_rows(shop, "returned", orders_to_ask(20))
    version = shop.store.version("returned", 1)
    [own] = live_gates.judge_own(shop, version)
    assert own.passed
    live_gates.require(version, [own])
