"""The nouns of the features room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from millpond.definitions.features import Features
from millpond.lake.ports import Snapshot


@dataclass(frozen=True)
class PinnedView:
    """A feature view, and the snapshot of its source table that it is computed from."""

    view: Features
    snapshot: Snapshot


@dataclass(frozen=True)
class TrainingSetColumns:
    """What the columns of a training set are for.

    Attributes:
        keys: Key columns of the examples.
        inputs: Model inputs in the order of the model's declaration, expanded: name -> type, one of "float64",
            "int64", "bool", "string".
        slices: Columns kept for evaluation only.
        at: Column with the instant of prediction, or None.
        label: Column with the label (bool or float64).
        label_known: Column with the instant at which the label became known, or None.
    """

    keys: tuple[str, ...]
    inputs: Mapping[str, str]
    slices: tuple[str, ...]
    at: str | None
    label: str = "__label"
    label_known: str | None = None


#: Names of the columns that a training set adds to those of its examples.
AT, LABEL, LABEL_KNOWN = "__at", "__label", "__label_known"
