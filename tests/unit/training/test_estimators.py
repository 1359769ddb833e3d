from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from millpond.core.errors import TrainingError
from millpond.training.estimators import handles_frames, resolve, set_seeds
from millpond.training.preprocessing import for_linear, for_trees
from millpond.training.recipes import recipe

FOREST = "sklearn.ensemble.RandomForestClassifier"


@pytest.mark.parametrize("path", [FOREST, "sklearn.ensemble:RandomForestClassifier"])
def test_an_import_path_with_params(path):
    found = resolve(path, "classification", {"n_estimators": 7}, "m")
    assert isinstance(found, RandomForestClassifier)
    assert found.n_estimators == 7


def test_an_object_is_cloned_and_keeps_its_own_seed():
    mine = make_pipeline(StandardScaler(), RandomForestClassifier(random_state=9))
    found = resolve(mine, "classification", {"randomforestclassifier__n_estimators": 3}, "m")
    set_seeds(found, 5)
    assert found is not mine
    assert mine[-1].n_estimators == 100
    assert (found[-1].n_estimators, found[-1].random_state) == (3, 9)


def test_seeds_reach_nested_estimators(make_model):
    wrapped = CalibratedClassifierCV(make_pipeline(StandardScaler(), RandomForestClassifier()))
    made = recipe(make_model(estimator=wrapped, seed=4), 100)
    assert made.estimator.get_params()["estimator__randomforestclassifier__random_state"] == 4
    assert made.preprocessing == "own"


@pytest.mark.parametrize(
    ("path", "preprocessing"),
    [
        ("lightgbm", "trees"),
        ("linear", "linear"),
        (FOREST, "trees"),
        ("sklearn.naive_bayes.GaussianNB", "dense"),
        ("skrub.tabular_pipeline", "own"),
        ("skrub.TableVectorizer", "own"),
        ("lightgbm.LGBMClassifier", "trees"),
    ],
)
def test_what_stands_in_front_of_an_estimator(make_model, path, preprocessing):
    assert recipe(make_model(estimator=path), 100).preprocessing == preprocessing


def test_a_transformer_alone_gets_trees_behind_it():
    found = resolve("skrub.TableVectorizer", "regression", {"cardinality_threshold": 5}, "m")
    assert isinstance(found, Pipeline)
    assert type(found[-1]).__name__ == "HistGradientBoostingRegressor"
    assert found[0].cardinality_threshold == 5
    assert handles_frames(found)


def test_lightgbm_is_quiet_deterministic_and_stops_early_unless_told(make_model):
    made = recipe(make_model(seed=3), 100)
    params = made.estimator.get_params()
    wanted = {"random_state": 3, "deterministic": True, "force_col_wise": True, "verbosity": -1, "n_jobs": 1}
    assert {name: params[name] for name in wanted} == wanted
    assert made.early_stopping
    fixed = recipe(make_model(params={"n_estimators": 10, "max_bin": 63, "n_jobs": 2, "force_row_wise": True}), 100)
    assert not fixed.early_stopping
    params = fixed.estimator.get_params()
    assert (params["max_bin"], params["n_jobs"]) == (63, 2)
    assert "force_col_wise" not in params


@pytest.mark.parametrize(
    ("estimator", "params", "task", "message", "hint"),
    [
        ("ligthgbm", {}, "classification", "no estimator 'ligthgbm'", "'lightgbm'"),
        ("sklearn.ensemble.RandomForestClasifier", {}, "classification", "Clasif", "RandomForestClassif"),
        ("sklearn.ensembel.RandomForestClassifier", {}, "classification", "no module 'ensembel'", "'ensemble'"),
        ("nowhere.at.all.Model", {}, "classification", "no module 'nowhere'", "install 'nowhere'"),
        (FOREST, {"n_estimator": 3}, "classification", "no parameter 'n_estimator'", "'n_estimators'"),
        (FOREST, {}, "regression", "is a classifier", "'RandomForestRegressor'"),
        ("sklearn.linear_model.Ridge", {}, "classification", "is a regressor", "task"),
        ("sklearn.svm.LinearSVC", {}, "classification", "no probabilities", "CalibratedClassifierCV"),
        ("collections.OrderedDict", {}, "classification", "is not a scikit-learn estimator", "import path"),
        ("sys.maxsize", {}, "classification", "is not a scikit-learn estimator", "import path"),
        ("math.sqrt", {}, "classification", "math.sqrt refuses its parameters", ""),
        ("skrub.TableVectorizer", {"cardinality": 5}, "classification", "cardinality", "cardinality_threshold"),
        (LogisticRegression(), {"c": 1}, "classification", "no parameter 'c'", "C"),
        (3, {}, "classification", "is not a scikit-learn estimator", "import path"),
        ("lightgbm", {"num_leafs": 3}, "classification", "no parameter 'num_leafs'", "'num_leaves'"),
        ("lightgbm", {"feature_fraction": 0.5}, "classification", "no parameter", "'colsample_bytree'"),
        ("lightgbm.LGBMRegressor", {"lambda_l2": 0.5}, "regression", "no parameter", "'reg_lambda'"),
        ("linear", {"alpha": 1}, "classification", "no parameter 'alpha'", "parameters"),
    ],
)  # fmt: skip
def test_a_wrong_estimator_is_told_with_what_is_near(make_model, estimator, params, task, message, hint):
    with pytest.raises(TrainingError, match=message) as caught:
        recipe(make_model(task, estimator=estimator, params=params), 100)
    assert hint in caught.value.hint
    assert caught.value.where.startswith('Model "late", ')


def test_a_module_that_fails_to_import(tmp_path, monkeypatch):
    (tmp_path / "broken_estimators.py").write_text("raise RuntimeError('half written')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TrainingError, match="importing 'broken_estimators' failed: half written") as caught:
        resolve("broken_estimators.Model", "classification", {}, "m")
    assert isinstance(caught.value.__cause__, RuntimeError)


FRAME = pd.DataFrame(
    {
        "s": pd.Series(["b", "a", None, "b"], dtype=object),
        "full": pd.Series(["x", "y", "x", "y"], dtype=object),
        "void": pd.Series([None] * 4, dtype=object),
        "n": [1.0, np.nan, 3.0, 5.0],
    }
)
INPUTS = {"n": "float64", "s": "string", "full": "string", "void": "string"}
LATER = FRAME.assign(
    s=pd.Series(["zz", None, "a", "b"], dtype=object),
    full=pd.Series([None, "x", "new", "y"], dtype=object),
    void=pd.Series(["new", None, None, None], dtype=object),
)


def with_null(frame, null):
    return frame.map(lambda value: null if value is None else value).astype(frame.dtypes)


@pytest.mark.parametrize("null", [None, np.nan])
def test_ordinal_codes_of_known_unknown_and_null(null):
    transformer = for_trees(FRAME, INPUTS).fit(FRAME)
    np.testing.assert_array_equal(
        transformer.transform(with_null(LATER, null)),
        [
            [np.nan, np.nan, np.nan, 1.0],
            [np.nan, 0, np.nan, np.nan],
            [0, np.nan, np.nan, 3.0],
            [1, 1, np.nan, 5.0],
        ],
    )


def test_only_the_most_frequent_categories_are_kept():
    names = [f"v{number:04}" for number in range(300)] + ["v0299"]
    frame = pd.DataFrame({"s": pd.Series(names, dtype=object)})
    codes = for_trees(frame, {"s": "string"}).fit_transform(frame)[:, 0]
    assert len(np.unique(codes[~np.isnan(codes)])) == 255
    assert np.isnan(codes[254:299]).all(), "of equally frequent ones the lesser texts are kept"
    assert codes[299] == codes[300] == 254


@pytest.mark.parametrize("null", [None, np.nan])
@pytest.mark.parametrize("sparse", [True, False])
def test_one_hot_and_scaled_numbers(sparse, null):
    found = for_linear(FRAME, INPUTS, sparse=sparse).fit(FRAME).transform(with_null(LATER, null))
    found = found.toarray() if sparse else found
    numbers, flags = found[:, 0], found[:, 1]
    assert numbers.mean() == pytest.approx(0)
    assert (flags > 0).tolist() == [False, True, False, False]
    np.testing.assert_array_equal(found[:, 2:], [[0, 0, 0, 0, 0], [0, 0, 1, 0, 0], [1, 0, 0, 0, 0], [0, 1, 0, 1, 0]])
