"""Entities, feature views, aggregations, and features computed from the request itself."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from millpond.core.names import NAME_RULE, is_name
from millpond.core.time import Duration
from millpond.definitions.place import Place, Problem, caller
from millpond.definitions.tables import Table

AggregationKind = Literal["count", "sum", "mean", "std", "min", "max", "nunique", "first", "latest"]


@dataclass(frozen=True)
class Aggregation:
    """How one feature's value comes from the visible rows of an entity.

    Attributes:
        kind: The function.
        column: The column aggregated; None only for `count`, which then counts rows.
        over: Length of the window `[t - over, t)` on the event time; None means all that is visible.
        within: For `latest`: the value is null when its event is older, that is when `time < t - within`.
        description: Documentation; no part of the meaning.
    """

    kind: AggregationKind
    column: str | None = None
    over: str | None = None
    within: str | None = None
    description: str = field(default="", compare=False)

    @property
    def window(self) -> Duration | None:
        return Duration.parse(self.over) if self.over else None

    @property
    def limit(self) -> Duration | None:
        return Duration.parse(self.within) if self.within else None

    def describe(self) -> dict[str, Any]:
        """The meaning as plain data, durations in microseconds."""
        return {
            "kind": self.kind,
            "column": self.column,
            "over": self.window.microseconds if self.window else None,
            "within": self.limit.microseconds if self.limit else None,
        }

    def __str__(self) -> str:
        parts = [f'"{self.column}"'] if self.column else []
        parts += [f'over="{self.over}"'] if self.over else []
        parts += [f'within="{self.within}"'] if self.within else []
        return f"{self.kind}({', '.join(parts)})"


def count(column: str | None = None, *, over: str | None = None, description: str = "") -> Aggregation:
    """Number of rows, or of non-null values of `column`. int64, never null; 0 over nothing."""
    return Aggregation("count", column, over, description=description)


def sum(column: str, *, over: str | None = None, description: str = "") -> Aggregation:
    """Sum of the non-null values; null over nothing. Integers stay exact (int64), other numbers are float64."""
    return Aggregation("sum", column, over, description=description)


def mean(column: str, *, over: str | None = None, description: str = "") -> Aggregation:
    """Arithmetic mean of the non-null values; float64; null over nothing."""
    return Aggregation("mean", column, over, description=description)


def std(column: str, *, over: str | None = None, description: str = "") -> Aggregation:
    """Sample standard deviation (n - 1) of the non-null values; float64; null over fewer than two."""
    return Aggregation("std", column, over, description=description)


def min(column: str, *, over: str | None = None, description: str = "") -> Aggregation:
    """Least non-null value, of the column's type; null over nothing."""
    return Aggregation("min", column, over, description=description)


def max(column: str, *, over: str | None = None, description: str = "") -> Aggregation:
    """Greatest non-null value, of the column's type; null over nothing."""
    return Aggregation("max", column, over, description=description)


def nunique(column: str, *, over: str | None = None, description: str = "") -> Aggregation:
    """Number of distinct non-null values; int64; 0 over nothing, as every count."""
    return Aggregation("nunique", column, over, description=description)


def first(column: str, *, over: str | None = None, description: str = "") -> Aggregation:
    """Value of the visible row with the least time; ties go to the least known, then the least key. Null stays null."""
    return Aggregation("first", column, over, description=description)


def latest(column: str, *, within: str | None = None, description: str = "") -> Aggregation:
    """Value of the visible row with the greatest time; ties go to the greatest known, then the greatest key.

    The row's value is taken as it is, so a null there is the answer. `within="6h"` makes an older value null.
    """
    return Aggregation("latest", column, None, within, description)


@dataclass(frozen=True, eq=False)
class Entity:
    """What features are about.

    Args:
        name: Such as "airport".
        key: The column or columns that name one of them, in every table and request where it occurs.
        unknown: What a prediction for a key that no source table has ever held gets: "refuse" is an error,
            "allow" takes the features as they are over nothing, as training does.
    """

    name: str
    key: str | Sequence[str]
    unknown: Literal["refuse", "allow"] = "refuse"
    description: str = ""
    declared_at: Place = field(default_factory=caller, repr=False)

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,) if isinstance(self.key, str) else tuple(self.key)

    @property
    def subject(self) -> str:
        return f'Entity "{self.name}"'

    def describe(self) -> dict[str, Any]:
        return {"entity": self.name, "key": list(self.keys)}

    def problems(self) -> Iterator[Problem]:
        if not is_name(self.name):
            yield Problem(self.declared_at, self.subject, "name", f"is {self.name!r}", NAME_RULE)
        if not self.keys:
            yield Problem(self.declared_at, self.subject, "key", "is empty", "name at least one column")
        if self.unknown not in ("refuse", "allow"):
            yield Problem(
                self.declared_at, self.subject, "unknown", f"is {self.unknown!r}", 'allowed: "refuse", "allow"'
            )


@dataclass(frozen=True, eq=False, init=False)
class Features:
    """A feature view: features of one entity, computed from one table.

    Args:
        name: The view's name. Its features are called `{view}__{feature}` wherever views meet.
        entity: What the features are about; its key columns are columns of the table.
        source: The table.
        time: Event time of this view, where it is another column than the table's: arrival facts at arrival.
        known: When a row became known, where it is another column than the table's.
        every: Refresh grid. At `t` the view has the values of the last grid point `<= t`. None means live.
        features: One aggregation a feature.
    """

    name: str
    entity: Entity
    source: Table
    time: str | None
    known: str | None
    every: str | None
    features: Mapping[str, Aggregation]
    description: str
    owner: str
    tags: tuple[str, ...]
    declared_at: Place

    def __init__(
        self,
        name: str,
        *,
        entity: Entity,
        source: Table,
        time: str | None = None,
        known: str | None = None,
        every: str | None = None,
        description: str = "",
        owner: str = "",
        tags: Sequence[str] = (),
        **features: Aggregation,
    ) -> None:
        values = {
            "name": name,
            "entity": entity,
            "source": source,
            "time": time,
            "known": known,
            "every": every,
            "features": features,
            "description": description,
            "owner": owner,
            "tags": tuple(tags),
            "declared_at": caller(),
        }
        for attribute, value in values.items():
            object.__setattr__(self, attribute, value)

    @property
    def event_time(self) -> str | None:
        """The event time column of this view; None for a table without time."""
        return self.time or self.source.time

    @property
    def known_time(self) -> str | None:
        """The column that says when a row became known: the view's, else the table's, else the event time."""
        return self.known or self.source.known or self.event_time

    @property
    def grid(self) -> Duration | None:
        return Duration.parse(self.every) if self.every else None

    @property
    def columns(self) -> tuple[str, ...]:
        """Full names of the features, in order of declaration."""
        return tuple(f"{self.name}__{feature}" for feature in self.features)

    @property
    def source_columns(self) -> tuple[str, ...]:
        """The columns of the table that the view reads, without repeats."""
        used = [*self.entity.keys, *self.source.keys]
        used += [column for column in (self.event_time, self.known_time) if column]
        used += [each.column for each in self.features.values() if each.column]
        return tuple(dict.fromkeys(used))

    @property
    def subject(self) -> str:
        return f'Features "{self.name}"'

    def describe(self) -> dict[str, Any]:
        """The view's meaning as plain data; documentation is left out."""
        return {
            "features": self.name,
            "entity": self.entity.describe(),
            "source": self.source.name,
            "key": list(self.source.keys),
            "time": self.event_time,
            "known": self.known_time,
            "every": self.grid.microseconds if self.grid else None,
            "columns": {name: each.describe() for name, each in self.features.items()},
        }

    def problems(self) -> Iterator[Problem]:
        def problem(where: str, found: str, hint: str = "") -> Problem:
            return Problem(self.declared_at, self.subject, where, found, hint)

        if not is_name(self.name):
            yield problem("name", f"is {self.name!r}", NAME_RULE)
        if not isinstance(self.entity, Entity):
            yield problem("entity", f"is {self.entity!r}", "give an mp.Entity")
        if not isinstance(self.source, Table):
            yield problem("source", f"is {self.source!r}", "give an mp.Table")
            return
        if not self.features:
            yield problem("features", "there are none", 'such as mean_delay_1h=mp.mean("dep_delay", over="1h")')
        if self.every is not None:
            yield from self._duration_problems("every", self.every)
        for name, each in self.features.items():
            if not is_name(name):
                yield problem(name, "is not a name", NAME_RULE)
            if not isinstance(each, Aggregation):
                yield problem(name, f"is {each!r}", f'give an aggregation such as mp.latest("{name}")')
                continue
            for argument, text in (("over", each.over), ("within", each.within)):
                if text is not None:
                    yield from self._duration_problems(f"{name}: {argument}", text)
            if self.event_time is None and (each.over or each.within):
                yield problem(name, f"has a window, but {self.source.subject} has no time", "declare time= on it")

    def _duration_problems(self, where: str, text: str) -> Iterator[Problem]:
        try:
            Duration.parse(text)
        except (ValueError, TypeError) as error:
            yield Problem(self.declared_at, self.subject, where, str(error))


@dataclass(frozen=True, eq=False)
class RequestFeatures:
    """Features computed from the request's own columns by a row-wise Narwhals function.

    The function takes a `narwhals.DataFrame` of the request's rows and returns one with as many rows in the same
    order; its columns are called `{name}__{column}`. The same code runs on training examples and on requests.
    """

    name: str
    function: Callable[[Any], Any]
    description: str = ""
    declared_at: Place = field(default_factory=caller, repr=False)

    @property
    def subject(self) -> str:
        return f'Request features "{self.name}"'

    def describe(self) -> dict[str, Any]:
        return {"request_features": self.name, "function": textwrap.dedent(inspect.getsource(self.function))}

    def problems(self) -> Iterator[Problem]:
        if not is_name(self.name):
            yield Problem(self.declared_at, self.subject, "name", f"is {self.name!r}", NAME_RULE)


def request_features(function: Callable[[Any], Any]) -> RequestFeatures:
    """Declare features that are computed from the request itself; see `RequestFeatures`."""
    description = inspect.cleandoc(function.__doc__ or "")
    return RequestFeatures(function.__name__, function, description, caller())
