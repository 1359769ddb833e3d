"""Searching for parameters with Optuna, judged on the validation part; repeatable for the same data and declaration."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from millpond.core.errors import TrainingError
from millpond.core.names import did_you_mean
from millpond.definitions.gates import METRICS
from millpond.definitions.models import Classification, Model, Tune
from millpond.training.estimators import unknown_param
from millpond.training.metrics import DEFAULT_METRIC, best_threshold, metrics
from millpond.training.recipes import Fitted, Workbench

#: A range is searched on a logarithmic scale from this ratio of its ends on.
LOG_RATIO = 100

#: Told after each trial: trials done, trials asked for, best value so far.
OnTrial = Callable[[int, int, float | None], None]


@dataclass(frozen=True)
class Trial:
    """One parameter set that was tried.

    Attributes:
        number: 0, 1, ...; trial 0 has the parameters that would be used without a search.
        params: What was tried, over the model's own parameters.
        value: The metric on the validation part; None where the estimator could not be fitted.
        seconds: What it took.
        problem: Why it could not be fitted; empty where it could.
    """

    number: int
    params: Mapping[str, Any]
    value: float | None
    seconds: float
    problem: str = ""


@dataclass(frozen=True)
class Tuning:
    """A finished search.

    Attributes:
        metric: What was optimised, on the validation part.
        trials: In the order in which they ran.
        best: Number of the best trial (the first of equally good ones).
        space: Parameter -> how it was searched, in words.
        timed_out: Whether the time limit ended it: then it cannot be repeated exactly.
    """

    metric: str
    trials: tuple[Trial, ...]
    best: int
    space: Mapping[str, str]
    timed_out: bool = False


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included; whole ones where both are."""

    low: float
    high: float

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def logarithmic(self) -> bool:
        return self.low > 0 and self.high / self.low >= LOG_RATIO

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}" + (", logarithmic" if self.logarithmic else "")


@dataclass(frozen=True)
class Choices:
    """One of these."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        return "one of " + ", ".join(str(value) for value in self.values)


Space = Mapping[str, Range | Choices]

_TREES: Space = {
    "max_depth": Choices((None, 6, 10, 16, 24)),
    "min_samples_leaf": Range(1, 100),
    "max_features": Range(0.2, 1.0),
}
_BOOSTED: Space = {
    "learning_rate": Range(0.02, 0.3),
    "max_leaf_nodes": Range(7, 127),
    "min_samples_leaf": Range(5, 200),
    "l2_regularization": Range(1e-3, 10.0),
}
_LIGHTGBM: Space = {
    "learning_rate": Range(0.03, 0.3),
    "num_leaves": Range(7, 127),
    "min_child_samples": Range(5, 500),
    "colsample_bytree": Range(0.4, 1.0),
    "reg_lambda": Range(1e-3, 30.0),
}

#: Default spaces by the class of the estimator, without "Classifier" and "Regressor".
SPACES: Mapping[str, Space] = {
    "LGBM": _LIGHTGBM,
    "LogisticRegression": {"C": Range(1e-3, 100.0)},
    "Ridge": {"alpha": Range(1e-3, 1000.0)},
    "Lasso": {"alpha": Range(1e-4, 100.0)},
    "ElasticNet": {"alpha": Range(1e-4, 100.0), "l1_ratio": Range(0.0, 1.0)},
    "RandomForest": _TREES,
    "ExtraTrees": _TREES,
    "DecisionTree": _TREES,
    "HistGradientBoosting": _BOOSTED,
    "GradientBoosting": {
        "learning_rate": Range(0.02, 0.3),
        "max_depth": Range(2, 6),
        "min_samples_leaf": Range(1, 200),
        "subsample": Range(0.5, 1.0),
    },
    "XGB": {
        "learning_rate": Range(0.02, 0.3),
        "max_depth": Range(3, 9),
        "min_child_weight": Range(1.0, 100.0),
        "colsample_bytree": Range(0.4, 1.0),
        "reg_lambda": Range(1e-3, 30.0),
    },
    "KNeighbors": {"n_neighbors": Range(3, 101), "weights": Choices(("uniform", "distance"))},
    "MLP": {"alpha": Range(1e-6, 1.0), "learning_rate_init": Range(1e-4, 0.1)},
}


def tuning_metric(model: Model, tune: Tune) -> str:
    """What a search optimises.

    Raises:
        TrainingError: The named metric is none of the task's.
    """
    metric = tune.metric or DEFAULT_METRIC[model.task.kind]
    if metric not in METRICS[model.task.kind]:
        raise TrainingError(
            f"tuning asks for {metric!r}, which is no metric of a {model.task.kind}",
            where=f"{model.subject}, tune",
            hint=did_you_mean(metric, METRICS[model.task.kind], noun="metrics"),
        )
    return metric


def search_space(model: Model, tune: Tune, estimator: Any) -> Space:
    """The declared space, or the estimator's default one without the parameters that the model fixes.

    A pair of numbers in a tuple is a range, anything else a list of choices.

    Raises:
        TrainingError: A parameter is unknown, a range is empty, or there is no default space for the estimator.
    """
    where = f"{model.subject}, tune"
    if tune.space is not None:
        known = list(estimator.get_params(deep=True))
        space: dict[str, Range | Choices] = {}
        for name, values in tune.space.items():
            if name not in known:
                raise unknown_param(estimator, name, known, model.subject)
            space[name] = _declared(name, values, where)
        if not space:
            raise TrainingError("the search space is empty", where=where, hint="name at least one parameter")
        return space
    prefix, last = _last_step(estimator)
    family = type(last).__name__.removesuffix("Classifier").removesuffix("Regressor")
    found = {prefix + name: each for name, each in SPACES.get(family, {}).items()}
    found = {name: each for name, each in found.items() if name not in model.params}
    if not found:
        raise TrainingError(
            f"there is no default search space for {type(last).__name__}",
            where=where,
            hint='give one: mp.Tune(space={"alpha": (0.001, 10.0), "kind": ["a", "b"]})',
        )
    return found


def search(model: Model, tune: Tune, bench: Workbench, on_trial: OnTrial | None = None) -> tuple[Tuning, Fitted]:
    """Try parameter sets one after the other (Optuna's TPE sampler, seeded, in memory).

    Returns:
        The search, and what was fitted in its best trial.

    Raises:
        TrainingError: The space or metric is wrong, or no trial could be fitted.
    """
    import optuna

    metric = tuning_metric(model, tune)
    space = search_space(model, tune, bench.estimator)
    higher = METRICS[model.task.kind][metric]
    done: list[Trial] = []
    best: list[tuple[int, float, Fitted]] = []

    def objective(trial: optuna.Trial) -> float:
        started = time.perf_counter()
        params = {} if trial.number == 0 else {name: _suggest(trial, name, each) for name, each in space.items()}
        value, problem = None, ""
        try:
            fitted = bench.fit(params)
            value = _value(model, metric, bench, fitted)
        except TrainingError as error:
            problem = error.what
        done.append(Trial(trial.number, params, value, time.perf_counter() - started, problem))
        if value is not None and (not best or (value > best[0][1] if higher else value < best[0][1])):
            best[:] = [(trial.number, value, fitted)]
        if on_trial is not None:
            on_trial(len(done), tune.trials, best[0][1] if best else None)
        if value is None:
            raise optuna.TrialPruned(problem)
        return value

    with _quiet_optuna():
        study = optuna.create_study(
            direction="maximize" if higher else "minimize", sampler=optuna.samplers.TPESampler(seed=model.seed)
        )
        study.optimize(objective, n_trials=tune.trials, timeout=tune.timeout)
    if not best:
        raise TrainingError(
            f"none of the {len(done)} trials could be fitted; the first said: {done[0].problem}",
            where=f"{model.subject}, tune",
            hint="look at the search space, and at the model's params",
        )
    words = {name: str(each) for name, each in space.items()}
    return Tuning(metric, tuple(done), best[0][0], words, len(done) < tune.trials), best[0][2]


def _value(model: Model, metric: str, bench: Workbench, fitted: Fitted) -> float:
    labels, outputs = bench.validation.labels, fitted.outputs(bench.validation.frame)
    threshold = None
    if isinstance(model.task, Classification):
        threshold = best_threshold(labels, outputs) if model.task.threshold is None else model.task.threshold
    values = metrics(model.task.kind, labels, outputs, threshold)
    if metric not in values or not math.isfinite(values[metric]):
        raise TrainingError(f"{metric} is not defined on the validation part", where=f"{model.subject}, tune")
    return values[metric]


def _suggest(trial: Any, name: str, each: Range | Choices) -> Any:
    if isinstance(each, Choices):
        return each.values[trial.suggest_categorical(name, list(range(len(each.values))))]
    if each.whole:
        return trial.suggest_int(name, int(each.low), int(each.high), log=each.logarithmic)
    return trial.suggest_float(name, each.low, each.high, log=each.logarithmic)


def _declared(name: str, values: Any, where: str) -> Range | Choices:
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise TrainingError(
            f"the search space of {name!r} is {values!r}",
            where=where,
            hint="a range is a tuple (low, high), choices are a list",
        )
    found = tuple(values)
    if isinstance(values, tuple) and len(found) == 2 and all(_is_number(value) for value in found):
        if not (math.isfinite(found[0]) and math.isfinite(found[1]) and found[0] < found[1]):
            raise TrainingError(
                f"the range of {name!r} goes from {found[0]} to {found[1]}", where=where, hint="low, then high"
            )
        return Range(*found)
    if not found:
        raise TrainingError(f"{name!r} has no choices", where=where, hint="name at least one")
    return Choices(found)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _last_step(estimator: Any) -> tuple[str, Any]:
    prefix = ""
    while hasattr(estimator, "steps"):
        name, estimator = estimator.steps[-1]
        prefix += f"{name}__"
    return prefix, estimator


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
