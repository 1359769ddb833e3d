"""The right to be forgotten: one customer, gone from everywhere."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from millpond.platform import events, online
from millpond.platform.platform import open_project
from millpond.platform.predictions import predict_rows

pytestmark = pytest.mark.slow

NEWEST = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC) + timedelta(hours=1499)


def test_forgetting_a_customer(walked):
    platform = open_project(walked.folder)
    online.refresh(platform)
    asked = {"customer_id": "c1", "category": "books", "amount": 20.0}
    predict_rows(platform, "returned", [asked], as_of=NEWEST)
    moment = (NEWEST + timedelta(minutes=1)).isoformat()
    events.push(platform, "priced", [{"order_id": "p1", "customer_id": "c1", "ordered_at": moment, "amount": 1.0}])
    told = walked.json("feature", "forget", "customer", "customer_id=c1", "--yes")
    assert told["online"] > 0
    assert told["rows"]["orders"] == 25
    assert told["rows"]["priced"] == 26
    assert told["rows"]["predictions.returned"] == 1
    assert any(each.startswith("priced@") for each in told["pinned"]), "the version pins what it was trained on"
    assert told["sources"] == ["orders.csv"]
    platform = open_project(walked.folder)
    with platform.engine() as engine:
        for table in ("orders", "priced", "events.priced", "predictions.returned"):
            relation = engine.scan(platform.lake.snapshot(table))
            column = "request__customer_id" if "predictions" in table else "customer_id"
            assert engine.rows(f"SELECT count(*) FROM {relation} WHERE {column} = 'c1'") == [(0,)]
    assert (
        "Unknown customer: 'c1'"
        in walked.refused("predict", "returned", "customer_id=c1", "category=books", "amount=2", code=6)["what"]
    )
    [entry] = [each for each in walked.json("audit") if each["action"] == "forget"]
    assert '"c1"' not in json.dumps(entry)


def test_what_cannot_be_forgotten(walked):
    assert "no entity" in walked.refused("feature", "forget", "custumer", "customer_id=c1", "--yes", code=4)["what"]
    told = walked.refused("feature", "forget", "customer", "customer=c1", "--yes", code=6)
    assert told["hint"] == "its key is customer_id"
    assert "COLUMN=VALUE" in walked.refused("feature", "forget", "customer", "c1", "--yes", code=6)["what"]
