"""A version gets a plan where one is proven, and else says why it has none."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from lightgbm import LGBMClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from millpond.core.errors import MissingExtra
from millpond.platform import tiers
from millpond.serving.plans import kernels
from millpond.serving.plans.store import load_plan
from millpond.training.frame import to_frame
from millpond.training.preprocessing import for_trees

INPUTS = {"x": "float64", "s": "string"}
_random = np.random.default_rng(0)
ROWS = pa.table({"x": _random.normal(size=300), "s": [None if i % 9 == 0 else "ab"[i % 2] for i in range(300)]})
LABELS = (ROWS["x"].to_numpy() > 0).astype(int)


def outputs(pipeline):
    return lambda rows: pipeline.predict_proba(to_frame(rows, INPUTS))[:, 1]


@pytest.fixture
def pipeline():
    frame = to_frame(ROWS, INPUTS)
    model = LGBMClassifier(n_estimators=5, verbosity=-1, n_jobs=1)
    return make_pipeline(for_trees(frame, INPUTS), model).fit(frame, LABELS)


def test_a_proven_plan_is_among_the_files(pipeline, tmp_path):
    files, record = tiers.prepare(pipeline, INPUTS, "classification", ROWS, outputs(pipeline))
    assert record["tier"] == "compiled"
    assert (record["largest_difference"], record["tolerance"]) == (0.0, 0.0)
    assert record["rows"] > 300
    assert record["why"].startswith("LGBMClassifier, 5 trees, compared on")
    assert json.loads(json.dumps(record)) == record
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    assert (
        load_plan(tmp_path / "plan").score_one([0.5, "a"]) == outputs(pipeline)(pa.table({"x": [0.5], "s": ["a"]}))[0]
    )


def test_an_estimator_without_a_plan_is_native_and_says_why():
    rows, inputs = ROWS.select(["x"]), {"x": "float64"}
    model = KNeighborsClassifier().fit(to_frame(rows, inputs), LABELS)
    files, record = tiers.prepare(model, inputs, "classification", rows, lambda _: [])
    assert (files, record["tier"], record["rows"]) == ({}, "native", 0)
    assert record["why"] == "there is no plan for KNeighborsClassifier"


def test_a_plan_that_is_not_equal_is_not_kept(pipeline):
    files, record = tiers.prepare(pipeline, INPUTS, "classification", ROWS, lambda rows: outputs(pipeline)(rows) + 1e-9)
    assert (files, record["tier"]) == ({}, "native")
    assert record["why"].startswith("the plan is not equal to the estimator: outputs differ by")


def test_without_kernels_versions_are_native(pipeline, tmp_path, monkeypatch):
    files, _ = tiers.prepare(pipeline, INPUTS, "classification", ROWS, outputs(pipeline))
    for name, content in files.items():
        (tmp_path / name.removeprefix("plan/")).write_bytes(content)
    kernels.load_kernels.cache_clear()
    monkeypatch.setattr(kernels, "LIBRARY", tmp_path / "libkernels.so")
    try:
        found, record = tiers.prepare(pipeline, INPUTS, "classification", ROWS, outputs(pipeline))
        assert (found, record["tier"]) == ({}, "native")
        assert record["why"] == "the kernels of compiled plans are not installed"
        (tmp_path / "libkernels.so").write_bytes(b"no library")
        with pytest.raises(MissingExtra, match="do not load"):
            load_plan(tmp_path)
    finally:
        kernels.load_kernels.cache_clear()
