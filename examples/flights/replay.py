"""December again, event by event: every departure, arrival and reading is pushed when it became known, every flight is
asked about at its scheduled departure, and then `millpond skew` computes all served features anew from the lake.

    python examples/flights/replay.py [--days 31]

Works on a copy of the walked project (`make demo` first) whose tables end where December begins.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import httpx
from demo import MILLPOND, PROJECT, server

import millpond as mp
from millpond.platform import online
from millpond.platform.platform import Platform

DECEMBER = datetime(2013, 12, 1, tzinfo=UTC)
ASKED = ("carrier", "dest", "distance", "origin", "scheduled_at", "tailnum")

Event = tuple[datetime, str, dict[str, Any]]  # when it became known, its table, its columns


def main() -> None:
    parser = argparse.ArgumentParser(description="Replay December through the server, then measure skew.")
    parser.add_argument("--project", type=Path, default=PROJECT, help="a walked flights project")
    parser.add_argument("--days", type=float, default=31, help="how much of December")
    arguments = parser.parse_args()
    until = DECEMBER + timedelta(days=arguments.days)
    with tempfile.TemporaryDirectory(prefix="millpond-replay-") as directory:
        project = Path(directory) / "flights"
        shutil.copytree(arguments.project, project, ignore=shutil.ignore_patterns("logs", "run", "spool", "online"))
        platform = mp.open(project)
        events, flights = rewind(platform, until)
        print(f"{len(events):,} events to push, {len(flights):,} flights to ask about", flush=True)
        for done in online.refresh(platform):
            print(f"  online: {done.view}, {done.state.entities:,} entities")
        platform.online.close()
        with server(project) as client:
            replay(client, events, flights)
        skew = [MILLPOND[0], "--project", str(project), "skew", "late_arrival", "--all", "--json"]
        report = json.loads(subprocess.run(skew, check=True, stdout=subprocess.PIPE, text=True).stdout)
    for each in report["features"]:
        print(
            f"  {each['feature']:<40} {each['compared']:>6,} compared, {each['different'] + each['missing']:,} differ"
        )
    different = sum(each["different"] + each["missing"] for each in report["features"])
    compared = sum(each["compared"] for each in report["features"])
    print(f"{compared:,} feature values compared, {different:,} differ")
    sys.exit(1 if different or not compared else 0)


def rewind(platform: Platform, until: datetime) -> tuple[list[Event], list[dict[str, Any]]]:
    """Take from the tables what became known in December; returned as events, with the flights to ask about."""
    lake = platform.lake
    with platform.engine() as engine:
        flights, weather = (engine.scan(lake.snapshot(name)) for name in ("flights", "weather"))
        start, end = (f"TIMESTAMPTZ '{moment.isoformat()}'" for moment in (DECEMBER, until))

        def rows(sql: str) -> list[dict[str, Any]]:
            return engine.reader(sql).read_all().to_pylist()

        inside = f">= {start} AND %s < {end}"
        departures = rows(
            "SELECT * REPLACE (NULL AS arr_delay, NULL::TIMESTAMPTZ AS arrived_at)"
            f" FROM {flights} WHERE departed_at {inside % 'departed_at'}"
        )
        arrivals = rows(f"SELECT * FROM {flights} WHERE departed_at IS NOT NULL AND arrived_at {inside % 'arrived_at'}")
        readings = rows(f"SELECT * FROM {weather} WHERE observed_at {inside % 'observed_at'}")
        asked = rows(
            f"SELECT {', '.join(ASKED)} FROM {flights} WHERE scheduled_at {inside % 'scheduled_at'}"
            " ORDER BY scheduled_at"
        )
        unknown = f"coalesce(arrived_at, {start}) >= {start}"
        before = engine.reader(
            f"SELECT * REPLACE (CASE WHEN {unknown} THEN NULL ELSE arr_delay END AS arr_delay,"
            f" CASE WHEN {unknown} THEN NULL ELSE arrived_at END AS arrived_at)"
            f" FROM {flights} WHERE departed_at < {start}"
        )
        lake.overwrite("flights", before)
        lake.overwrite("weather", engine.reader(f"SELECT * FROM {weather} WHERE observed_at < {start}"))
    events = [(row["departed_at"], "flights", row) for row in departures]
    events += [(row["arrived_at"], "flights", row) for row in arrivals]
    events += [(row["observed_at"], "weather", row) for row in readings]
    return sorted(events, key=lambda event: event[0]), asked


def replay(client: httpx.Client, events: list[Event], flights: list[dict[str, Any]]) -> None:
    """Before each scheduled departure push what became known by then; then ask."""
    began, pushed, asked = time.perf_counter(), 0, 0
    for moment, leaving in groupby(flights, key=lambda row: row["scheduled_at"]):
        upto = pushed
        while upto < len(events) and events[upto][0] < moment:
            upto += 1
        for table, rows in by_table(events[pushed:upto]):
            done = client.post(f"/api/v1/tables/{table}/events", content=to_json({"events": rows}))
            if done.is_error or done.json()["duplicates"]:
                sys.exit(done.text)
        pushed = upto
        batch = list(leaving)
        answer = client.post("/v2/models/late_arrival/infer", content=to_json(request(batch)))
        if answer.is_error:
            sys.exit(answer.text)
        asked += len(batch)
        if asked // 1000 > (asked - len(batch)) // 1000:
            rate = asked / (time.perf_counter() - began)
            print(f"  {moment:%d %B}: {pushed:,} events, {asked:,} predictions, {rate:,.0f} a second", flush=True)
    print(f"{pushed:,} events pushed, {asked:,} predictions in {time.perf_counter() - began:.0f} s")


def by_table(events: list[Event]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Events of each table in order, a flight's departure before its arrival."""
    for table in ("flights", "weather"):
        rows = [row for _, name, row in events if name == table]
        if rows:
            yield table, rows


def request(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The rows as one Open Inference Protocol request."""
    kinds = {"distance": "INT64"}
    inputs = [
        {"name": name, "shape": [len(rows)], "datatype": kinds.get(name, "BYTES"), "data": [row[name] for row in rows]}
        for name in ASKED
    ]
    return {"inputs": inputs}


def to_json(value: object) -> bytes:
    return json.dumps(value, default=lambda moment: moment.isoformat()).encode()


if __name__ == "__main__":
    main()
