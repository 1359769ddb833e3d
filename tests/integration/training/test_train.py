from __future__ import annotations

import math
import pickle
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from skrub import TableVectorizer

import millpond as mp
from millpond.core.errors import TrainingError
from millpond.training.frame import to_frame
from millpond.training.gates import Champion
from millpond.training.train import train


def test_lightgbm_learns_what_is_there(classifier):
    metrics = classifier.metrics
    assert metrics["test.roc_auc"] > 0.85
    assert metrics["baseline.test.roc_auc"] == 0.5
    assert metrics["baseline.test.log_loss"] > metrics["test.log_loss"] + 0.2
    assert {name.split(".")[0] for name in metrics} == {"train", "validation", "test", "baseline"}
    assert all(math.isfinite(value) for value in metrics.values())
    importance = classifier.evaluation.importance
    assert [each.name for each in importance.by_input[:3]] == ["sky__signal", "carrier", "rain"]
    assert importance.by_group[0].name == "sky"
    assert importance.by_group[0].inputs == 2
    assert classifier.params["n_estimators"] < 300, "the number of trees is chosen on validation"
    assert classifier.passed


def test_the_summary_tells_of_everything(classifier):
    split = classifier.split
    assert split.train.last < split.validation_from <= split.validation.first
    assert split.validation.last < split.test_from == split.test.first
    assert split.null_labels == 12
    total = split.train.rows + split.validation.rows + split.test.rows
    assert total + split.purged_train + split.purged_validation == 3000
    assert split.purged_train > 0
    assert [each.name for each in classifier.summary] == list(classifier.inputs)
    by_name = {each.name: each for each in classifier.summary}
    assert 0.02 < by_name["sky__signal"].nulls < 0.08
    assert by_name["dest"].distinct == 40
    assert by_name["rain"].top[0][0] == "false"
    slices = {(each.column, each.value): each for each in classifier.evaluation.slices}
    assert slices["carrier", "AA"].label > slices["carrier", "BB"].label + 0.15
    assert len([1 for column, _ in slices if column == "seats"]) == 5, "numbers are cut into bands"
    details = classifier.evaluation.classification
    confusion = details.confusion
    answered = confusion.true_yes + confusion.false_yes + confusion.true_no + confusion.false_no
    assert answered == split.test.rows
    assert details.threshold == classifier.threshold


@pytest.mark.slow
def test_the_example_is_raw_inputs_and_predicts_as_expected_where_millpond_is_not(classifier, tmp_path):
    assert classifier.input_example.shape == (20, 6)
    found = classifier.estimator.predict_proba(classifier.input_example)[:, 1]
    np.testing.assert_array_equal(found, classifier.expected)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps((classifier.estimator, classifier.input_example)))
    code = (
        "import pickle, sys; estimator, frame = pickle.load(open(sys.argv[1], 'rb'));"
        "values = estimator.predict_proba(frame)[:, 1].tolist();"
        "assert not [name for name in sys.modules if name.startswith('millpond')]; print(values)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "model.pkl"], capture_output=True, text=True, timeout=120, check=True
    )
    assert ran.stdout.strip() == str(list(classifier.expected))
    assert ran.stderr == ""


def test_unseen_and_missing_values_are_predicted(classifier):
    strange = pa.table(
        {
            "sky__signal": pa.array([None, 1.0], pa.float64()),
            "sky__noise": pa.nulls(2, pa.float64()),
            "carrier": ["ZZ", None],
            "dest": pa.nulls(2, pa.string()),
            "rain": pa.nulls(2, pa.bool_()),
            "seats": pa.nulls(2, pa.int64()),
        }
    )
    outputs = classifier.estimator.predict_proba(to_frame(strange, classifier.inputs))[:, 1]
    assert ((outputs > 0) & (outputs < 1)).all()
    assert outputs[1] > outputs[0]


@pytest.mark.parametrize("estimator", ["lightgbm", "linear"])
def test_the_same_data_in_any_order_gives_the_same_model(declare, examples, estimator):
    model = declare(estimator=estimator, tune=mp.Tune(trials=3), seed=5)
    data = examples()
    order = np.random.default_rng(1).permutation(data.rows.num_rows)
    one, other = train(model, data), train(model, examples(rows=data.rows.take(order)))
    assert one.params == other.params
    assert one.metrics == other.metrics
    assert one.expected == other.expected
    assert one.input_example.equals(other.input_example)
    assert one.threshold == other.threshold
    assert one.evaluation == other.evaluation
    assert [(trial.params, trial.value) for trial in one.tuning.trials] == [
        (trial.params, trial.value) for trial in other.tuning.trials
    ]


@pytest.mark.slow
def test_the_number_of_threads_changes_nothing(declare, examples):
    one, two = (train(declare(params={"n_jobs": jobs, "n_estimators": 15}), examples()) for jobs in (1, 2))
    assert one.expected == two.expected
    assert one.metrics == two.metrics


@pytest.mark.parametrize(
    "estimator",
    [
        "linear",
        "sklearn.ensemble.RandomForestClassifier",
        "sklearn.naive_bayes:GaussianNB",
        pytest.param("skrub.tabular_pipeline", marks=pytest.mark.slow),
        make_pipeline(TableVectorizer(), SimpleImputer(), LogisticRegression()),
        RandomForestClassifier(20, min_samples_leaf=5),
    ],
    ids=str,
)
def test_any_estimator_gets_what_it_takes_and_says_nothing(declare, examples, estimator, capfd):
    found = train(declare(estimator=estimator), examples())
    assert found.metrics["test.roc_auc"] > 0.6
    assert found.metrics["test.roc_auc"] > found.metrics["baseline.test.roc_auc"]
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


@pytest.mark.parametrize("estimator", ["linear", pytest.param("skrub.tabular_pipeline", marks=pytest.mark.slow)])
def test_regression(declare, examples, estimator, regressor):
    for found in (regressor, train(declare("regression", estimator=estimator), examples("regression"))):
        assert found.metrics["test.rmse"] < 0.8 * found.metrics["baseline.test.rmse"]
        assert found.threshold is None
        assert found.classes == ()
        assert found.evaluation.classification is None
        assert sum(found.evaluation.regression.histogram_counts) == found.split.test.rows
        np.testing.assert_array_equal(found.estimator.predict(found.input_example), found.expected)
    assert not regressor.passed


def test_tuning_keeps_the_best_and_tells_of_each_trial(declare, examples, capfd):
    told = []
    space = {"num_leaves": (4, 40), "learning_rate": (0.01, 1.0), "boosting_type": ["gbdt"]}
    model = declare(tune=mp.Tune(trials=4, space=space, metric="log_loss"), params={"n_estimators": 30})
    found = train(model, examples(), progress=lambda *step: told.append(step))
    search = found.tuning
    assert [trial.number for trial in search.trials] == [0, 1, 2, 3]
    assert search.trials[0].params == {}
    best = min(search.trials, key=lambda trial: trial.value)
    assert search.best == best.number
    assert found.metrics["validation.log_loss"] == best.value
    assert {name: found.params[name] for name in best.params} == best.params
    assert all(4 <= trial.params["num_leaves"] <= 40 for trial in search.trials[1:])
    assert found.params["n_estimators"] == 30
    assert [step for step in told if step[0] == "tune"] == [("tune", done, 1 if done == 0 else 4) for done in range(5)]
    assert capfd.readouterr() == ("", "")


def test_trials_that_fail_are_told_and_passed_over(declare, examples):
    space = {"solver": ["lbfgs", "no such solver"]}
    found = train(declare(estimator="linear", tune=mp.Tune(trials=6, space=space)), examples())
    failed = [trial for trial in found.tuning.trials if trial.value is None]
    assert failed
    assert all("solver" in trial.problem for trial in failed)
    model = declare(estimator="linear", params={"C": -1.0}, tune=mp.Tune(trials=2, space={"max_iter": [10, 20]}))
    with pytest.raises(TrainingError, match="none of the 2 trials could be fitted; the first said: LogisticRegression"):
        train(model, examples())


def test_examples_without_time_are_split_by_key(declare, examples):
    found = train(declare(), examples(at=None, label_known=None))
    assert found.split.by == "key"
    assert found.split.train.first is None
    assert found.metrics["test.roc_auc"] > 0.85


def test_a_declared_threshold_is_kept(declare, examples):
    found = train(declare(task=mp.Classification(label="y", threshold=0.9)), examples())
    assert found.threshold == 0.9
    assert found.evaluation.classification.threshold_source == "declared"


def test_the_champion_is_judged_on_the_same_rows(declare, examples, classifier):
    rows_seen = []

    def predict(rows):
        rows_seen.append(rows.num_rows)
        return classifier.estimator.predict_proba(to_frame(rows, classifier.inputs))[:, 1]

    model = declare(gates=[mp.beats_champion("roc_auc"), mp.beats_champion("log_loss", by=-0.01)])
    found = train(model, examples(), champion=Champion(4, predict, threshold=classifier.threshold))
    assert rows_seen == [found.split.test.rows]
    assert found.metrics["champion.test.roc_auc"] == found.metrics["test.roc_auc"]
    assert [gate.passed for gate in found.gates] == [False, True], "an equal one does not beat the champion"
    assert found.champion.number == 4


def with_infinity(data):
    column = data.rows["sky__noise"].to_numpy().copy()
    column[5] = np.inf
    index = data.rows.schema.get_field_index("sky__noise")
    return data.rows.set_column(index, "sky__noise", pa.array(column))


def test_what_cannot_be_fitted_says_why(declare, examples):
    with pytest.raises(TrainingError, match=r"LogisticRegression could not be fitted: .*infinity") as caught:
        train(declare(estimator="linear"), examples(rows=with_infinity(examples())))
    assert caught.value.hint == "these inputs have infinite values: sky__noise"
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(TrainingError, match=r"Pipeline could not be fitted: Input X contains NaN") as caught:
        train(declare(estimator=make_pipeline(TableVectorizer(), LogisticRegression())), examples())
    assert "nulls" in caught.value.hint
    with pytest.raises(TrainingError, match="LGBMClassifier could not be fitted") as caught:
        train(declare(params={"num_leaves": 1}), examples())
    assert "parameters" in caught.value.hint


def test_one_class_and_wrong_dates_are_told_before_anything_is_fitted(declare, examples):
    rows = examples().rows
    always = rows.set_column(rows.schema.get_field_index("__label"), "__label", pa.array([True] * rows.num_rows))
    with pytest.raises(TrainingError, match="examples of the train part have the label 'yes'"):
        train(declare(), examples(rows=always))
    with pytest.raises(TrainingError, match=r"the test part is empty .train \d+, validation \d+, test 0"):
        train(declare(split=mp.Split(validation="2024-06-01", test="2026-01-01")), examples())
