"""What the feature catalog shows: plain data, as in `read_models`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from millpond.definitions.changes import FieldChange


@dataclass(frozen=True)
class CatalogLine:
    """One feature in one line.

    Attributes:
        view: The view's name.
        feature: The feature's name in the view.
        name: Its name wherever views meet: "{view}__{feature}".
        declared: How it was written, such as `mean("dep_delay", over="1h")`.
        type: "int", "float", "bool", "string", "instant", "date", "decimal"; None while its table is not there, or
            does not fit.
        description: The feature's own.
        view_description: The view's.
        entity: What it is about.
        source: The table that it is computed from.
        every: Refresh interval; None is live.
        owner: The view's.
        tags: The view's.
        fresh_at: Newest event of the source; UTC; None for a table without time, or without rows.
        models: Declared models that use the view.
        version: The view's version in force; None where it was never applied.
    """

    view: str
    feature: str
    name: str
    declared: str
    type: str | None
    description: str
    view_description: str
    entity: str
    source: str
    every: str | None
    owner: str
    tags: tuple[str, ...]
    fresh_at: datetime | None
    models: tuple[str, ...]
    version: int | None


@dataclass(frozen=True)
class FeatureStatistics:
    """How the values of one feature are spread over the rows of a training set.

    Attributes:
        nulls: Share of the rows without a value, 0.0 to 1.0.
        distinct: Number of different values, null left out.
        mean: Of numbers and, as shares of yes, of booleans; None for others, and where there is no value.
        quantiles: 0.0 (least), 0.05, 0.25, 0.5, 0.75, 0.95, 1.0 (greatest), by interpolation, of numbers; else empty.
        top: The most frequent values of strings and booleans with their rows, at most 5, ties by value; else empty.
    """

    nulls: float
    distinct: int
    mean: float | None
    quantiles: Mapping[str, float]
    top: tuple[tuple[Any, int], ...]


@dataclass(frozen=True)
class StatisticsBasis:
    """What statistics were computed over: each example of the newest training set that holds the view, as of the
    example's own instant; so as models saw the values.

    Attributes:
        table: The training set's table.
        snapshot_id: Its snapshot.
        committed_at: UTC.
        rows: Examples.
        entities: Different entities among them.
        version: The view's version that it was built with; None where that is not on record.
        current: Whether that is the meaning declared now.
    """

    table: str
    snapshot_id: int
    committed_at: datetime
    rows: int
    entities: int
    version: int | None
    current: bool


@dataclass(frozen=True)
class FeatureLine:
    """One feature of a view; `declared` is how it was written, `column` what it aggregates."""

    name: str
    declared: str
    type: str | None = None
    column: str | None = None
    description: str = ""
    statistics: FeatureStatistics | None = None


@dataclass(frozen=True)
class LineageStep:
    """A table that a view is computed from, directly or through others.

    Attributes:
        table: Its name.
        inputs: Tables that it is derived from; empty for an ingested one.
        files: Names of the files that were ingested last, newest first, at most 5; else the declared source.
        snapshot_id: The current snapshot; None before the first.
        committed_at: When it was committed; UTC.
        rows: At that snapshot.
        version: Version of the table's definition in force; None where it was never applied.
    """

    table: str
    inputs: tuple[str, ...]
    files: tuple[str, ...]
    snapshot_id: int | None
    committed_at: datetime | None
    rows: int | None
    version: int | None


@dataclass(frozen=True)
class Freshness:
    """How new a view's values can be.

    Attributes:
        newest_event: Greatest event time in the source's current snapshot; UTC; None without time or rows.
        committed_at: When that snapshot was committed; UTC; None before the first.
        refreshed_at: When the online store's values of the declared meaning were computed or loaded; UTC; None where
            it holds none.
    """

    newest_event: datetime | None = None
    committed_at: datetime | None = None
    refreshed_at: datetime | None = None


@dataclass(frozen=True)
class ViewVersion:
    """One meaning that a view has had.

    Attributes:
        number: 1, 2, 3 ...
        fingerprint: Of the meaning.
        applied_at: When it first took effect; UTC.
        applied_by: Who applied it first.
        code_commit: Full commit id of the project's code then, or None.
        code_dirty: Whether there were uncommitted changes.
        in_force: Whether it is the one that was applied last.
        declared: Whether the definitions say this now.
        meaning: Plain JSON.
        changes: What differs from the version before, in words; empty for the first.
    """

    number: int
    fingerprint: str
    applied_at: datetime
    applied_by: str
    code_commit: str | None
    code_dirty: bool
    in_force: bool
    declared: bool
    meaning: Mapping[str, Any]
    changes: tuple[str, ...]


@dataclass(frozen=True)
class ViewUse:
    """A model version that was trained with a view.

    Attributes:
        model: The model's name.
        version: The version's number.
        aliases: Such as ("champion",).
        view_version: The view's version in it, which it is served with whatever is declared later; None where that
            is not on record.
        current: Whether that is the meaning declared now.
    """

    model: str
    version: int
    aliases: tuple[str, ...]
    view_version: int | None
    current: bool


@dataclass(frozen=True)
class MeaningDiff:
    """How two meanings of a view differ; `old` and `new` say which they are, such as "version 1", "declared now"."""

    view: str
    old: str
    new: str
    changes: tuple[FieldChange, ...]
