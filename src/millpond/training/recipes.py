"""From a model's declaration to something that can be fitted, again and again with other parameters."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from millpond.core.errors import MillpondError, TrainingError
from millpond.definitions.models import Model
from millpond.training.data import Floats
from millpond.training.estimators import (
    apply_params,
    first_line,
    handles_frames,
    is_lightgbm,
    path_of,
    resolve,
    set_seeds,
)
from millpond.training.preprocessing import columns_of, for_linear, for_trees

if TYPE_CHECKING:
    import pandas as pd

Preprocessing = Literal["trees", "linear", "dense", "own"]

#: The most trees LightGBM grows, and how many it grows past the best one before it stops.
MAX_TREES = 1000
PATIENCE = 30

#: The most threads for fitting; and rows below which one is fastest. Threads wait for each other at every split of a
#: tree, so one core that is busy elsewhere stalls them all (two threads on two busy cores took seven times as long as
#: one): half of the cores are left to others. The result is the same for every number.
MAX_THREADS = 4
ONE_THREAD_ROWS = 20_000


@dataclass(frozen=True)
class Recipe:
    """How a model is fitted.

    Attributes:
        estimator: The unfitted estimator, with the user's parameters and all seeds set; never fitted itself.
        preprocessing: What stands in front of it: "trees", "linear" (sparse), "dense", or "own" where it takes the
            raw frame.
        early_stopping: Whether the number of trees is chosen on validation.
        threads: Threads for fitting.
    """

    estimator: Any
    preprocessing: Preprocessing
    early_stopping: bool = False
    threads: int = 1

    @property
    def path(self) -> str:
        return path_of(self.estimator)


@dataclass(frozen=True)
class Part:
    """One part of the examples as estimators take it: raw inputs, and labels as numbers."""

    frame: pd.DataFrame
    labels: Floats


@dataclass(frozen=True)
class Fitted:
    """A fitted pipeline, and how it came about.

    Attributes:
        pipeline: Raw input frame -> `predict_proba` or `predict`.
        task: "classification" or "regression".
        params: Parameters of its last step, where they are plain values.
        warnings: What the libraries said that a person may want to know, without repetitions.
    """

    pipeline: Any
    task: str
    params: Mapping[str, Any]
    warnings: tuple[str, ...] = field(default=())

    def outputs(self, frame: pd.DataFrame) -> Floats:
        return outputs_of(self.pipeline, self.task, frame)


def threads(rows: int) -> int:
    """Threads for fitting this many examples on this machine; recorded with the parameters."""
    if rows < ONE_THREAD_ROWS:
        return 1
    try:
        available = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        available = os.cpu_count() or 1
    return max(1, min(MAX_THREADS, available // 2))


def recipe(model: Model, rows: int) -> Recipe:
    """The recipe of a model, to be fitted on a training set of so many rows.

    Raises:
        TrainingError: The estimator or one of its parameters is not known or not allowed.
    """
    task = model.task.kind
    if model.estimator == "lightgbm":
        made = Recipe(_lightgbm(task), "trees", early_stopping="n_estimators" not in model.params)
        apply_params(made.estimator, model.params, model.subject)
    elif model.estimator == "linear":
        made = Recipe(_linear(task), "linear")
        apply_params(made.estimator, model.params, model.subject)
    else:
        estimator = resolve(model.estimator, task, model.params, model.subject)
        made = Recipe(estimator, _preprocessing_for(estimator))
    if is_lightgbm(made.estimator):
        made.estimator.set_params(**_unset_lightgbm(made.estimator, threads(rows)))
    set_seeds(made.estimator, model.seed)
    return replace(made, threads=threads(rows))


def outputs_of(pipeline: Any, task: str, frame: pd.DataFrame) -> Floats:
    """Probability of yes, or the number, a row; float64."""
    if task == "classification":
        return np.asarray(pipeline.predict_proba(frame)[:, 1], dtype=np.float64)
    return np.asarray(pipeline.predict(frame), dtype=np.float64).reshape(-1)


class Workbench:
    """Fits one recipe with different parameters; what does not depend on these is done once. Not thread-safe."""

    def __init__(self, recipe: Recipe, model: Model, inputs: Mapping[str, str], train: Part, validation: Part) -> None:
        self._recipe = recipe
        self._task = model.task.kind
        self._subject = model.subject
        self._inputs = inputs
        self._threads = recipe.threads
        self._train = train
        self._validation = validation
        self._transformer: Any = None
        self._matrices: tuple[Any, Any] = (None, None)

    @property
    def estimator(self) -> Any:
        """The unfitted estimator, whose parameters may be tried."""
        return self._recipe.estimator

    @property
    def validation(self) -> Part:
        return self._validation

    def fit(self, params: Mapping[str, Any] | None = None) -> Fitted:
        """Fit on the training part, with `params` over the recipe's own.

        The same recipe, data and parameters give the same predictions.

        Raises:
            TrainingError: The estimator cannot be fitted on this data, or refuses a parameter.
        """
        from sklearn.base import clone
        from sklearn.pipeline import Pipeline

        estimator = clone(self._recipe.estimator)
        apply_params(estimator, params or {}, self._subject)
        with _quiet() as heard, _thread_limit(self._threads), self._explained(estimator):
            if self._recipe.preprocessing == "own":
                estimator.fit(self._train.frame, self._target(self._train))
                pipeline = estimator if isinstance(estimator, Pipeline) else Pipeline([("model", estimator)])
            else:
                self._prepare()
                estimator.fit(self._matrices[0], self._target(self._train), **self._fit_arguments(params or {}))
                if self._stops_early(params or {}):
                    estimator.set_params(n_estimators=estimator.best_iteration_)
                pipeline = Pipeline([("preprocess", self._transformer), ("model", estimator)])
            self._require_outputs(pipeline)
        return Fitted(pipeline, self._task, _plain(pipeline.steps[-1][1]), tuple(dict.fromkeys(heard)))

    def _prepare(self) -> None:
        if self._transformer is not None:
            return
        frame = self._train.frame
        if self._recipe.preprocessing == "trees":
            transformer = for_trees(frame, self._inputs)
        else:
            transformer = for_linear(frame, self._inputs, sparse=self._recipe.preprocessing == "linear")
        train = transformer.fit_transform(frame)
        validation = transformer.transform(self._validation.frame) if self._recipe.early_stopping else None
        self._transformer, self._matrices = transformer, (train, validation)

    def _fit_arguments(self, params: Mapping[str, Any]) -> dict[str, Any]:
        if not is_lightgbm(self._recipe.estimator):
            return {}
        import lightgbm

        strings, _ = columns_of(self._inputs)
        arguments: dict[str, Any] = {"categorical_feature": list(range(len(strings)))} if strings else {}
        if self._stops_early(params):
            arguments["eval_X"] = self._matrices[1]
            arguments["eval_y"] = self._target(self._validation)
            arguments["eval_metric"] = "binary_logloss" if self._task == "classification" else "l2"
            arguments["callbacks"] = [lightgbm.early_stopping(PATIENCE, first_metric_only=True, verbose=False)]
        return arguments

    def _stops_early(self, params: Mapping[str, Any]) -> bool:
        return self._recipe.early_stopping and "n_estimators" not in params

    def _target(self, part: Part) -> Any:
        return part.labels.astype(np.int64) if self._task == "classification" else part.labels

    def _require_outputs(self, pipeline: Any) -> None:
        outputs = outputs_of(pipeline, self._task, self._validation.frame)
        if not np.isfinite(outputs).all():
            raise TrainingError(
                f"{type(pipeline.steps[-1][1]).__name__} predicts {int((~np.isfinite(outputs)).sum())} values that are "
                f"not finite, of {len(outputs)} on the validation part",
                where=self._subject,
                hint="look at its parameters, and for inputs with very large values",
            )

    @contextmanager
    def _explained(self, estimator: Any) -> Iterator[None]:
        try:
            yield
        except MillpondError:
            raise
        except Exception as error:
            infinite = [name for name in self._inputs if _has_infinity(self._train.frame, self._inputs, name)]
            hint = (
                f"these inputs have infinite values: {', '.join(infinite)}"
                if infinite
                else "look at its parameters, and whether it takes strings and nulls as they are"
            )
            raise TrainingError(
                f"{type(estimator).__name__} could not be fitted: {first_line(error)}", where=self._subject, hint=hint
            ) from error


def _lightgbm(task: str) -> Any:
    import lightgbm

    kind = lightgbm.LGBMClassifier if task == "classification" else lightgbm.LGBMRegressor
    return kind(n_estimators=MAX_TREES, learning_rate=0.1)


def _unset_lightgbm(estimator: Any, jobs: int) -> dict[str, Any]:
    """What makes LightGBM quiet and its result the same for every number of threads, where the user has not chosen."""
    chosen = {name for name, value in estimator.get_params().items() if value is not None}
    wanted = {"n_jobs": jobs, "verbosity": -1, "deterministic": True}
    if not chosen & {"force_row_wise", "force_col_wise"}:
        wanted["force_col_wise"] = True  # the row-wise way sums in an order that depends on the number of threads
    return {name: value for name, value in wanted.items() if name not in chosen}


def _linear(task: str) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge

    return LogisticRegression(max_iter=1000) if task == "classification" else Ridge()


def _preprocessing_for(estimator: Any) -> Preprocessing:
    from sklearn.utils import get_tags

    if handles_frames(estimator):
        return "own"
    return "trees" if get_tags(estimator).input_tags.allow_nan else "dense"


@contextmanager
def _thread_limit(limit: int) -> Iterator[None]:
    """Hold the numeric libraries to our number of threads too: their sums may depend on it."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(limits=limit):
        yield


@contextmanager
def _quiet() -> Iterator[list[str]]:
    """Keep the libraries' warnings from the terminal; those about the fit itself are collected."""
    heard: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield heard
    told = ("ConvergenceWarning", "UndefinedMetricWarning")
    heard += [str(each.message).splitlines()[0] for each in caught if each.category.__name__ in told]


def _plain(estimator: Any) -> dict[str, Any]:
    values = estimator.get_params(deep=True)
    return {name: value for name, value in values.items() if isinstance(value, (bool, int, float, str, type(None)))}


def _has_infinity(frame: pd.DataFrame, inputs: Mapping[str, str], name: str) -> bool:
    return inputs[name] != "string" and bool(np.isinf(frame[name].to_numpy()).any())
