"""Which columns a training set has, and why; found before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from millpond.core.errors import DefinitionError, SchemaMismatch
from millpond.core.names import did_you_mean
from millpond.definitions.models import Model
from millpond.features.plan import Feature, Kind, column_kind, plan_views
from millpond.features.ports import AT, LABEL, LABEL_KNOWN, PinnedView
from millpond.features.request import apply_request_features, required_columns
from millpond.lake.ports import Snapshot

if TYPE_CHECKING:
    import pyarrow as pa

_INPUT_TYPES: dict[Kind, str] = {
    "integer": "int64",
    "boolean": "bool",
    "decimal": "float64",
    "float": "float64",
    "string": "string",
}


@dataclass(frozen=True)
class Layout:
    """Which columns the training set has, and why.

    Attributes:
        inputs: The model's inputs with their types, in order of declaration.
        features: Names of the inputs that come from views.
        kept: Columns of the examples that the training set keeps.
        requested: Columns of the examples that request features read.
        added: Columns that Millpond adds.
        casts: Types that columns of the examples are given.
    """

    inputs: Mapping[str, str]
    features: tuple[str, ...]
    kept: tuple[str, ...]
    requested: tuple[str, ...]
    added: tuple[str, ...]
    casts: Mapping[str, str]

    @property
    def output(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.kept, *self.inputs, *self.added)))


def lay_out(model: Model, examples: Snapshot, views: Sequence[PinnedView]) -> Layout:
    """Resolve a model's columns against the snapshots; `views` are the model's, in its order.

    Raises:
        DefinitionError: An input has a type that no model takes, or request features read the label.
        SchemaMismatch: A snapshot lacks a column.
    """
    kinds = {column.name: column_kind(column.type) for column in examples.columns}
    _check_columns(model, examples, kinds)
    schema = request_schema(examples)
    requested = _requested(model, schema)
    made = apply_request_features(model.request_features, schema.empty_table()).schema
    plans = {plan.view: plan for plan in plan_views(views)}
    inputs: dict[str, str] = {}
    for each in model.inputs:
        if isinstance(each, str):
            inputs[each] = _input_type(model, each, kinds[each])
        elif each.name in plans:
            inputs |= {f.name: _input_type(model, f.name, feature_kind(f)) for f in plans[each.name].features}
        else:
            own = [name for name in made.names if name.startswith(f"{each.name}__")]
            inputs |= {name: _arrow_type_name(made.field(name).type) for name in own}
    kept = (*model.examples.keys, *model.entity_keys, *model.columns, *model.slices)
    return Layout(
        inputs=inputs,
        features=tuple(feature.name for plan in plans.values() for feature in plan.features),
        kept=tuple(dict.fromkeys(kept)),
        requested=requested,
        added=tuple([AT] * bool(model.time) + [LABEL] + [LABEL_KNOWN] * bool(model.label_known)),
        casts={
            column: _INPUT_TYPES[kinds[column]]
            for column in (*model.columns, *requested)
            if kinds[column] in _INPUT_TYPES
        },
    )


def _check_columns(model: Model, examples: Snapshot, kinds: Mapping[str, Kind]) -> None:
    named = [*model.examples.keys, *model.entity_keys, *model.columns, *model.slices, *model.task.label_columns]
    named += [column for column in (model.time, model.label_known) if column]
    for column in named:
        if column not in kinds:
            raise SchemaMismatch(
                f"{model.subject} names column {column!r}, which {examples} does not have",
                where=str(model.declared_at),
                hint=did_you_mean(column, kinds, noun="columns"),
            )
    for instant in (model.time, model.label_known):
        if instant and kinds[instant] != "instant":
            raise SchemaMismatch(
                f"Column {instant!r} of {examples}, which {model.subject} takes for an instant, is no instant",
                where=str(model.declared_at),
                hint="ingest it as a timestamp with a time zone, or declare zone= on the table",
            )


def _requested(model: Model, schema: pa.Schema) -> tuple[str, ...]:
    requested = required_columns(model.request_features, schema)
    hidden = {*model.task.label_columns, *([model.label_known] if model.label_known else [])} - {model.time}
    for leak in [column for column in requested if column in hidden]:
        raise DefinitionError(
            f"The request features of {model.subject} read {leak!r}, which is not known when a prediction is made",
            where=str(model.declared_at),
            hint="a request carries neither the label's columns nor when it became known",
        )
    return requested


def feature_kind(feature: Feature) -> Kind:
    """The kind of a feature's values."""
    if feature.is_count or feature.is_integer_sum:
        return "integer"
    if feature.kind in ("sum", "mean", "std") or feature.column is None:
        return "float"
    return feature.column.kind


def request_schema(examples: Snapshot) -> pa.Schema:
    """The columns of the examples that a request can carry, in the types it carries them in."""
    import pyarrow as pa

    types: dict[str, pa.DataType] = {
        "int64": pa.int64(),
        "bool": pa.bool_(),
        "float64": pa.float64(),
        "string": pa.string(),
        "instant": pa.timestamp("us", tz="UTC"),
    }
    fields: list[tuple[str, pa.DataType]] = []
    for column in examples.columns:
        kind = column_kind(column.type)
        if kind == "instant":
            fields.append((column.name, types["instant"]))
        elif kind in _INPUT_TYPES:
            fields.append((column.name, types[_INPUT_TYPES[kind]]))
    return pa.schema(fields)


def _input_type(model: Model, name: str, kind: Kind) -> str:
    if kind not in _INPUT_TYPES:
        raise DefinitionError(
            f"Input {name!r} of {model.subject} is of kind {kind!r}, which no model takes",
            where=str(model.declared_at),
            hint="make numbers of it with @mp.request_features, such as mp.col(...).dt.hour()"
            if kind in ("date", "instant")
            else "inputs are numbers, booleans and strings",
        )
    return _INPUT_TYPES[kind]


def _arrow_type_name(type_: pa.DataType) -> str:
    return {"double": "float64"}.get(str(type_), str(type_))
