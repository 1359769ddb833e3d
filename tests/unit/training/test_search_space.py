from __future__ import annotations

import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import millpond as mp
from millpond.core.errors import TrainingError
from millpond.training.recipes import recipe
from millpond.training.tuning import Choices, Range, search_space, tuning_metric


def space_of(model, **tune):
    return search_space(model, mp.Tune(**tune), recipe(model, 100).estimator)


def test_a_tuple_of_two_numbers_is_a_range_and_all_else_choices(make_model):
    found = space_of(
        make_model(),
        space={
            "num_leaves": (7, 60),
            "learning_rate": (0.001, 0.1),
            "max_depth": [3, 6],
            "boosting_type": ("gbdt", "dart"),
            "reg_lambda": (0.0, 100.0),
        },
    )
    assert found["num_leaves"] == Range(7, 60)
    assert found["num_leaves"].whole
    assert not found["num_leaves"].logarithmic
    assert found["learning_rate"].logarithmic
    assert found["max_depth"] == Choices((3, 6))
    assert found["boosting_type"] == Choices(("gbdt", "dart"))
    assert not found["reg_lambda"].logarithmic, "zero has no logarithm"


def test_the_default_space_leaves_out_what_the_model_fixes(make_model):
    assert set(space_of(make_model(params={"num_leaves": 5}))) & {"num_leaves", "learning_rate"} == {"learning_rate"}
    assert set(space_of(make_model("regression", estimator="linear"))) == {"alpha"}
    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    assert set(space_of(make_model(estimator=pipeline))) == {"logisticregression__C"}


REGRESSORS = (
    "lightgbm.LGBMRegressor",
    "sklearn.ensemble.ExtraTreesRegressor",
    "sklearn.ensemble.GradientBoostingRegressor",
    "sklearn.ensemble.HistGradientBoostingRegressor",
    "sklearn.ensemble.RandomForestRegressor",
    "sklearn.linear_model.ElasticNet",
    "sklearn.linear_model.Lasso",
    "sklearn.neighbors.KNeighborsRegressor",
    "sklearn.neural_network.MLPRegressor",
    "sklearn.tree.DecisionTreeRegressor",
)


@pytest.mark.parametrize("path", REGRESSORS)
def test_every_default_space_names_real_parameters(make_model, path):
    model = make_model("regression", estimator=path)
    estimator = recipe(model, 100).estimator
    assert set(search_space(model, mp.Tune(), estimator)) <= set(estimator.get_params())


@pytest.mark.parametrize(
    ("space", "message", "hint"),
    [
        ({"num_leafs": (3, 9)}, "no parameter 'num_leafs'", "'num_leaves'"),
        ({"num_leaves": (9, 3)}, "goes from 9 to 3", "low, then high"),
        ({"num_leaves": (1.0, float("inf"))}, "goes from 1.0 to inf", "low, then high"),
        ({"num_leaves": []}, "has no choices", "at least one"),
        ({"num_leaves": 5}, "search space of 'num_leaves' is 5", "tuple"),
        ({"boosting_type": "gbdt"}, "is 'gbdt'", "list"),
        ({}, "search space is empty", "at least one"),
    ],
)
def test_a_wrong_space_is_told(make_model, space, message, hint):
    with pytest.raises(TrainingError, match=message) as caught:
        space_of(make_model(), space=space)
    assert hint in caught.value.hint


def test_an_estimator_without_a_default_space_needs_one(make_model):
    with pytest.raises(TrainingError, match="no default search space for GaussianNB") as caught:
        space_of(make_model(estimator="sklearn.naive_bayes.GaussianNB"))
    assert "mp.Tune(space=" in caught.value.hint


def test_the_metric_is_one_of_the_task(make_model):
    assert tuning_metric(make_model(), mp.Tune()) == "roc_auc"
    assert tuning_metric(make_model("regression"), mp.Tune()) == "rmse"
    assert tuning_metric(make_model(), mp.Tune(metric="log_loss")) == "log_loss"
    with pytest.raises(TrainingError, match="no metric of a classification") as caught:
        tuning_metric(make_model(), mp.Tune(metric="roc_acu"))
    assert "'roc_auc'" in caught.value.hint
