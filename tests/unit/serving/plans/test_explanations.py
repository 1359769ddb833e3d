"""Contributions against the libraries' own, and that they add up."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import lightgbm
import numpy as np
import pytest
import xgboost
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline

from millpond.core.errors import MillpondError
from millpond.serving.plans.plan import with_background
from millpond.serving.plans.store import load_plan, save
from millpond.serving.rows import Rows
from millpond.training.frame import to_frame
from millpond.training.preprocessing import for_linear, for_trees

INPUTS = ["distance", "wind", "delay", "seats", "weekend", "carrier", "origin"]
#: Of the encoded columns: texts come first there.
ORDER = [INPUTS.index(name) for name in ("carrier", "origin", "distance", "wind", "delay", "seats", "weekend")]


def sums(plan, rows):
    """Outputs in the space in which contributions are told."""
    outputs = plan.scores(plan.encode(rows))
    return np.log(outputs / (1 - outputs)) if plan.described.unit == "log-odds" else outputs


def encoded(found, rows):
    return found.pipeline[0].transform(to_frame(rows, found.plan.inputs))


@pytest.fixture(scope="module")
def make(example, compiled):
    def fit(estimator, target, task="classification"):
        pipeline = Pipeline([("preprocess", for_trees(example.frame, _types())), ("model", estimator)])
        return compiled(pipeline, example, target, task)

    return fit


def _types():
    kinds = ("float64", "float64", "float64", "int64", "bool", "string", "string")
    return dict(zip(INPUTS, kinds, strict=True))


def assert_explained(found, table, expected, base, tolerance=1e-9):
    rows = Rows.from_arrow(table)
    explanation = found.plan.explain(rows)
    assert explanation.contributions.shape == (table.num_rows, len(INPUTS))
    np.testing.assert_allclose(explanation.contributions[:, ORDER], expected, atol=tolerance, rtol=tolerance)
    assert explanation.base == pytest.approx(base, abs=tolerance)
    total = explanation.base + explanation.contributions.sum(axis=1)
    np.testing.assert_allclose(total, sums(found.plan, rows), atol=1e-4 if tolerance > 1e-6 else 1e-9)


def test_lightgbm_tells_the_same(example, make):
    table = example.other.slice(0, 150)
    for options in ({}, {"categorical_feature": [0, 1], "min_data_per_group": 5}):
        found = make(lightgbm.LGBMClassifier(n_estimators=20, verbosity=-1, n_jobs=1, **options), example.yes)
        theirs = found.pipeline[1].predict(encoded(found, table), pred_contrib=True)
        assert_explained(found, table, theirs[:, :-1], theirs[0, -1])


def test_xgboost_tells_the_same(example, make):
    found = make(xgboost.XGBClassifier(n_estimators=20, n_jobs=1), example.yes)
    table = example.other.slice(0, 150)
    matrix = xgboost.DMatrix(encoded(found, table))
    theirs = found.pipeline[1].get_booster().predict(matrix, pred_contribs=True)
    assert_explained(found, table, theirs[:, :-1], float(theirs[0, -1]), tolerance=1e-5)  # theirs are float32


@pytest.mark.parametrize("kind", ["forest", "regression", "histogram"])
def test_shap_tells_the_same_of_scikit_learn(kind, example, make):
    import shap  # a second, which tests of others need not wait for

    table = example.other.slice(0, 60)
    if kind == "forest":
        found = make(RandomForestClassifier(6, max_depth=7, random_state=0), example.yes)
    elif kind == "regression":
        found = make(RandomForestRegressor(5, max_depth=6, random_state=0), example.number, "regression")
    else:
        found = make(HistGradientBoostingClassifier(max_iter=10), example.yes)
    explainer = shap.TreeExplainer(found.pipeline[1], feature_perturbation="tree_path_dependent")
    theirs = explainer.shap_values(encoded(found, table), check_additivity=False)
    theirs = theirs[:, :, 1] if theirs.ndim == 3 else theirs
    base = np.atleast_1d(explainer.expected_value)[-1]
    assert_explained(found, table, theirs, float(base), tolerance=1e-6)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_contributions_of_weights_are_told_against_the_mean(task, example, compiled, tmp_path):
    estimator, target = (
        (LogisticRegression(max_iter=500), example.yes) if task == "classification" else (Ridge(), example.number)
    )
    pipeline = make_pipeline(for_linear(example.frame, _types(), sparse=True), estimator)
    found = compiled(pipeline, example, target, task)
    with pytest.raises(MillpondError, match="no training rows were given"):
        found.plan.explain(Rows.from_arrow(example.other))
    trained = Rows.from_arrow(example.rows)
    save(with_background(found.plan, trained), tmp_path)
    plan = load_plan(tmp_path)

    explanation = plan.explain(trained)
    np.testing.assert_allclose(explanation.contributions.mean(axis=0), 0, atol=1e-9)
    assert explanation.base == pytest.approx(sums(plan, trained).mean(), abs=1e-9)
    weights = estimator.coef_.reshape(-1)
    columns = pipeline[0].transform(example.frame)
    products = np.asarray(columns.todense() if hasattr(columns, "todense") else columns) * weights
    names = [each.split("__", 1)[1] for each in pipeline[0].get_feature_names_out()]
    for at, name in enumerate(INPUTS):
        mine = [k for k, each in enumerate(names) if each.removeprefix("missingindicator_").startswith(name)]
        total = products[:, mine].sum(axis=1)
        np.testing.assert_allclose(explanation.contributions[:, at], total - total.mean(), atol=1e-9)


def test_what_cannot_be_told_says_why(example, make):
    rows = Rows.from_arrow(example.other.slice(0, 3))
    several = make(lightgbm.LGBMClassifier(n_estimators=3, verbosity=-1, n_jobs=1), example.kind)
    with pytest.raises(MillpondError, match="several outputs"):
        several.plan.explain(rows)
    poisson = make(
        lightgbm.LGBMRegressor(n_estimators=3, verbosity=-1, n_jobs=1, objective="poisson"), example.yes, "regression"
    )
    with pytest.raises(MillpondError, match="under the objective poisson"):
        poisson.plan.explain(rows)


def test_threads_explain_while_others_are_scored(example, make):
    found = make(lightgbm.LGBMClassifier(n_estimators=60, verbosity=-1, n_jobs=1), example.yes)
    rows = Rows.from_arrow(example.other.slice(0, 100))
    expected, outputs = found.plan.explain(rows).contributions, found.plan.scores(found.plan.encode(rows))
    with ThreadPoolExecutor(2) as threads:
        told = [threads.submit(found.plan.explain, rows) for _ in range(6)]
        row = 0
        while not all(each.done() for each in told) or row < rows.count:
            [[output]] = found.plan.predict(rows.slice(row % rows.count, row % rows.count + 1)).values()
            assert output == outputs[row % rows.count]
            row += 1
    assert all(np.array_equal(each.result().contributions, expected) for each in told)
