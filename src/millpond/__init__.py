"""Millpond: an end-to-end machine-learning platform, from a raw table to a served, explained prediction.

    import millpond as mp

Importing this package loads no heavy library.
"""

from typing import TYPE_CHECKING

from millpond.core.errors import MillpondError
from millpond.definitions.checks import (
    accepted_values,
    check,
    foreign_key,
    fresh,
    in_range,
    not_null,
    row_count,
    unique,
)
from millpond.definitions.expressions import col
from millpond.definitions.features import (
    Entity,
    Features,
    count,
    first,
    latest,
    max,
    mean,
    min,
    nunique,
    request_features,
    std,
    sum,
)
from millpond.definitions.gates import at_least, at_most, beats_baseline, beats_champion, no_skew
from millpond.definitions.models import Classification, Model, PredictionLog, Regression, Split, Tune
from millpond.definitions.release import Release, live_metric, max_difference, max_errors, max_latency
from millpond.definitions.tables import Table, sql_table, table

if TYPE_CHECKING:
    from pathlib import Path

    from millpond.platform.platform import Platform

__version__ = "0.1.0"


def open(folder: "str | Path | None" = None, *, profile: str | None = None) -> "Platform":
    """The platform of the project at or above `folder` (default: the working folder), under a profile.

    The functions of `millpond.platform` take it: `tables.ingest(platform, "flights")`, `train.train(platform, "late")`,
    `predictions.predict_rows(platform, "late", rows)`.

    Raises:
        NotFound: There is no `millpond.toml`.
        SettingsError: It is wrong.
    """
    from millpond.platform.platform import open_project

    return open_project(folder, profile=profile)


__all__ = [
    "Classification",
    "Entity",
    "Features",
    "MillpondError",
    "Model",
    "PredictionLog",
    "Regression",
    "Release",
    "Split",
    "Table",
    "Tune",
    "accepted_values",
    "at_least",
    "at_most",
    "beats_baseline",
    "beats_champion",
    "check",
    "col",
    "count",
    "first",
    "foreign_key",
    "fresh",
    "in_range",
    "latest",
    "live_metric",
    "max",
    "max_difference",
    "max_errors",
    "max_latency",
    "mean",
    "min",
    "no_skew",
    "not_null",
    "nunique",
    "open",
    "request_features",
    "row_count",
    "sql_table",
    "std",
    "sum",
    "table",
    "unique",
]
