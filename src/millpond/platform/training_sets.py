"""Training sets: examples joined with features as of each example's time, kept as pinned tables of the lake."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from millpond.core.fingerprints import fingerprint
from millpond.definitions.expressions import expression_text
from millpond.definitions.meanings import meaning
from millpond.definitions.models import Model
from millpond.features.ports import PinnedView, TrainingSetColumns
from millpond.lake.ports import Snapshot
from millpond.platform.applied import record
from millpond.platform.platform import Platform
from millpond.platform.progress import step

if TYPE_CHECKING:
    import pyarrow as pa

#: Property of a training set's snapshot: fingerprints of its views' meanings, by view.
VIEWS = "views"

#: Training sets are tables below this name.
PREFIX = "training."


@dataclass(frozen=True)
class TrainingSet:
    """A training set in the lake.

    Attributes:
        snapshot: The table's snapshot.
        columns: What its columns are for.
        counts: Examples kept, and left out by reason.
        sources: Table -> id of the snapshot it was computed from.
    """

    snapshot: Snapshot
    columns: TrainingSetColumns
    counts: Mapping[str, int]
    sources: Mapping[str, int]


def training_set(platform: Platform, model: Model, snapshots: Mapping[str, Snapshot]) -> TrainingSet:
    """Build a model's training set from the given snapshots, or take the one that was built from them before.

    Commits one snapshot of the table `training.{model}`, or nothing.
    """
    from millpond.features.training_set import build_training_set

    used = {table.name: snapshots[table.name].id for table in (model.examples, *(view.source for view in model.views))}
    recipe = fingerprint({"examples": _examples(model), "sources": used})
    with step(platform.listener, f"training set {model.name}") as current:
        found = _built_before(platform, model, recipe)
        if found is not None:
            current.up_to_date(f"{found.snapshot.rows:,} examples, {len(found.columns.inputs)} inputs")
            record(platform, *model.views, *model.request_features)
            return found
        views = [PinnedView(view, snapshots[view.source.name]) for view in model.views]
        with platform.compute() as engine, engine.session():
            built = build_training_set(engine, model, snapshots[model.examples.name], views)
            properties = {
                "recipe": recipe,
                "columns": json.dumps(asdict(built.columns)),
                "sources": json.dumps(used),
                "counts": json.dumps(asdict(built.counts)),
                VIEWS: json.dumps({view.name: fingerprint(meaning(view)) for view in model.views}),
            }
            snapshot = platform.lake.overwrite(table_name(model), built.rows, properties=properties)
        current.detail = f"{snapshot.rows:,} examples, {len(built.columns.inputs)} inputs"
    record(platform, *model.views, *model.request_features)
    return _read(snapshot)


def table_name(model: Model) -> str:
    """The lake table that holds a model's training set."""
    return f"{PREFIX}{model.name}"


def read_rows(platform: Platform, found: TrainingSet) -> pa.Table:
    """All rows of a training set as Arrow, in no particular order."""
    with platform.engine() as engine:
        return engine.reader(f"SELECT * FROM {engine.scan(found.snapshot)}").read_all()


def read_sample(platform: Platform, found: TrainingSet, rows: int) -> pa.Table:
    """The model inputs of some rows of a training set; the same ones every time."""
    inputs = ", ".join(f'"{name}"' for name in found.columns.inputs)
    order = ", ".join(f'"{name}"' for name in found.columns.keys)
    with platform.engine() as engine:
        relation = engine.scan(found.snapshot)
        return engine.reader(f"SELECT {inputs} FROM {relation} ORDER BY hash({order}), {order} LIMIT {rows}").read_all()


def _examples(model: Model) -> dict[str, Any]:
    """What of the model's meaning the training set depends on: not the estimator, nor how it is split or judged."""
    return {
        "label": model.task.describe()["label"],
        "task": model.task.kind,
        "examples": [model.examples.name, list(model.examples.keys)],
        "at": model.time,
        "label_known": model.label_known,
        "where": expression_text(model.where) if model.where is not None else None,
        "inputs": [each if isinstance(each, str) else each.describe() for each in model.inputs],
        "slices": list(model.slices),
    }


def _built_before(platform: Platform, model: Model, recipe: str) -> TrainingSet | None:
    if not platform.lake.exists(table_name(model)):
        return None
    snapshot = platform.lake.snapshot(table_name(model))
    return _read(snapshot) if snapshot.properties.get("recipe") == recipe else None


def _read(snapshot: Snapshot) -> TrainingSet:
    columns = json.loads(snapshot.properties["columns"])
    return TrainingSet(
        snapshot=snapshot,
        columns=TrainingSetColumns(
            **{**columns, "keys": tuple(columns["keys"]), "slices": tuple(columns["slices"])},
        ),
        counts=json.loads(snapshot.properties["counts"]),
        sources=json.loads(snapshot.properties["sources"]),
    )
