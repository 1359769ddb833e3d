"""Training a model: order, split, tune, fit, evaluate, judge."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from millpond.definitions.gates import LiveGate
from millpond.definitions.models import Classification, Model
from millpond.training.data import Floats, Rows, TrainingData, labels, ordered, require_usable
from millpond.training.evaluation import (
    ClassificationDetails,
    Evaluation,
    calibration,
    classification_details,
    regression_details,
)
from millpond.training.frame import to_frame
from millpond.training.gates import Champion, ChampionScores, GateResult, judge, score_champion
from millpond.training.importance import permutation_importance
from millpond.training.metrics import Baseline, baseline, best_threshold, metrics
from millpond.training.recipes import Fitted, Part, Recipe, Workbench, recipe
from millpond.training.slices import evaluate_slices
from millpond.training.split import split_examples
from millpond.training.split_summary import SplitSummary
from millpond.training.summary import InputSummary, summarise_inputs
from millpond.training.tuning import Tuning, search, search_space, tuning_metric

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

#: Rows of the input example.
EXAMPLE_ROWS = 20

#: Told where training is: the stage in words, steps of it done, and steps in all (0 and 1 where it has but one).
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Trained:
    """A trained, evaluated and judged model.

    Attributes:
        model: The model's name.
        task: "classification" or "regression".
        estimator: The fitted `sklearn.pipeline.Pipeline`: the frame of `to_frame` in, `predict_proba` (column 1 is
            yes) or `predict` out. Made of scikit-learn's, LightGBM's or the user's classes alone.
        inputs: Raw model inputs in order: name -> type.
        classes: Names of the negative and positive class; empty for regression.
        threshold: Probability from which the answer is yes; None for regression.
        metrics: Flat, "<part>.<metric>" for train, validation and test; "baseline.test.<metric>"; with a champion
            that could predict the test rows "champion.test.<metric>". Metrics that are not defined are absent.
        params: Parameters of the fitted estimator and of the walk; plain values.
        split: How the examples were split.
        evaluation: Everything found on the test part.
        baseline: The trivial predictor.
        gates: The verdicts, in the order of their declaration.
        champion: The champion on the same test rows; None where no version serves.
        tuning: The search; None where none was asked for.
        summary: The training part, an input at a time.
        input_example: Up to 20 rows of raw inputs, spread over the test part.
        expected: The outputs for `input_example`.
        seconds: Stage -> seconds it took.
        warnings: What a person should know of the fit.
    """

    model: str
    task: str
    estimator: Any
    inputs: Mapping[str, str]
    classes: tuple[str, ...]
    threshold: float | None
    metrics: Mapping[str, float]
    params: Mapping[str, Any]
    split: SplitSummary
    evaluation: Evaluation
    baseline: Baseline
    gates: tuple[GateResult, ...]
    champion: ChampionScores | None
    tuning: Tuning | None
    summary: tuple[InputSummary, ...]
    input_example: pd.DataFrame
    expected: tuple[float, ...]
    seconds: Mapping[str, float]
    warnings: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every gate passed."""
        return all(gate.passed for gate in self.gates)


@dataclass(frozen=True)
class _Parts:
    """The three parts, and the test rows with all their columns."""

    train: Part
    validation: Part
    test: Part
    test_rows: pa.Table

    def items(self) -> tuple[tuple[str, Part], ...]:
        return ("train", self.train), ("validation", self.validation), ("test", self.test)


class _Clock:
    """Times the stages and tells the progress of them."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._stage = ""
        self._started = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def start(self, stage: str) -> None:
        now = time.perf_counter()
        if self._stage:
            self.seconds[self._stage] = now - self._started
        self._stage, self._started = stage, now
        if stage:
            self.step(0, 1)

    def step(self, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(self._stage, done, total)


def train(
    model: Model,
    data: TrainingData,
    *,
    champion: Champion | None = None,
    live: Mapping[LiveGate, GateResult] = MappingProxyType({}),
    progress: Progress | None = None,
) -> Trained:
    """Train a model on a training set, and judge it.

    The same declaration and data, in any order of the rows, give the same parameters and predictions (on one kind of
    machine with the same packages; unless the search for parameters ran out of time). Writes nothing.

    Args:
        model: The declaration.
        data: The training set.
        champion: The version that serves now; None where there is none.
        live: Results of the gates that are judged on live traffic; one that is not there fails.
        progress: Told of each stage and of each trial.

    Raises:
        TrainingError: The data cannot be split, fitted or evaluated as declared; or the estimator, a parameter or the
            search space is wrong.
        MissingExtra: The estimator's package is an optional part that is not installed.
        DataError: A column is not of the type that the inputs declare.
    """
    clock = _Clock(progress)
    clock.start("split")
    require_usable(data, model.subject)
    chosen = recipe(model, data.rows.num_rows)
    if model.tune is not None:  # a wrong search space is told before anything is fitted
        tuning_metric(model, model.tune)
        search_space(model, model.tune, chosen.estimator)
    rows = ordered(data)
    target = labels(rows, data.label, model.task.kind, model.subject)
    assignment, split = split_examples(model.split, data, rows, target, model.subject)
    parts = _Parts(
        _part(rows, data, target.values, assignment.train),
        _part(rows, data, target.values, assignment.validation),
        _part(rows, data, target.values, assignment.test),
        rows.take(assignment.test),
    )
    tuning, fitted = _fit(model, data, chosen, parts, clock)

    clock.start("evaluate")
    threshold = _threshold(model, fitted, parts.validation)
    trivial = baseline(model.task.kind, parts.train.labels)
    outputs = {name: fitted.outputs(part.frame) for name, part in parts.items()}
    flat = _metrics(model.task.kind, parts, outputs, threshold, trivial)
    scores = None
    if champion is not None:
        scores = score_champion(champion, model.task.kind, parts.test_rows, parts.test.labels, threshold)
        flat |= {f"champion.test.{name}": value for name, value in scores.metrics.items()}
    evaluation = _evaluate(model, data, fitted, parts, outputs=outputs["test"], threshold=threshold)
    summary = summarise_inputs(rows.take(assignment.train), data.inputs)
    spread = np.unique(np.linspace(0, len(parts.test.labels) - 1, EXAMPLE_ROWS).round().astype(np.intp))
    example = parts.test.frame.take(spread).reset_index(drop=True)
    clock.start("")
    return Trained(
        model=model.name,
        task=model.task.kind,
        estimator=fitted.pipeline,
        inputs=dict(data.inputs),
        classes=target.names,
        threshold=threshold,
        metrics=flat,
        params={"estimator": chosen.path, "seed": model.seed, "threads": chosen.threads, **fitted.params},
        split=split,
        evaluation=evaluation,
        baseline=trivial,
        gates=judge(model.gates, model.task.kind, flat, scores, live),
        champion=scores,
        tuning=tuning,
        summary=summary,
        input_example=example,
        expected=tuple(fitted.outputs(example).tolist()),
        seconds=clock.seconds,
        warnings=fitted.warnings,
    )


def _part(rows: pa.Table, data: TrainingData, target: Floats, numbers: Rows) -> Part:
    return Part(to_frame(rows.select(list(data.inputs)).take(numbers), data.inputs), target[numbers])


def _fit(
    model: Model, data: TrainingData, chosen: Recipe, parts: _Parts, clock: _Clock
) -> tuple[Tuning | None, Fitted]:
    bench = Workbench(chosen, model, data.inputs, parts.train, parts.validation)
    if model.tune is None:
        clock.start("fit")
        return None, bench.fit()
    clock.start("tune")
    return search(model, model.tune, bench, lambda done, total, _: clock.step(done, total))


def _threshold(model: Model, fitted: Fitted, validation: Part) -> float | None:
    if not isinstance(model.task, Classification):
        return None
    if model.task.threshold is not None:
        return model.task.threshold
    return best_threshold(validation.labels, fitted.outputs(validation.frame))


def _metrics(
    task: str, parts: _Parts, outputs: Mapping[str, Floats], threshold: float | None, trivial: Baseline
) -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, part in parts.items():
        flat |= {f"{name}.{key}": value for key, value in metrics(task, part.labels, outputs[name], threshold).items()}
    constant = np.full(len(parts.test.labels), trivial.output)
    found = metrics(task, parts.test.labels, constant, 0.5)
    return flat | {f"baseline.test.{key}": value for key, value in found.items()}


def _evaluate(
    model: Model, data: TrainingData, fitted: Fitted, parts: _Parts, *, outputs: Floats, threshold: float | None
) -> Evaluation:
    task, test = model.task, parts.test
    details: ClassificationDetails | None = None
    if isinstance(task, Classification) and threshold is not None:
        source = "best F1 on validation" if task.threshold is None else "declared"
        details = classification_details(test.labels, outputs, threshold, source)
    return Evaluation(
        calibration=calibration(test.labels, outputs),
        slices=evaluate_slices(task.kind, parts.test_rows, data.slices, test.labels, outputs, threshold=threshold),
        importance=permutation_importance(task.kind, fitted.outputs, test.frame, test.labels, model.seed),
        classification=details,
        regression=None if details else regression_details(test.labels, outputs),
    )
