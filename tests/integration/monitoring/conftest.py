"""A project of a shop, in this process: orders and their customers, with features of every kind."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from millpond.platform.platform import Platform, open_project
from millpond.platform.tables import ingest_declared
from millpond.platform.train import train

START = 1_700_000_000

DEFINITIONS = """
import millpond as mp

orders = mp.Table("orders", source="orders.csv", key="order_id", time="ordered_at")
people = mp.Table("people", source="people.csv", key="customer_id")
customer = mp.Entity("customer", key="customer_id", unknown="allow")
habit = mp.Features(
    "habit", entity=customer, source=orders,
    orders_30d=mp.count(over="30d"), spent_7d=mp.sum("amount", over="7d"), mean_spent=mp.mean("amount"),
    spread=mp.std("amount", over="60d"), pieces=mp.sum("pieces", over="30d"), dearest=mp.max("amount", over="90d"),
    kinds=mp.nunique("category", over="30d"), last_kind=mp.latest("category", within="20d"),
    last_gift=mp.latest("gift"), first_pieces=mp.first("pieces"),
)
hourly = mp.Features("hourly", entity=customer, source=orders, every="6h", orders_1d=mp.count(over="1d"))
person = mp.Features("person", entity=customer, source=people, age=mp.latest("age"), town=mp.latest("town"))


@mp.request_features
def clock(rows):
    return rows.select(
        hour=mp.col("ordered_at").dt.hour(), root=mp.col("amount").sqrt(), Shout=mp.col("category").str.to_uppercase()
    )


returned = mp.Model(
    "returned", task=mp.Classification(label="returned"), examples=orders,
    inputs=[habit, hourly, person, clock, "category", "amount"], estimator="linear",
    gates=[mp.no_skew(min_compared=10)],
)
plain = mp.Model("plain", task=mp.Classification(label="returned"), examples=orders, inputs=["amount"],
                 estimator="linear")
"""


def write_orders(path: Path, rows: int = 900) -> None:
    lines = ["order_id,customer_id,ordered_at,category,amount,pieces,gift,returned"]
    for number in range(rows):
        customer = number * 7919 % 30
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(START + number * 3600))
        category = ("bøks 本", 'sh"oes', "shirts")[number % 3]
        pieces = "" if number % 11 == 0 else str(number % 5)
        flag = "true" if number % 2 else "false"
        back = int((customer % 5 == 0) ^ (number * 31 % 10 == 0))
        lines.append(f"o{number},c{customer},{moment},{category},{number % 97 / 10 + 0.1},{pieces},{flag},{back}")
    path.write_text("\n".join(line.replace('sh"oes', '"sh""oes"') for line in lines) + "\n")


def write_people(path: Path) -> None:
    lines = [f"c{number},{20 + number},Zürich {number % 4}" for number in range(25)]
    path.write_text("customer_id,age,town\n" + "\n".join(lines) + "\n")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shop, trained once; to be copied."""
    folder = tmp_path_factory.mktemp("shop") / "project"
    folder.mkdir()
    write_orders(folder / "orders.csv")
    write_people(folder / "people.csv")
    (folder / "millpond.toml").write_text('[project]\nname = "shop"\n')
    (folder / "definitions.py").write_text(DEFINITIONS)
    platform = open_project(folder, user="ann")
    ingest_declared(platform)
    train(platform, "returned")
    return folder


@pytest.fixture
def shop(trained: Path, tmp_path: Path) -> Platform:
    """A trained shop of the test's own."""
    shutil.copytree(trained, tmp_path / "project")
    return open_project(tmp_path / "project", user="ann")


@pytest.fixture
def orders_to_ask() -> Callable[[int], list[dict[str, Any]]]:
    """Requests: an order each at an instant between and at those of the table, known and unknown customers."""

    def rows(number: int) -> list[dict[str, Any]]:
        return [
            {
                "customer_id": None if each % 37 == 0 else f"c{each * 13 % 33}",
                "ordered_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(START + 200 * 3600 + each * 1800)),
                "category": ("bøks 本", 'sh"oes', "shirts")[each % 3],
                "amount": each % 89 / 7,
            }
            for each in range(number)
        ]

    return rows
