"""A project with a shop's orders, and a table of questions to score: null and unknown customers, instants ahead."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from millpond.platform.platform import Platform, open_project
from millpond.platform.tables import ingest_declared
from millpond.platform.train import train

START = 1_700_000_000
ASKS = 120

DEFINITIONS = """
import millpond as mp

orders = mp.Table("orders", source="orders.csv", key="order_id", time="ordered_at")
people = mp.Table("people", source="people.csv", key="customer_id")
asks = mp.Table("asks", source="asks.csv", key="ask_id")
customer = mp.Entity("customer", key="customer_id", unknown="allow")
member = mp.Entity("member", key="customer_id")
habit = mp.Features(
    "habit", entity=customer, source=orders,
    orders_30d=mp.count(over="30d"), mean_spent=mp.mean("amount"), spread=mp.std("amount", over="60d"),
    kinds=mp.nunique("category", over="30d"), last_kind=mp.latest("category", within="20d"),
)
hourly = mp.Features("hourly", entity=customer, source=orders, every="6h", orders_1d=mp.count(over="1d"))
person = mp.Features("person", entity=customer, source=people, age=mp.latest("age"), town=mp.latest("town"))
known = mp.Features("known", entity=member, source=people, age=mp.latest("age"))


@mp.request_features
def shout(rows):
    return rows.select(root=mp.col("amount").sqrt(), kind=mp.col("category").str.to_uppercase())


returned = mp.Model(
    "returned", task=mp.Classification(label="returned"), examples=orders,
    inputs=[habit, hourly, person, shout, "category", "pieces"], estimator="linear",
)
spent = mp.Model(
    "spent", task=mp.Regression(label="amount"), examples=orders, inputs=[known, "pieces"], estimator="linear",
)
"""


def write_tables(folder: Path) -> None:
    lines = ["order_id,customer_id,ordered_at,category,amount,pieces,returned"]
    for number in range(600):
        customer = number * 7919 % 30
        back = int((customer % 5 == 0) ^ (number * 31 % 10 == 0))
        lines.append(f"o{number},c{customer},{_moment(number)},{_kind(number)},{number % 97 / 10},{number % 5},{back}")
    (folder / "orders.csv").write_text("\n".join(lines) + "\n")
    people = [f"c{number},{20 + number},Town {number % 4}" for number in range(30)]
    (folder / "people.csv").write_text("customer_id,age,town\n" + "\n".join(people) + "\n")
    lines = ["ask_id,customer_id,ordered_at,category,amount,pieces"]
    for number in range(ASKS):
        customer = "" if number % 37 == 0 else f"c{number * 13 % 33}"
        moment = "" if number % 41 == 5 else "2999-01-01T00:00:00Z" if number % 43 == 7 else _moment(number * 6)
        pieces = "" if number % 11 == 0 else str(number % 5)
        lines.append(f"{number},{customer},{moment},{_kind(number)},{number % 89 / 7},{pieces}")
    (folder / "asks.csv").write_text("\n".join(lines) + "\n")


def _moment(number: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(START + number * 3600))


def _kind(number: int) -> str:
    return ("bøks 本", "shoes", "shirts")[number % 3]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shop, trained once; to be copied."""
    folder = tmp_path_factory.mktemp("shop") / "project"
    folder.mkdir()
    write_tables(folder)
    (folder / "millpond.toml").write_text('[project]\nname = "shop"\n')
    (folder / "definitions.py").write_text(DEFINITIONS)
    platform = open_project(folder, user="ann")
    ingest_declared(platform)
    train(platform, "returned")
    train(platform, "spent")
    # A second file, of other rows; then the last ten once more, in a third.
    asks = platform.lake.snapshot("asks")
    with platform.engine() as engine:
        rows = engine.reader(f"SELECT * FROM {engine.scan(asks)} ORDER BY ask_id").read_all()
    platform.lake.overwrite("asks", rows.slice(0, 65))
    platform.lake.append("asks", rows.slice(65))
    platform.lake.upsert("asks", rows.slice(110), ["ask_id"])
    return folder


@pytest.fixture
def shop(trained: Path, tmp_path: Path) -> Platform:
    """A trained shop of the test's own."""
    shutil.copytree(trained, tmp_path / "project")
    return open_project(tmp_path / "project", user="ann")


@pytest.fixture
def scores() -> Callable[[Platform, str], list[dict[str, Any]]]:
    """The rows of a table of predictions, in the order of their keys; without what is new each time."""

    def read(platform: Platform, table: str) -> list[dict[str, Any]]:
        with platform.engine() as engine:
            relation = engine.scan(platform.lake.snapshot(table))
            rows = engine.reader(f"SELECT * FROM {relation} ORDER BY ask_id").read_all()
        ids = rows["prediction_id"].to_pylist()
        assert len(set(ids)) == len(ids)
        found: list[dict[str, Any]] = rows.drop_columns(["prediction_id", "predicted_at"]).to_pylist()
        return found

    return read


@pytest.fixture
def run_and_die() -> Callable[..., str]:
    """Runs code in another process, which kills itself as `kill -9` does when the code calls `die`; what it said."""

    def run(code: str) -> str:
        head = "import os, signal, sys\ndef die():\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        done = subprocess.run(
            [sys.executable, "-c", head + textwrap.dedent(code)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == -9, done.stderr
        return done.stdout

    return run
