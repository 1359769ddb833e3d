"""The proof finds what is wrong with a plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from lightgbm import LGBMClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from millpond.serving.plans.kernels import DEFAULT_LEFT
from millpond.serving.plans.plan import Codes, Plan
from millpond.serving.plans.verify import verify_plan
from millpond.training.preprocessing import for_linear, for_trees


@pytest.fixture(scope="module")
def found(example, compiled):
    estimator = LGBMClassifier(n_estimators=10, verbosity=-1, n_jobs=1)
    kinds = {"distance": "float64", "wind": "float64", "delay": "float64", "seats": "int64", "weekend": "bool"}
    inputs = {**kinds, "carrier": "string", "origin": "string"}
    return compiled(make_pipeline(for_trees(example.frame, inputs), estimator), example, example.yes, "classification")


def rows(example):
    """Without a null, so that what is done with nulls shows on changed rows only."""
    return example.rows.drop_null().slice(0, 200)


def test_an_equal_plan_is_equal(found, example):
    verdict = verify_plan(found.plan, found.outputs, rows(example))
    assert verdict.equal
    assert (verdict.bit_equal, verdict.largest_difference, verdict.worst) == (1.0, 0.0, {})
    assert verdict.rows > 600


def test_another_leaf_is_found(found, example):
    leaves = found.plan.arrays["leaves"].copy()
    leaves += 1e-15 * (np.abs(leaves) == np.abs(leaves).max())
    verdict = verify_plan(
        Plan(found.plan.described, {**found.plan.arrays, "leaves": leaves}), found.outputs, rows(example)
    )
    assert not verdict.equal
    assert 0 < verdict.largest_difference < 1e-12
    assert set(verdict.worst) == {"inputs", "original", "plan"}
    assert verify_plan(found.plan, found.outputs, rows(example), tolerance=1e-9).equal


def test_a_threshold_that_is_off_by_one_step_is_found(found, example):
    arrays = dict(found.plan.arrays)
    arrays["nodes"], arrays["scan_threshold"] = arrays["nodes"].copy(), arrays["scan_threshold"].copy()
    arrays["nodes"]["threshold"] = np.nextafter(arrays["nodes"]["threshold"], np.inf)
    arrays["scan_threshold"] = np.nextafter(arrays["scan_threshold"], np.inf)
    verdict = verify_plan(Plan(found.plan.described, arrays), found.outputs, rows(example))
    assert not verdict.equal
    assert verdict.reason.startswith("outputs differ by")


def test_nulls_that_go_the_other_way_are_found(found, example):
    sizes = {**found.plan.described.sizes, "bits": 0}
    nodes = found.plan.arrays["nodes"].copy()
    nodes["flags"] ^= DEFAULT_LEFT
    plan = Plan(replace(found.plan.described, sizes=sizes), {**found.plan.arrays, "nodes": nodes})
    verdict = verify_plan(plan, found.outputs, rows(example))
    assert not verdict.equal


def test_an_unseen_text_that_is_taken_for_another_is_found(found, example):
    codes = found.plan.described.codes
    wrong = {**codes, "carrier": Codes(codes["carrier"].known, codes["carrier"].null, 0.0)}
    verdict = verify_plan(
        Plan(replace(found.plan.described, codes=wrong), found.plan.arrays), found.outputs, rows(example)
    )
    assert not verdict.equal


def test_one_that_refuses_alone_is_found(example, compiled, found):
    inputs = found.plan.inputs
    pipeline = make_pipeline(for_linear(example.frame, inputs, sparse=True), LogisticRegression(max_iter=300))
    weighed = compiled(pipeline, example, example.yes, "classification")

    def refuses_null_wind(table):
        if table["wind"].null_count:
            raise ValueError("no wind")
        return weighed.outputs(table)

    verdict = verify_plan(weighed.plan, refuses_null_wind, rows(example))
    assert not verdict.equal
    assert verdict.reason.startswith("nulls: the original alone refuses a row: ValueError: no wind")

    codes = {**weighed.plan.described.codes}
    codes["carrier"] = replace(codes["carrier"], other="refused")
    verdict = verify_plan(
        Plan(replace(weighed.plan.described, codes=codes), weighed.plan.arrays), weighed.outputs, rows(example)
    )
    assert "the plan alone refuses a row" in verdict.reason


def test_an_original_that_fails_proves_nothing(found, example):
    def fails(_):
        raise RuntimeError("out of order")

    verdict = verify_plan(found.plan, fails, rows(example))
    assert not verdict.equal
    assert verdict.reason == "the original cannot answer real rows: RuntimeError: out of order"
    assert verify_plan(found.plan, found.outputs, example.rows.slice(0, 0)).reason == "there are no rows to compare"
