"""The whole walk on real flights: values to check by hand, what the model is worth, answers, receipts, no leakage."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from millpond.features.point_in_time import join_features
from millpond.features.ports import AT, PinnedView
from millpond.platform.platform import open_project

pytestmark = pytest.mark.slow

# Departures from Newark on the first morning of 2013, in order: departed at (UTC), delay in minutes.
NEWARK = [
    ("10:17", 2),
    ("10:54", -4),
    ("10:55", -5),
    ("10:58", -2),
    ("10:59", -1),
    ("11:01", 1),
    ("11:06", -4),
    ("11:07", 0),
    ("11:08", 8),
    ("11:15", 0),
    ("11:22", -8),
    ("11:24", -6),
    ("11:28", -2),
    ("11:29", -1),
    ("11:32", 24),
]

# Flight -> scheduled at; departures in the hour before; their mean delay; in the three hours before, worst and count.
BY_HAND = {
    "UA1545-EWR-2013010110": ("10:15", 0, None, None, 0),
    "UA1696-EWR-2013010110": ("10:58", 3, (2 - 4 - 5) / 3, 2, 3),
    "B6343-EWR-2013010111": ("11:00", 5, (2 - 4 - 5 - 2 - 1) / 5, 2, 5),
    "UA1077-EWR-2013010111": ("11:07", 7, (2 - 4 - 5 - 2 - 1 + 1 - 4) / 7, 2, 7),
    "US1019-EWR-2013010111": ("11:30", 13, (-4 - 5 - 2 - 1 + 1 - 4 + 0 + 8 + 0 - 8 - 6 - 2 - 1) / 13, 8, 14),
}


def infer(client: httpx.Client, columns: dict[str, Any], **body: Any) -> httpx.Response:
    inputs = [
        {"name": name, "shape": [1], "datatype": "INT64" if isinstance(value, int) else "BYTES", "data": [value]}
        for name, value in columns.items()
    ]
    return client.post("/v2/models/late_arrival/infer", json={"inputs": inputs, **body})


DEPARTURE = {
    "carrier": "UA",
    "origin": "EWR",
    "dest": "ORD",
    "distance": 719,
    "tailnum": "N847UA",
    "scheduled_at": "2013-12-10T20:15:00Z",
}


def outputs(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    return {each["name"]: each["data"][0] for each in response.json()["outputs"]}


def query(flights: Any, sql: str, *tables: str) -> list[tuple[Any, ...]]:
    platform = open_project(flights.folder)
    with platform.engine() as engine:
        relations = {table: engine.scan(platform.lake.snapshot(table)) for table in tables}
        return engine.rows(sql.format(*relations.values()))


def test_departures_are_the_ones_listed(flights):
    found = query(
        flights,
        "SELECT departed_at, dep_delay FROM {} WHERE origin = 'EWR' AND departed_at < TIMESTAMPTZ '2013-01-01 11:33Z' "
        "ORDER BY departed_at, dep_delay DESC",
        "flights",
    )
    listed = [(f"{at:%H:%M}", delay) for at, delay in found]
    assert listed == NEWARK


@pytest.mark.parametrize("flight", BY_HAND)
def test_traffic_is_what_a_person_computes(flights, flight):
    scheduled, in_hour, mean, worst, in_three = BY_HAND[flight]
    [row] = query(
        flights,
        "SELECT __at, airport_traffic__departures_1h, airport_traffic__mean_delay_1h, airport_traffic__worst_delay_3h, "
        f"airport_traffic__departures_3h FROM {{}} WHERE flight_id = '{flight}'",
        "training.late_arrival",
    )
    assert f"{row[0]:%Y-%m-%d %H:%M}" == f"2013-01-01 {scheduled}"
    assert row[1] == in_hour
    assert row[2] == (None if mean is None else pytest.approx(mean, rel=1e-9))
    assert row[3] == worst
    assert row[4] == in_three


def test_clocks_read_back_as_in_the_files(flights):
    """Instants, read on the local clock again, are the readings that the files have, but for a few wrong ones."""
    [[total, departed, arrived, backwards]] = query(
        flights,
        """
        SELECT count(*),
            count(*) FILTER (WHERE strftime(timezone('America/New_York', departed_at), '%H%M')::INT = dep_time % 2400),
            count(*) FILTER (WHERE strftime(timezone(zone, arrived_at), '%H%M')::INT = arr_time % 2400),
            count(*) FILTER (WHERE arrived_at <= departed_at)
        FROM (
            SELECT f.*, r.dep_time, r.arr_time, coalesce(a.tzone, 'America/Puerto_Rico') AS zone
            FROM {} f
            JOIN {} r ON f.flight_id = r.carrier || r.flight || '-' || r.origin || '-'
                || strftime(timezone('UTC', r.time_hour), '%Y%m%d%H')
            LEFT JOIN {} a ON a.faa = f.dest
            WHERE f.arrived_at IS NOT NULL
        )
        """,
        "flights",
        "raw_flights",
        "airports",
    )
    assert total == 327_346
    assert departed == total
    assert total - arrived == 21
    assert backwards == 0


def test_the_live_features_are_worth_something(flights):
    [version] = flights.json("model", "list")
    metrics = version["metrics"]
    assert set(version["aliases"]) == {"champion", "challenger"}
    assert 0.74 <= metrics["test.roc_auc"] <= 0.80
    assert metrics["baseline.test.roc_auc"] == 0.5
    assert metrics["test.log_loss"] < metrics["baseline.test.log_loss"]
    text = Path(flights.json("model", "show", "late_arrival")["report"]).read_text(encoding="utf-8")
    assert "airport_traffic__mean_delay" in text
    assert "http://" not in text.replace("http://www.w3.org", "")


def test_a_second_walk_does_nothing_again(flights):
    again = flights.run("ingest").stderr + flights.run("train").stderr
    stages = [line for line in again.splitlines() if line.startswith("  ")]
    assert len(stages) == 10
    assert all("up to date" in line for line in stages), again
    assert len(flights.json("model", "list")) == 1


def test_answers_and_receipts(flights):
    with flights.up() as client:
        response = infer(client, DEPARTURE, id="mine")
        answer = outputs(response)
        assert response.json()["id"] == "mine"
        assert answer["answer"] is True
        asked_early = outputs(infer(client, DEPARTURE, parameters={"as_of": "2013-12-10T12:00:00Z"}))
        assert asked_early["as_of"] == "2013-12-10T12:00:00Z"
        assert asked_early["probability"] != answer["probability"]
        page = client.get(f"/predictions/{answer['prediction_id']}", headers={"accept": "text/html"})
        assert page.status_code == 200
        assert "airport_traffic__mean_delay_1h" in page.text
    receipt = flights.json("trace", answer["prediction_id"])
    assert receipt["output"] == answer["probability"]
    assert receipt["version"] == 1
    assert receipt["as_of"] == "2013-12-10T20:15:00Z"
    looked_up = [each for each in receipt["inputs"] if each["table"]]
    assert len(looked_up) == 18
    assert all(each["recomputed"] for each in looked_up)
    assert all(each["visible_since"] < "2013-12-10T20:15:00Z" for each in looked_up if each["visible_since"])
    assert {each["table"] for each in receipt["snapshots"]} == {"flights", "weather", "planes"}


def test_a_batch_gives_what_single_answers_give(flights):
    flights.run("predict", "late_arrival", "--batch", "flights", "--to", "scores")
    [[rows, distinct]] = query(flights, "SELECT count(*), count(DISTINCT flight_id) FROM {}", "scores")
    assert rows == distinct == 336_776
    columns = {row[0] for row in query(flights, "DESCRIBE SELECT * FROM {}", "scores")}
    assert columns >= {"flight_id", "prediction_id", "probability", "answer", "version"}
    single = flights.json("predict", "late_arrival", *(f"{name}={value}" for name, value in DEPARTURE.items()))
    same = query(
        flights,
        "SELECT s.probability FROM {} s JOIN {} f USING (flight_id) WHERE f.tailnum = 'N847UA' "
        "AND f.scheduled_at = TIMESTAMPTZ '2013-12-10 20:15Z'",
        "scores",
        "flights",
    )
    assert same == [(pytest.approx(single["output"], rel=1e-9),)]
    [[identifier]] = query(
        flights,
        "SELECT s.prediction_id FROM {} s JOIN {} f USING (flight_id) WHERE f.tailnum = 'N847UA' "
        "AND f.scheduled_at = TIMESTAMPTZ '2013-12-10 20:15Z'",
        "scores",
        "flights",
    )
    one, other = flights.json("trace", identifier), flights.json("trace", single["id"])
    assert one["output"] == pytest.approx(other["output"], rel=1e-9)
    assert one["request"] == other["request"]
    values = [{each["name"]: each["value"] for each in receipt["inputs"]} for receipt in (one, other)]
    assert list(values[0]) == list(values[1])
    for name, value in values[0].items():
        same_value = pytest.approx(values[1][name], rel=1e-9) if isinstance(value, float) else values[1][name]
        assert value == same_value, name
    assert all(each["recomputed"] is None for each in one["inputs"])  # a batch logs no inputs to compare with
    assert all(each["recomputed"] for each in other["inputs"] if each["table"])


def test_what_is_not_yet_visible_changes_no_feature(flights, tmp_path):
    """Every flight and weather reading that a moment could not know is replaced by nonsense; no feature changes."""
    moment = datetime(2013, 7, 10, 18, 0, tzinfo=UTC)
    platform = open_project(flights.folder)
    views = [view for view in platform.definitions.views.values() if view.source.name != "planes"]
    sources = {view.source.name: platform.lake.snapshot(view.source.name) for view in views}
    limit = f"TIMESTAMPTZ '{moment.isoformat()}'"
    nonsense = {
        "flights": f"""SELECT * REPLACE (
            if(departed_at >= {limit}, 5000, dep_delay) AS dep_delay,
            if(arrived_at >= {limit}, 5000, arr_delay) AS arr_delay) FROM {{}} WHERE hash(flight_id) % 7 > 0
            OR departed_at < {limit}""",
        "weather": f"SELECT * REPLACE (if(observed_at >= {limit}, -999.0, temp) AS temp) FROM {{}}",
    }
    spine = f"""(SELECT origin, {limit} - to_minutes(n) AS "{AT}" FROM (VALUES ('EWR'), ('JFK'), ('LGA')) o(origin),
        range(0, 4000, 7) r(n))"""
    with platform.engine() as engine:
        for table, sql in nonsense.items():
            changed = engine.reader(sql.format(engine.scan(sources[table]))).read_all()
            platform.lake.overwrite(f"changed_{table}", changed)
        found = []
        for prefix in ("", "changed_"):
            pinned = [PinnedView(view, platform.lake.snapshot(prefix + view.source.name)) for view in views]
            with engine.session():
                relation = join_features(engine, spine, AT, pinned)
                found.append(engine.rows(f'SELECT * FROM {relation} ORDER BY origin, "{AT}"'))
    assert len(found[0]) == 3 * 572
    # a view whose event is the arrival sees a flight that has landed; its departure lies before, so nothing shows
    assert found[0] == found[1]
    assert moment - timedelta(minutes=3997) == min(row[1] for row in found[0])
