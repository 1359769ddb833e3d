"""Every family of estimators against its plan: on real rows, changed ones, thresholds, extremes"""

from __future__ import annotations

import lightgbm
import pytest
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import ElasticNet, LinearRegression, LogisticRegression, Ridge, SGDClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from millpond.serving.plans.compiling import compile_plan
from millpond.serving.plans.symbols import NotCompilable
from millpond.serving.plans.verify import verify_plan
from millpond.training.preprocessing import for_linear, for_trees

INPUTS = {
    "distance": "float64",
    "wind": "float64",
    "delay": "float64",
    "seats": "int64",
    "weekend": "bool",
    "carrier": "string",
    "origin": "string",
}
NUMBERS = ["distance", "wind", "delay", "seats", "weekend"]
TEXTS = ["carrier", "origin"]
ONE = {"verbosity": -1, "n_jobs": 1}
QUIET = {**ONE, "n_estimators": 20}
LGBM, LGBM_R = lightgbm.LGBMClassifier, lightgbm.LGBMRegressor


def trees(example, estimator):
    return Pipeline([("preprocess", for_trees(example.frame, INPUTS)), ("model", estimator)])


FORESTS = {
    "lightgbm": (LGBM(**QUIET), "yes"),
    "lightgbm categorical": (LGBM(**QUIET, categorical_feature=[0, 1], min_data_per_group=5), "yes"),
    "lightgbm several classes": (LGBM(**ONE, n_estimators=8), "kind"),
    "lightgbm one against the rest": (LGBM(**ONE, n_estimators=8, objective="multiclassova"), "kind"),
    "lightgbm regression": (LGBM_R(**QUIET), "number"),
    "lightgbm 60 leaves": (LGBM_R(**QUIET, num_leaves=60, min_child_samples=3), "number"),
    "lightgbm 200 leaves": (LGBM_R(**QUIET, num_leaves=200, min_child_samples=3), "number"),
    "lightgbm zero as missing": (LGBM_R(**QUIET, zero_as_missing=True), "number"),
    "lightgbm no missing": (LGBM_R(**QUIET, use_missing=False), "number"),
    "lightgbm root": (LGBM_R(**QUIET, reg_sqrt=True), "number"),
    "lightgbm poisson": (LGBM_R(**QUIET, objective="poisson"), "yes"),
    "lightgbm stump": (LGBM_R(**ONE, n_estimators=3, min_child_samples=2000), "number"),
    "histogram": (HistGradientBoostingClassifier(max_iter=20), "yes"),
    "histogram categorical": (HistGradientBoostingClassifier(max_iter=20, categorical_features=[0, 1, 5]), "yes"),
    "histogram several classes": (HistGradientBoostingClassifier(max_iter=6, categorical_features=[0]), "kind"),
    "histogram regression": (HistGradientBoostingRegressor(max_iter=20, max_leaf_nodes=60), "number"),
    "histogram poisson": (HistGradientBoostingRegressor(max_iter=10, loss="poisson"), "yes"),
    "forest": (RandomForestClassifier(12, random_state=0), "yes"),
    "forest several classes": (RandomForestClassifier(7, random_state=0), "kind"),
    "small forest": (RandomForestClassifier(20, max_leaf_nodes=20, random_state=0), "yes"),
    "forest regression": (RandomForestRegressor(7, random_state=0), "number"),
    "extra trees": (ExtraTreesClassifier(7, random_state=0), "yes"),
    "tree": (DecisionTreeClassifier(random_state=0), "kind"),
    "tree regression": (DecisionTreeRegressor(random_state=0), "number"),
    "xgboost": (xgboost.XGBClassifier(n_jobs=1, n_estimators=20), "yes"),
    "xgboost several classes": (xgboost.XGBClassifier(n_jobs=1, n_estimators=6), "kind"),
    "xgboost regression": (xgboost.XGBRegressor(n_jobs=1, n_estimators=20, max_depth=8), "number"),
    "xgboost poisson": (xgboost.XGBRegressor(n_jobs=1, n_estimators=10, objective="count:poisson"), "yes"),
}


@pytest.mark.parametrize("name", FORESTS)
def test_forests_are_equal_to_the_last_bit(name, example, compiled):
    estimator, target = FORESTS[name]
    task = (
        "regression"
        if name.endswith(("regression", "poisson", "leaves", "missing", "root", "stump"))
        else "classification"
    )
    found = compiled(trees(example, estimator), example, getattr(example, target), task)
    verdict = verify_plan(found.plan, found.outputs, example.other.slice(0, 300))
    assert verdict.equal, (verdict.reason, verdict.worst)
    assert verdict.bit_equal == 1.0
    assert verdict.tolerance == 0.0


LINEAR = {
    "logistic": (LogisticRegression(max_iter=1000), "yes"),
    "logistic several classes": (LogisticRegression(max_iter=1000), "kind"),
    "sgd": (SGDClassifier(loss="log_loss", random_state=0), "yes"),
    "sgd several classes": (SGDClassifier(loss="log_loss", random_state=0), "kind"),
    "ridge": (Ridge(), "number"),
    "elastic net": (ElasticNet(alpha=0.01), "number"),
}


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("name", LINEAR)
def test_linear_models_are_equal_within_rounding(name, sparse, example, compiled):
    estimator, target = LINEAR[name]
    pipeline = Pipeline([("preprocess", for_linear(example.frame, INPUTS, sparse=sparse)), ("model", estimator)])
    task = "regression" if target == "number" else "classification"
    found = compiled(pipeline, example, getattr(example, target), task)
    verdict = verify_plan(found.plan, found.outputs, example.other.slice(0, 300))
    assert verdict.equal, (verdict.reason, verdict.worst)
    assert verdict.tolerance == 1e-12


def columns(number_step, text_step):
    return ColumnTransformer([("n", number_step, NUMBERS), ("t", text_step, TEXTS)])


filled = SimpleImputer(strategy="mean")
text_filled = make_pipeline(
    SimpleImputer(missing_values=None, strategy="constant", fill_value="none"), OneHotEncoder(handle_unknown="ignore")
)
PREPROCESSING = {
    "min max": columns(make_pipeline(MinMaxScaler(clip=True), filled), OneHotEncoder(handle_unknown="ignore")),
    "robust": columns(make_pipeline(filled, RobustScaler()), OneHotEncoder(handle_unknown="ignore", drop="first")),
    "max abs": columns(
        make_pipeline(MaxAbsScaler(), SimpleImputer(strategy="most_frequent", add_indicator=True)), text_filled
    ),
    "standard without mean": columns(
        make_pipeline(StandardScaler(with_mean=False), SimpleImputer(strategy="constant", fill_value=-1)),
        OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=300, sparse_output=False),
    ),
    "ordinal": columns(filled, OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)),
    "refusing encoder": columns(filled, OrdinalEncoder()),
    "numbers as categories": ColumnTransformer(
        [
            ("c", OneHotEncoder(handle_unknown="ignore"), ["seats", "weekend"]),
            (
                "o",
                OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-2, encoded_missing_value=-1),
                ["seats"],
            ),
        ],
        remainder="drop",
    ),
    "by position": ColumnTransformer([("n", filled, [0, 1]), ("t", OneHotEncoder(handle_unknown="ignore"), [5])]),
}


@pytest.mark.parametrize("name", PREPROCESSING)
@pytest.mark.parametrize("estimator", [LinearRegression(), DecisionTreeRegressor(max_depth=5)], ids=["linear", "tree"])
def test_preprocessing_is_equal(name, estimator, example, compiled):
    found = compiled(make_pipeline(PREPROCESSING[name], estimator), example, example.number, "regression")
    verdict = verify_plan(found.plan, found.outputs, example.rows.slice(0, 300))
    assert verdict.equal, (verdict.reason, verdict.worst)


BOOSTED = {
    "classes": (GradientBoostingClassifier(n_estimators=20), "yes"),
    "several classes": (GradientBoostingClassifier(n_estimators=6, learning_rate=0.3), "kind"),
    "exponential loss": (GradientBoostingClassifier(n_estimators=15, loss="exponential"), "yes"),
    "from zero": (GradientBoostingClassifier(n_estimators=10, init="zero", subsample=0.5), "yes"),
    "squared error": (GradientBoostingRegressor(n_estimators=20, max_depth=7), "number"),
    "huber": (GradientBoostingRegressor(n_estimators=20, loss="huber", learning_rate=0.07), "number"),
}


@pytest.mark.parametrize("name", BOOSTED)
def test_gradient_boosting_is_equal_to_the_last_bit(name, example, compiled):
    estimator, target = BOOSTED[name]
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    task = "regression" if target == "number" else "classification"
    pipeline = make_pipeline(columns(filled, encoder), estimator)
    found = compiled(pipeline, example, getattr(example, target), task)
    verdict = verify_plan(found.plan, found.outputs, example.other.slice(0, 300))
    assert verdict.equal, (verdict.reason, verdict.worst)
    assert verdict.bit_equal == 1.0
    assert verdict.tolerance == 0.0


def test_remainder_and_nested_pipelines(example, compiled):
    inner = ColumnTransformer(
        [("code", OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), TEXTS)], remainder="passthrough"
    )
    pipeline = make_pipeline(make_pipeline(inner, StandardScaler()), "passthrough", LGBM_R(**QUIET))
    found = compiled(pipeline, example, example.number, "regression")
    verdict = verify_plan(found.plan, found.outputs, example.other.slice(0, 300))
    assert verdict.equal, (verdict.reason, verdict.worst)


@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
def test_bare_boosters(library, example):
    frame = example.frame[NUMBERS]
    inputs = {name: INPUTS[name] for name in NUMBERS}
    if library == "lightgbm":
        booster = lightgbm.train({"objective": "binary", **ONE}, lightgbm.Dataset(frame, example.yes), 10)
        ask = booster.predict
    else:
        booster = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(frame, example.yes), 10)
        ask = booster.inplace_predict
    plan = compile_plan(booster, inputs, "classification")
    from millpond.training.frame import to_frame

    verdict = verify_plan(plan, lambda rows: ask(to_frame(rows, inputs).to_numpy()), example.other.select(NUMBERS))
    assert verdict.equal, (verdict.reason, verdict.worst)


def test_early_stopping_takes_the_best_iteration(example):
    frame, inputs = example.frame[NUMBERS], {name: INPUTS[name] for name in NUMBERS}
    boosted = xgboost.XGBClassifier(n_jobs=1, n_estimators=200, early_stopping_rounds=3)
    boosted.fit(frame[:700], example.yes[:700], eval_set=[(frame[700:], example.yes[700:])], verbose=False)
    plan = compile_plan(boosted, inputs, "classification")
    assert plan.described.sizes["trees"] == boosted.best_iteration + 1 < len(boosted.get_booster().get_dump())
    from millpond.training.frame import to_frame

    verdict = verify_plan(
        plan, lambda rows: boosted.predict_proba(to_frame(rows, inputs))[:, 1], example.rows.select(NUMBERS)
    )
    assert verdict.equal, (verdict.reason, verdict.worst)


@pytest.mark.parametrize(
    ("pipeline", "target", "words"),
    [
        (
            make_pipeline(columns(make_pipeline(filled, PolynomialFeatures()), OneHotEncoder()), Ridge()),
            "number",
            "PolynomialFeatures",
        ),
        (make_pipeline(columns(filled, "drop"), __import__("sklearn.svm", fromlist=["SVC"]).SVC()), "yes", "SVC"),
    ],
)
def test_what_is_not_known_is_named(pipeline, target, words, example):
    pipeline.fit(example.frame, getattr(example, target))
    with pytest.raises(NotCompilable, match=words):
        compile_plan(pipeline, INPUTS, "regression" if target == "number" else "classification")


def test_text_that_nobody_encodes_is_named(example):
    numbers = DecisionTreeClassifier().fit(example.frame[["wind"]], example.yes)
    with pytest.raises(NotCompilable, match="'carrier' reaches a step that takes numbers"):
        compile_plan(numbers, {"wind": "float64", "carrier": "string"}, "classification")
