"""The meanings of a feature view, one row and one feature at a time: slow, exact, and meant to be read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

from millpond.definitions.features import Aggregation, Features

Row = Mapping[str, Any]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def features_at(view: Features, rows: Sequence[Row], keys: Mapping[str, Any], t: datetime | None) -> dict[str, Any]:
    """Every feature of an entity at `t`; sums and what is made of them as exact fractions."""
    if view.event_time is not None and view.grid is not None and t is not None:
        t = EPOCH + (t - EPOCH) // view.grid.delta * view.grid.delta
    seen = [row for row in rows if is_of(view, row, keys) and is_visible(view, row, t)]
    return {f"{view.name}__{name}": value(view, each, seen, t) for name, each in view.features.items()}


def is_of(view: Features, row: Row, keys: Mapping[str, Any]) -> bool:
    return all(keys[key] is not None and row[key] == keys[key] for key in view.entity.keys)


def is_visible(view: Features, row: Row, t: datetime | None) -> bool:
    if view.event_time is None:
        return True
    time, known = row[view.event_time], row[view.known_time]
    return None not in (time, known, t) and time < t and known < t


def value(view: Features, feature: Aggregation, seen: Sequence[Row], t: datetime | None) -> Any:
    if feature.over is not None:
        seen = [row for row in seen if row[view.event_time] >= t - feature.window.delta]
    if feature.kind in ("latest", "first"):
        return picked(view, feature, seen, t)
    if feature.column is None:
        return len(seen)
    values = [row[feature.column] for row in seen if row[feature.column] is not None]
    if feature.kind == "count":
        return len(values)
    if feature.kind == "nunique":
        return len(set(values))
    if not values:
        return None
    if feature.kind == "min":
        return min(values)
    if feature.kind == "max":
        return max(values)
    numbers = [Fraction(each) for each in values]
    mean = sum(numbers) / len(numbers)
    if feature.kind == "sum":
        return sum(numbers)
    if feature.kind == "mean":
        return mean
    if len(numbers) < 2:
        return None
    variance = sum((each - mean) ** 2 for each in numbers) / (len(numbers) - 1)
    return math.sqrt(variance)


def picked(view: Features, feature: Aggregation, seen: Sequence[Row], t: datetime | None) -> Any:
    """The column of the winning row; rows equal in all that decides are told apart by the value, null losing."""

    def order(row: Row) -> tuple[Any, ...]:
        instants = () if view.event_time is None else (row[view.event_time], row[view.known_time])
        return (*instants, *(row[key] for key in view.source.keys))

    if not seen:
        return None
    best = (max if feature.kind == "latest" else min)(order(row) for row in seen)
    if feature.within is not None and best[0] < t - feature.limit.delta:
        return None
    values = [row[feature.column] for row in seen if order(row) == best and row[feature.column] is not None]
    if not values:
        return None
    return max(values) if feature.kind == "latest" else min(values)
