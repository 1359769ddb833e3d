"""What a model says of its log, from the definition to receipts and skew."""

from __future__ import annotations

from typing import Any

import pytest

from millpond.core.errors import NotFound
from millpond.platform import logged, versions
from millpond.platform.deployments import publish
from millpond.platform.log_policies import take_over
from millpond.platform.model_pages import version_page
from millpond.platform.plan import plan
from millpond.platform.platform import Platform
from millpond.platform.predictions import flush, predict_rows
from millpond.platform.receipts import trace
from millpond.platform.skew import measure_skew
from millpond.platform.train import train
from millpond.serving.log.ids import is_sampled
from millpond.serving.ports import LogPolicy
from millpond.serving.routing import Routing

pytestmark = pytest.mark.slow

POLICY = 'log=mp.PredictionLog(sample=0.5, redact=["category", "habit__dearest"]),'


def test_a_share_is_logged_and_what_is_redacted_says_so(shop: Platform, orders_to_ask: Any) -> None:
    definitions = shop.settings.root / "definitions.py"
    text = definitions.read_text()
    definitions.write_text(text.replace('estimator="linear",\n    gates', f'estimator="linear", {POLICY}\n    gates'))
    shop = Platform(shop.settings)
    assert [each.name for each in plan(shop).models] == ["plain"], "which was never trained"
    assert not train(shop, "returned").trained, "what is logged has no part in the training"
    assert train(shop, "returned", force=True).promoted

    made = [each for row in orders_to_ask(60) for each in predict_rows(shop, "returned", [row])]
    kept = [each for each in made if is_sampled(each.id, 0.5)]
    assert 15 < len(kept) < 45
    assert logged.counts(shop)["returned"] == len(kept)
    assert flush(shop) == len(kept)
    assert logged.counts(shop)["returned"] == len(kept)
    assert [each.id for each in logged.newest(shop, "returned", 5)] == [each.id for each in reversed(kept)][:5]

    asked = next(each for each in kept if each.request["customer_id"] is not None)
    receipt = trace(shop, asked.id)
    inputs = {each.name: each for each in receipt.inputs}
    assert receipt.redacted == ("category", "habit__dearest")
    assert "category" not in receipt.request
    assert list(inputs) == list(asked.inputs)
    for name in receipt.redacted:
        assert (inputs[name].value, inputs[name].recomputed) == (None, None)
    assert inputs["habit__orders_30d"].recomputed is True
    assert inputs["amount"].value == asked.inputs["amount"]
    assert all(each.recomputed is not False for each in receipt.inputs)

    report = measure_skew(shop, "returned", sample=None)
    found = {each.feature: each for each in report.features}
    assert report.looked_at == len(kept)
    assert [each for each in report.features if each.different or each.missing] == []
    assert found["habit__orders_30d"].equal == len(kept)
    for name in ("habit__dearest", "clock__Shout"):
        assert (found[name].compared, found[name].missing) == (0, 0)
        assert found[name].reason.startswith("redacted")
    with shop.engine() as engine:
        relation = engine.scan(shop.lake.snapshot("predictions.returned"))
        names = engine.schema(relation).names
        assert not [name for name in names if "category" in name or "dearest" in name]

    missing = next(each for each in made if each not in kept)
    with pytest.raises(NotFound, match="no prediction") as refused:
        trace(shop, missing.id)
    assert "50.000% of its requests" in refused.value.hint


def test_a_change_of_the_policy_holds_for_versions_that_serve(shop: Platform) -> None:
    train(shop, "plain")
    [before] = predict_rows(shop, "plain", [{"amount": 1.5, "ordered_at": "2024-01-01T00:00:00Z"}])
    first = publish(shop)
    definitions = shop.settings.root / "definitions.py"
    text = definitions.read_text()
    plain = 'inputs=["amount"],\n                 estimator="linear"'
    assert plain in text
    definitions.write_text(text.replace(plain, f'{plain}, log=mp.PredictionLog(redact=["amount"])'))
    shop = Platform(shop.settings, user="bob")
    version = versions.require_champion(shop, "plain")
    assert versions.served_model(shop, version).logging == LogPolicy(), "nothing has taken it over"
    take_over(shop, ["plain", "nothing"])
    take_over(shop, ["plain"])
    assert versions.served_model(shop, version).logging == LogPolicy(1.0, ("amount",))
    [entry] = [each for each in shop.access.audit.entries() if each.action == "change log policy"]
    assert (entry.who, entry.object) == ("bob", "plain")
    assert entry.details["redact"] == ["amount"]
    assert shop.access.audit.verify().intact
    assert publish(shop) == first + 1
    routed = Routing(shop.settings.serving).current().versions["plain", version.number]
    assert routed.served.logging.redact == ("amount",)
    page = version_page(shop, "plain", version.number)
    assert page.log == "all requests, without amount"
    assert page.log_since is not None

    [after] = predict_rows(shop, "plain", [{"amount": 2.5, "ordered_at": "2024-01-01T00:00:00Z"}])
    flush(shop)
    kept, hidden = trace(shop, before.id), trace(shop, after.id)
    assert (kept.redacted, kept.request["amount"]) == ((), 1.5)
    assert hidden.redacted == ("amount",)
    assert [(each.name, each.value) for each in hidden.inputs] == [("amount", None)]

    definitions.write_text(text)
    shop = Platform(shop.settings, user="ann")
    take_over(shop, ["plain"])
    [again] = predict_rows(shop, "plain", [{"amount": 3.5, "ordered_at": "2024-01-01T00:00:00Z"}])
    assert trace(shop, again.id).request["amount"] == 3.5
    assert trace(shop, after.id).redacted == ("amount",)
    assert version_page(shop, "plain", version.number).log == "all requests"
