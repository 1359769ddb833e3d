"""The whole walk on real flights, through the commands that a person would type. Run it with `make demo`."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

PROJECT = Path(__file__).resolve().parent
MILLPOND = [str(Path(sys.executable).with_name("millpond")), "--project", str(PROJECT)]

# Three departures of December 2013, asked about at scheduled departure, and how late they really arrived (minutes).
DEPARTURES = [
    (
        {"carrier": "B6", "origin": "JFK", "dest": "MCO", "distance": 944, "tailnum": "N663JB"},
        "2013-12-04T13:11:00Z",
        -21,
    ),
    (
        {"carrier": "UA", "origin": "EWR", "dest": "ORD", "distance": 719, "tailnum": "N847UA"},
        "2013-12-10T20:15:00Z",
        120,
    ),
    (
        {"carrier": "AA", "origin": "LGA", "dest": "DFW", "distance": 1389, "tailnum": "N3DFAA"},
        "2013-12-14T19:55:00Z",
        71,
    ),
]


def main() -> None:
    began = time.perf_counter()
    say("Raw files become tables")
    run("ingest")
    say("Tables become features, a training set, and a judged version")
    [trained] = run("train")
    show_metrics(trained)
    say("The version answers over HTTP")
    with server() as client:
        ids = [predict(client, *departure) for departure in DEPARTURES]
    say("What is behind the last answer")
    subprocess.run([*MILLPOND, "trace", ids[-1]], check=True)
    print(f"\nThe whole walk took {time.perf_counter() - began:.1f} s.")
    print(f"Report: {trained['report']}")
    millpond = f"{os.path.relpath(MILLPOND[0])} --project {os.path.relpath(PROJECT)}"
    print("\nNow try:")
    print(f"  {millpond} up                # the same in a browser")
    print(f"  {millpond} predict late_arrival --batch flights --to scores")
    print(f"  {millpond} table history flights")


def say(title: str) -> None:
    print(f"\n\033[1m{title}\033[0m" if sys.stdout.isatty() else f"\n{title}", flush=True)


def run(*command: str) -> list[dict[str, object]]:
    """Run a millpond command; its stages pass through to the terminal, its data comes back."""
    done = subprocess.run([*MILLPOND, *command, "--json"], stdout=subprocess.PIPE, check=False, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout)


def show_metrics(trained: dict[str, object]) -> None:
    metrics = trained["metrics"]
    print(f"  version {trained['version']} ({', '.join(trained['aliases'])}) on December, beside a constant guess:")
    for name in ("roc_auc", "pr_auc", "log_loss", "brier"):
        print(f"    {name:<10} {metrics[f'test.{name}']:.4f}   baseline {metrics[f'baseline.test.{name}']:.4f}")


@contextlib.contextmanager
def server(project: Path = PROJECT) -> Iterator[httpx.Client]:
    """`millpond up` on a free port, and a client that has its token."""
    began = time.perf_counter()
    command = [MILLPOND[0], "--project", str(project), "up", "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        announced = ""
        while not announced.rstrip().endswith("}"):
            line = process.stdout.readline()
            if not line:
                sys.exit(process.wait())
            announced += line
        token = (project / ".millpond" / "token").read_text().strip()
        headers = {"authorization": f"Bearer {token}"}
        with httpx.Client(base_url=json.loads(announced)["url"], headers=headers, timeout=30) as client:
            wait_until_ready(client)
            print(f"  up and ready at {client.base_url} after {time.perf_counter() - began:.1f} s")
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)


def wait_until_ready(client: httpx.Client) -> None:
    for _ in range(600):
        if client.get("/v2/health/ready").status_code == 200:
            return
        time.sleep(0.1)
    sys.exit("the server did not become ready within a minute; see .millpond/logs")


def predict(client: httpx.Client, columns: dict[str, object], scheduled_at: str, arrived_late: int) -> str:
    """One Open Inference Protocol request; returns the prediction's id."""
    inputs = [
        {"name": name, "shape": [1], "datatype": "INT64" if isinstance(value, int) else "BYTES", "data": [value]}
        for name, value in {**columns, "scheduled_at": scheduled_at}.items()
    ]
    began = time.perf_counter()
    reply = client.post("/v2/models/late_arrival/infer", json={"inputs": inputs})
    if reply.is_error:
        sys.exit(reply.text)
    milliseconds = (time.perf_counter() - began) * 1000
    outputs = {each["name"]: each["data"][0] for each in reply.json()["outputs"]}
    flight = "{carrier} {origin}-{dest}".format(**columns)
    said = "late" if outputs["answer"] else "in time"
    print(f"  {flight} at {scheduled_at}: {outputs['probability']:.0%}, so {said}; it came {arrived_late:+d} minutes")
    print(f"    {outputs['prediction_id']}, answered in {milliseconds:.0f} ms")
    return str(outputs["prediction_id"])


if __name__ == "__main__":
    main()
