"""What a point-in-time join has to compute, as data; the same for every dialect."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from millpond.core.errors import DefinitionError, SchemaMismatch
from millpond.core.names import did_you_mean
from millpond.definitions.features import Aggregation, AggregationKind
from millpond.features.ports import PinnedView

Kind = Literal["integer", "boolean", "decimal", "float", "string", "date", "instant", "other"]

#: Above this precision the running sum of a decimal may overflow 38 digits; such decimals are summed as floats.
_EXACT_DECIMAL_PRECISION = 28
_NUMERIC_ONLY = ("sum", "mean", "std")
_KINDS: dict[str, Kind] = {
    "int": "integer",
    "long": "integer",
    "boolean": "boolean",
    "float": "float",
    "double": "float",
    "string": "string",
    "date": "date",
    "timestamptz": "instant",
}


def column_kind(type_: str) -> Kind:
    """The kind of an Iceberg type."""
    return "decimal" if type_.startswith("decimal") else _KINDS.get(type_, "other")


@dataclass(frozen=True)
class SourceColumn:
    """A column that features are made of.

    Attributes:
        name: Its name in the table.
        type: Its Iceberg type.
        slot: Its name in the tables of the join, such as "c0".
    """

    name: str
    type: str
    slot: str

    @property
    def kind(self) -> Kind:
        return column_kind(self.type)

    @property
    def exact(self) -> bool:
        """Whether sums of it are exact whatever the order of additions."""
        if self.kind == "decimal":
            found = re.match(r"decimal\((\d+)", self.type)
            return found is not None and int(found[1]) <= _EXACT_DECIMAL_PRECISION
        return self.kind in ("integer", "boolean")


@dataclass(frozen=True)
class Feature:
    """One feature of a view.

    Attributes:
        name: Full name, `{view}__{feature}`.
        kind: The aggregation.
        column: What is aggregated; None counts rows.
        over: Length of the window in microseconds; None is all that is visible.
        within: For `latest`: greatest age in microseconds; None is any.
    """

    name: str
    kind: AggregationKind
    column: SourceColumn | None
    over: int | None
    within: int | None

    @property
    def is_count(self) -> bool:
        return self.kind in ("count", "nunique")

    @property
    def is_integer_sum(self) -> bool:
        return self.kind == "sum" and self.column is not None and self.column.kind in ("integer", "boolean")

    @property
    def slot(self) -> str:
        """The column's name in the tables of the join; the marker of a row where rows are counted."""
        return self.column.slot if self.column else "r"


@dataclass(frozen=True)
class ViewPlan:
    """One view, resolved against the snapshot that it reads.

    Attributes:
        view: The view's name.
        pinned: The view and its snapshot.
        entity_keys: Columns of the table, and of the examples, that name the entity.
        row_keys: Columns that identify a row of the table, in order; () where it has no key.
        time: Event time column; None where every row is always visible.
        known: Column of the instant a row became known, where that is another column than `time`.
        every: Step of the refresh grid in microseconds; None is live.
        columns: The columns that features are made of.
        features: The features, in order of declaration.
    """

    view: str
    pinned: PinnedView
    entity_keys: tuple[str, ...]
    row_keys: tuple[str, ...]
    time: str | None
    known: str | None
    every: int | None
    columns: tuple[SourceColumn, ...]
    features: tuple[Feature, ...]

    def of(self, *kinds: AggregationKind) -> tuple[Feature, ...]:
        return tuple(each for each in self.features if each.kind in kinds)

    @property
    def reach(self) -> int | None:
        """How long before `t` the oldest event that can matter lies, in microseconds; None is for ever."""
        return reach_of(self.features)


def reach_of(features: Sequence[Feature]) -> int | None:
    """How long before `t` the oldest event that can matter to any of the features lies, in microseconds; None is for
    ever. Features of a table without time have neither windows nor limits, so theirs is None.
    """
    reaches = [each.within if each.kind == "latest" else each.over for each in features]
    bounded = [each for each in reaches if each is not None]
    return max(bounded) if len(bounded) == len(reaches) else None


def plan_view(pinned: PinnedView) -> ViewPlan:
    """Resolve a view against its snapshot.

    A view of a table without time that names a `known` column alone takes it for the event time too.

    Raises:
        SchemaMismatch: The snapshot lacks a column, or has it in a type that its use does not allow.
    """
    view, snapshot = pinned.view, pinned.snapshot
    types = {column.name: column.type for column in snapshot.columns}
    for column in view.source_columns:
        if column not in types:
            raise SchemaMismatch(
                f"{view.subject} reads column {column!r}, which {snapshot} does not have",
                where=str(view.declared_at),
                hint=did_you_mean(column, types, noun="columns"),
            )
    time = view.event_time or view.known_time
    known = view.known_time if view.known_time != time else None
    for instant in (time, known):
        if instant is not None and types[instant] != "timestamptz":
            raise SchemaMismatch(
                f"Column {instant!r} of {snapshot} is {types[instant]}, and {view.subject} uses it as an instant",
                where=str(view.declared_at),
                hint="ingest it as a timestamp with a time zone, or declare zone= on the table",
            )
    names = dict.fromkeys(each.column for each in view.features.values() if each.column is not None)
    columns = {name: SourceColumn(name, types[name], f"c{index}") for index, name in enumerate(names)}
    return ViewPlan(
        view=view.name,
        pinned=pinned,
        entity_keys=view.entity.keys,
        row_keys=view.source.keys,
        time=time,
        known=known,
        every=view.grid.microseconds if view.grid and time else None,
        columns=tuple(columns.values()),
        features=tuple(
            _feature(pinned, f"{view.name}__{name}", each, columns.get(each.column or ""))
            for name, each in view.features.items()
        ),
    )


def plan_views(views: Sequence[PinnedView]) -> tuple[ViewPlan, ...]:
    """Resolve views, and refuse two of one name.

    Raises:
        DefinitionError: Two views have the same name.
        SchemaMismatch: As in `plan_view`.
    """
    names = [pinned.view.name for pinned in views]
    for name in names:
        if names.count(name) > 1:
            raise DefinitionError(f"Feature view {name!r} is joined twice", hint="name each view once")
    return tuple(plan_view(pinned) for pinned in views)


def _feature(pinned: PinnedView, name: str, aggregation: Aggregation, column: SourceColumn | None) -> Feature:
    kind = aggregation.kind
    if column is not None and kind in _NUMERIC_ONLY and column.kind not in ("integer", "boolean", "decimal", "float"):
        raise SchemaMismatch(
            f"{name} is {aggregation}, but column {column.name!r} of {pinned.snapshot} is {column.type}",
            where=str(pinned.view.declared_at),
            hint=f"{kind} takes a numeric or boolean column; min, max, count, nunique, first and latest take any",
        )
    over = aggregation.window.microseconds if aggregation.window else None
    within = aggregation.limit.microseconds if aggregation.limit else None
    if kind == "latest":  # a window on the latest row and an age limit mean the same
        limits = [each for each in (over, within) if each is not None]
        over, within = None, min(limits) if limits else None
    return Feature(name, kind, column, over, within)
