"""What our own training makes is compiled, and the plan in the version's directory answers as the version does."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import mlflow.sklearn
import pyarrow as pa
import pytest

from millpond.platform.model_pages import version_page
from millpond.platform.platform import open_project
from millpond.platform.tiers import PLAN, tier_of
from millpond.platform.train import train
from millpond.serving.plans.store import load_plan
from millpond.serving.rows import Rows
from millpond.training.frame import to_frame

pytestmark = pytest.mark.slow

DEFINITIONS = """
import millpond as mp

rides = mp.Table("rides", key="id", time="at")
shared = dict(task=mp.Classification(label="late"), examples=rides, inputs=["distance", "seats", "rain", "borough"])
trees = mp.Model("trees", estimator="lightgbm", **shared)
weights = mp.Model("weights", estimator="linear", **shared)
neighbours = mp.Model("neighbours", estimator="sklearn.neighbors.KNeighborsClassifier", **shared)
"""


def make_rows() -> pa.Table:
    chance = random.Random(3)
    distances = [chance.choice([None, chance.gauss(5, 2), chance.gauss(5, 2)]) for _ in range(600)]
    boroughs = [chance.choice([None, "Queens", "Bronx", "Brooklyn"]) for _ in range(600)]
    start = datetime(2024, 1, 1, tzinfo=UTC)
    return pa.table(
        {
            "id": pa.array(range(600), pa.int64()),
            "at": pa.array([start + timedelta(minutes=each) for each in range(600)], pa.timestamp("us", "UTC")),
            "distance": pa.array(distances, pa.float64()),
            "seats": pa.array([chance.randrange(1, 5) for _ in range(600)], pa.int64()),
            "rain": pa.array([chance.choice([None, True, False]) for _ in range(600)], pa.bool_()),
            "borough": pa.array(boroughs, pa.string()),
            "late": pa.array(
                [
                    (d or 4) + (b == "Queens") * 2 + chance.gauss(0, 1) > 5
                    for d, b in zip(distances, boroughs, strict=True)
                ]
            ),
        }
    )


def test_default_recipes_are_compiled_and_others_say_why(tmp_path: Path) -> None:
    (tmp_path / "millpond.toml").write_text('[project]\nname = "rides"\n')
    (tmp_path / "definitions.py").write_text(DEFINITIONS)
    platform = open_project(tmp_path)
    rows = make_rows()
    platform.lake.append("rides", rows)
    for name in ("trees", "weights"):
        version = train(platform, name).version
        tier = tier_of(platform, version)
        assert tier.tier == "compiled", tier.why
        assert tier.rows > 600
        assert tier.largest_difference is not None
        assert tier.largest_difference <= (0.0 if name == "trees" else 1e-12)
        plan = load_plan(platform.store.directory(version) / "millpond" / PLAN)
        asked = rows.select(list(plan.inputs))
        estimator = mlflow.sklearn.load_model(str(platform.store.directory(version)))
        expected = estimator.predict_proba(to_frame(asked, plan.inputs))[:, 1]
        assert plan.scores(plan.encode(Rows.from_arrow(asked))).tolist() == pytest.approx(list(expected), rel=1e-12)
        assert plan.explain(Rows.from_arrow(asked)).contributions.shape == (600, 4)
        assert version_page(platform, name, version.number).tier == tier
    version = train(platform, "neighbours").version
    assert tier_of(platform, version).tier == "native"
    assert tier_of(platform, version).why == "there is no plan for KNeighborsClassifier"
    assert not (platform.store.directory(version) / "millpond" / PLAN).exists()
