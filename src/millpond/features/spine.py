"""What the examples of a join have to be like; the same for every dialect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from millpond.core.errors import DefinitionError, SchemaMismatch
from millpond.core.names import did_you_mean
from millpond.features.plan import Kind, ViewPlan, column_kind


def check_spine(types: Mapping[str, Kind], at: str | None, plans: Sequence[ViewPlan]) -> None:
    """Find the columns that the views need fit.

    Args:
        types: The spine's columns, with their kinds.
        at: The column with the instants.
        plans: The views.

    Raises:
        DefinitionError: A feature has the name of a column.
        SchemaMismatch: A column is missing, or has another type than the views' tables.
    """
    if at is not None:
        _need(at, types)
        if types[at] != "instant":
            raise SchemaMismatch(
                f"Column {at!r} of the examples is no instant", hint="it must be a timestamp with a time zone"
            )
    for plan in plans:
        source = {column.name: column_kind(column.type) for column in plan.pinned.snapshot.columns}
        for key in plan.entity_keys:
            _need(key, types)
            if types[key] != source[key]:
                raise SchemaMismatch(
                    f"Entity key {key!r} is {types[key]} in the examples and {source[key]} in {plan.pinned.snapshot}",
                    where=str(plan.pinned.view.declared_at),
                    hint="give the column the same type in both tables",
                )
        for feature in plan.features:
            if feature.name in types:
                raise DefinitionError(
                    f"The examples already have a column {feature.name!r}, which is a feature's name",
                    where=str(plan.pinned.view.declared_at),
                    hint="rename the view, the feature or the column",
                )


def _need(column: str, types: Mapping[str, Kind]) -> None:
    if column not in types:
        raise SchemaMismatch(
            f"The examples have no column {column!r}", hint=did_you_mean(column, types, noun="columns")
        )
