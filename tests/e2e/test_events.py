"""Events pushed into a walked project: durable, in the next lookup, in the lake, once."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from millpond.platform import events, online
from millpond.platform.platform import open_project
from millpond.platform.predictions import predict_rows
from millpond.platform.receipts import trace

pytestmark = pytest.mark.slow

ROWS = 1500
NEWEST = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC) + timedelta(hours=ROWS - 1)


def order(number, minutes, **columns):
    moment = NEWEST + timedelta(minutes=minutes)
    row = {"order_id": f"p{number}", "customer_id": "c1", "ordered_at": moment.isoformat(), "category": "books"}
    return {**row, "amount": 10.0 + number, "returned": 1, "dear": False, **columns}


def habits(platform, minutes, customer="c1"):
    """The served features of a customer, `minutes` after the newest order of the files."""
    row = {"customer_id": customer, "category": "books", "amount": 20.0}
    [made] = predict_rows(platform, "returned", [row], as_of=NEWEST + timedelta(minutes=minutes))
    return made, [made.inputs[f"habits__{name}"] for name in ("orders_7d", "returned_30d", "last_amount")]


def test_the_next_lookup_sees_what_was_acknowledged(walked):
    platform = open_project(walked.folder)
    _, (orders, returned, _) = habits(platform, 10)
    [loaded] = online.refresh(platform)
    assert loaded.how == "full"
    assert habits(platform, 10)[1][:2] == [orders, returned]
    done = events.push(platform, "priced", [order(1, 1), order(2, 2), order(1, 1)])
    assert (done.applied, done.duplicates) == (2, 1)
    made, found = habits(platform, 10)
    assert found == [orders + 2, returned + 2, 12.0]
    assert made.events == {"priced": done.position}
    assert habits(platform, 2)[1] == [orders + 1, returned + 1, 11.0], "an event is not visible at its own instant"
    replaced = events.push(platform, "priced", [order(2, 2, amount=99.0, returned=0)])
    assert (replaced.applied, replaced.duplicates) == (1, 0)
    assert habits(platform, 10)[1] == [orders + 2, returned + 1, 99.0]
    receipt = trace(platform, made.id)
    assert {each.name: each.recomputed for each in receipt.inputs}["habits__orders_7d"] is True


def test_events_land_once_and_the_lake_says_the_same(walked):
    platform = open_project(walked.folder)
    online.refresh(platform)
    events.push(platform, "priced", [order(number, number) for number in range(1, 6)])
    _, before = habits(platform, 30)
    landed = events.land(platform)["priced"]
    assert landed.rows == ROWS + 5
    assert events.land(platform) == {}
    events.push(platform, "priced", [order(3, 3)])
    assert events.land(platform) == {}, "known already"
    assert habits(platform, 30)[1] == before
    [again] = online.refresh(platform)
    assert again.how == "up to date"
    [again] = online.refresh(platform, full=True)
    assert habits(platform, 30)[1] == before
    walked.run("train")
    assert platform.lake.snapshot("priced").rows == ROWS + 5, "deriving again keeps what was pushed"


PUSHER = """
import sys
from millpond.platform import events
from millpond.platform.platform import open_project
platform = open_project(sys.argv[1])
for number in range(10_000):
    row = {"order_id": f"k{number}", "customer_id": "c1", "ordered_at": sys.argv[2], "amount": 1.0, "returned": 0}
    events.push(platform, "priced", [row])
    print(number, flush=True)
"""


def test_kill_9_loses_nothing_that_was_acknowledged(walked):
    platform = open_project(walked.folder)
    online.refresh(platform)
    _, (orders, _, _) = habits(platform, 10)
    acknowledged = -1
    for _ in range(2):
        moment = (NEWEST + timedelta(minutes=1)).isoformat()
        command = [sys.executable, "-c", PUSHER, str(walked.folder), moment]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                acknowledged = max(acknowledged, int(line))
                if int(line) == 40:
                    os.kill(process.pid, signal.SIGKILL)
    _, (now, _, _) = habits(platform, 10)
    assert acknowledged + 1 <= now - orders <= acknowledged + 2
    events.land(platform)
    assert platform.lake.snapshot("priced").rows == ROWS + now - orders


def test_events_through_the_server(walked):
    with walked.up() as client:
        walked.wait_for(open_project(walked.folder).online.states)
        body = {"events": [order(1, 1), order(2, 2)]}
        reply = client.post("/api/v1/tables/priced/events", json=body)
        assert reply.json()["applied"] == 2
        assert client.post("/api/v1/tables/priced/events", json=body).json()["duplicates"] == 2
        columns = {"customer_id": "c1", "category": "books", "amount": 20.0}
        asked = {"rows": [columns], "as_of": (NEWEST + timedelta(minutes=10)).isoformat()}
        [answer] = client.post("/api/v1/models/returned/predict", json=asked).json()["predictions"]
        receipt = client.get(f"/api/v1/predictions/{answer['id']}").json()
        values = {each["name"]: each for each in receipt["inputs"]}
        assert values["habits__last_amount"]["value"] == 12.0
        assert values["habits__last_amount"]["recomputed"] is True
        assert values["habits__last_amount"]["examples"][0] == "p2"
        walked.wait_for(lambda: open_project(walked.folder).lake.snapshot("priced").rows == ROWS + 2, 30)
        refused = client.post("/api/v1/tables/priced/events", json={"events": [order(3, 3), {"order_id": "x"}]})
        assert refused.status_code == 422
        assert "ordered_at" in refused.json()["what"]
        assert refused.json()["where"] == "event 1"
        unknown = client.post("/api/v1/tables/prized/events", json=body)
        assert unknown.status_code == 404
        assert "priced" in unknown.json()["hint"]


def test_events_by_the_command_line(walked):
    file = walked.folder / "events.jsonl"
    file.write_text("\n".join(json.dumps(order(number, number)) for number in (1, 2)) + "\n")
    assert walked.json("table", "push", "priced", str(file))["applied"] == 2
    assert walked.json("table", "push", "priced", str(file))["duplicates"] == 2
    file.write_text('{"order_id": "o1"\n')
    assert "line 1" in walked.refused("table", "push", "priced", str(file), code=6)["where"]
    ahead = (datetime.now(UTC) + timedelta(hours=2)).isoformat()
    file.write_text(json.dumps(order(9, 0, ordered_at=ahead)))
    assert "future" in walked.refused("table", "push", "priced", str(file), code=6)["what"]


def test_a_table_made_by_its_first_events(walked):
    definitions = walked.folder / "definitions.py"
    definitions.write_text(definitions.read_text() + 'clicks = mp.Table("clicks", key="id", time="at")\n')
    platform = open_project(walked.folder)
    events.push(platform, "clicks", [{"id": 1, "at": "2026-01-01T00:00:00Z", "page": "home", "ms": 12}])
    assert events.land(platform)["clicks"].rows == 1
    with platform.engine() as engine:
        found = engine.rows(f"SELECT id, page, ms FROM {engine.scan(platform.lake.snapshot('clicks'))}")
    assert found == [(1, "home", 12)]


def test_upkeep_keeps_up_what_champions_use_and_what_was_refreshed_once(walked):
    definitions = walked.folder / "definitions.py"
    view = 'mp.Features("spending", entity=customer, source=priced, every="1h", spent=mp.sum("amount"))'
    definitions.write_text(definitions.read_text() + f"spending = {view}\n")
    platform = open_project(walked.folder)
    upkeep = online.Upkeep(platform)
    assert [each.view for each in upkeep.run()] == ["habits"], "the champion's"
    online.refresh(platform, ["spending"])
    assert upkeep.run() == []
    rows = [[f"f{number}", f"c{number}", NEWEST, "books", 5.0, 0] for number in range(3)]
    columns = zip(*rows, strict=True)
    names = ("order_id", "customer_id", "ordered_at", "category", "amount", "returned")
    platform.lake.append("priced", pa.table({name: list(values) for name, values in zip(names, columns, strict=True)}))
    assert {each.view: each.how for each in upkeep.run()} == {"habits": "full", "spending": "incremental"}
