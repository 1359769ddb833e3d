"""Decimals become the same float in training, in serving, and when skew is measured."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from millpond.platform.platform import open_project
from millpond.platform.predictions import predict_rows
from millpond.platform.skew import measure_skew
from millpond.platform.train import train

pytestmark = pytest.mark.slow

DEFINITIONS = """
import millpond as mp

rows = mp.Table("rows", key="id", time="at")
thing = mp.Entity("thing", key="thing")
worth = mp.Features("worth", entity=thing, source=rows, last=mp.latest("price"), total=mp.sum("price", over="20m"))
model = mp.Model("model", task=mp.Classification(label="yes"), examples=rows, inputs=[worth], estimator="linear")
"""


def moment(minutes: float) -> datetime:
    return datetime.fromtimestamp(1_700_000_000 + minutes * 60, UTC)


def test_decimals_are_equal_to_the_last_bit(tmp_path: Path) -> None:
    (tmp_path / "millpond.toml").write_text('[project]\nname = "prices"\n')
    (tmp_path / "definitions.py").write_text(DEFINITIONS)
    platform = open_project(tmp_path)
    chance = random.Random(5)
    prices = [Decimal(chance.randrange(-(10**17), 10**17)).scaleb(-4) for _ in range(400)]
    platform.lake.append(
        "rows",
        pa.table(
            {
                "id": pa.array(range(400), pa.int64()),
                "thing": [f"t{each % 7}" for each in range(400)],
                "at": pa.array([moment(each) for each in range(400)], pa.timestamp("us", "UTC")),
                "price": pa.array(prices, pa.decimal128(20, 4)),
                "yes": [chance.random() < 0.5 for _ in range(400)],
            }
        ),
    )
    train(platform, "model")
    ask = [{"thing": f"t{each % 7}", "at": moment(each + 0.5)} for each in range(10, 400)]
    made = predict_rows(platform, "model", ask)
    assert {each.inputs["worth__last"] for each in made} <= {float(price) for price in prices}
    report = measure_skew(platform, "model", sample=None)
    assert {each.tolerance for each in report.features} == {0.0}
    assert report.clean
