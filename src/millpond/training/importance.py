"""Permutation importance: how much worse the model gets when an input's values are shuffled among the test rows.

Breiman, Random Forests (2001), section 10; here model-agnostic as in Fisher, Rudin and Dominici (2019), on raw inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from millpond.definitions.gates import METRICS
from millpond.training.data import Floats
from millpond.training.metrics import DEFAULT_METRIC, metrics

if TYPE_CHECKING:
    import pandas as pd

#: Test rows that are sampled, and how often each input is shuffled.
SAMPLE_ROWS = 4000
REPEATS = 3


@dataclass(frozen=True)
class Importance:
    """What the model loses when inputs are shuffled.

    Attributes:
        name: An input; or a feature view, all of whose features are shuffled together.
        inputs: How many inputs that is.
        loss: Mean loss over the repeats, in the metric's unit; about 0 or below for what the model does not need.
        spread: Standard deviation over the repeats.
    """

    name: str
    inputs: int
    loss: float
    spread: float


@dataclass(frozen=True)
class Importances:
    """Permutation importance of a model on the test part.

    Attributes:
        metric: What the loss is measured in.
        rows: Test rows in the sample.
        by_input: The most important first.
        by_group: The same for feature views and single columns, where there are any views.
    """

    metric: str
    rows: int
    by_input: tuple[Importance, ...]
    by_group: tuple[Importance, ...]


def permutation_importance(
    task: str, predict: Callable[[pd.DataFrame], Floats], frame: pd.DataFrame, labels: Floats, seed: int
) -> Importances:
    """Shuffle each input, and each view's inputs together, on a sample of the test part; seeded.

    Args:
        task: "classification" or "regression".
        predict: From a raw frame to outputs.
        frame: Raw inputs of the test part.
        labels: Their labels; for classification of both classes.
        seed: Seeds the sample and the shuffles.
    """
    metric = DEFAULT_METRIC[task]
    sample = _sample(task, labels, np.random.default_rng(seed))
    frame, labels = frame.take(sample).reset_index(drop=True), labels[sample]
    before = metrics(task, labels, predict(frame), None)[metric]
    sign = 1.0 if METRICS[task][metric] else -1.0

    def loss(name: str, columns: Sequence[str]) -> Importance:
        losses = []
        for repeat in range(REPEATS):
            order = np.random.default_rng([seed, repeat]).permutation(len(labels))
            shuffled = frame.copy(deep=False)
            for column in columns:
                shuffled[column] = frame[column].take(order).set_axis(frame.index)
            losses.append(sign * (before - metrics(task, labels, predict(shuffled), None)[metric]))
        return Importance(name, len(columns), float(np.mean(losses)), float(np.std(losses)))

    by_input = [loss(name, [name]) for name in frame.columns]
    single = {each.name: each for each in by_input}
    groups = _groups(list(frame.columns))
    by_group = [single[columns[0]] if columns == [name] else loss(name, columns) for name, columns in groups.items()]
    has_views = len(groups) < len(single)
    return Importances(metric, len(labels), _ranked(by_input), _ranked(by_group) if has_views else ())


def _groups(names: Sequence[str]) -> Mapping[str, list[str]]:
    """Inputs by feature view: `view__feature` belongs to `view`, any other column is a group of its own."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.split("__")[0], []).append(name)
    return groups


def _sample(task: str, labels: Floats, random: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Ascending row numbers; for classification each class keeps at least one row of the sample."""
    if len(labels) <= SAMPLE_ROWS:
        return np.arange(len(labels))
    chosen = random.choice(len(labels), SAMPLE_ROWS, replace=False)
    if task == "classification" and labels[chosen].min() == labels[chosen].max():
        chosen[0] = int(np.flatnonzero(labels != labels[chosen[0]])[0])
    return np.sort(chosen)


def _ranked(found: Sequence[Importance]) -> tuple[Importance, ...]:
    return tuple(sorted(found, key=lambda each: (-each.loss, each.name)))
