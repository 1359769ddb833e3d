"""Metrics of versions over the answers whose label has become known: the prediction log joined with the examples."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from millpond.core.errors import MillpondError, NotFound
from millpond.core.time import format_instant
from millpond.features.ports import LABEL
from millpond.lake.schema import literal, quoted
from millpond.platform import logged, versions
from millpond.platform.platform import Platform
from millpond.serving.ports import ServedModel
from millpond.serving.traffic.judging import Measured

if TYPE_CHECKING:
    from millpond.definitions.models import Model
    from millpond.lake.ports import Engine

_LABELLED = "__labelled"

_log = logging.getLogger("millpond.serving")


def live_metrics(
    platform: Platform, model: str, numbers: Sequence[int], since: datetime
) -> dict[int, dict[str, Measured]]:
    """All metrics of a model's task, by version and name, over answers given since an instant.

    What a shadow would have answered counts as its answer. An answer and an example belong together when they agree in
    the entity keys and the instant of prediction; where the model has no entity, in all columns that a request
    carries. Examples that are not told apart by these are left out, and so is an answer that carried no instant while
    examples have one. The label is that of the current examples, as the first of the versions defines it; a null one
    is not known yet.

    Returns:
        Version -> metric -> its value and the number of labels. A version without labels is absent; a metric that is
        not defined on these labels has no value.
    """
    loaded = [versions.load(platform, platform.store.version(model, number)) for number in numbers]
    first = loaded[0]
    columns = _common(first.model, first.served)
    examples = platform.lake.snapshot(first.model.examples.name)
    found: dict[int, dict[str, Measured]] = {}
    with platform.engine() as engine, engine.session():
        try:
            engine.materialize(_LABELLED, f"SELECT * FROM {_labelled(engine, first.model, examples, columns)}")
        except MillpondError as error:
            _log.warning("live metrics of %s wait for labels: %s", model, error.what)
            return {}
        for each in loaded:
            rows = _labelled_answers(platform, engine, each.served, since, columns)
            if rows:
                found[each.served.version] = _measured(each.served, rows)
    return found


def _common(model: Model, served: ServedModel) -> list[str]:
    """The columns by which an answer and an example find each other."""
    if model.entity_keys:
        return [*model.entity_keys, *([served.at] if served.at and served.at not in model.entity_keys else [])]
    return [column.name for column in served.columns]


def _labelled_answers(
    platform: Platform, engine: Engine, served: ServedModel, since: datetime, columns: Sequence[str]
) -> list[tuple[float, float]]:
    """Output and label of a version's answers, in the order of what they were asked."""
    answers = logged.relation(platform, engine, served)
    there = engine.reader(f"SELECT * FROM {answers} AS nothing LIMIT 0").schema.names
    if not {*columns, logged.OUTPUT} <= set(there):  # nothing was logged yet, or it is redacted
        return []
    names = ", ".join(map(quoted, columns))
    rows = engine.rows(
        f"SELECT {logged.OUTPUT}, CAST({LABEL} AS DOUBLE) FROM {answers} AS answered JOIN {_LABELLED} USING ({names}) "
        f"WHERE variant IN ('live', 'canary', 'shadow') AND {logged.OUTPUT} IS NOT NULL "
        f"AND predicted_at >= TIMESTAMPTZ {literal(format_instant(since))} ORDER BY {names}"
    )
    return [(float(output), float(label)) for output, label in rows]


def _labelled(engine: Engine, model: Model, examples: Any, columns: Sequence[str]) -> str:
    from millpond.features.training_set import labelled_examples

    there = set(examples.column_names)
    if not set(columns) <= there:
        raise NotFound(f"{examples} has no column {sorted(set(columns) - there)[0]!r} to find answers by")
    names = ", ".join(map(quoted, columns))
    found = labelled_examples(engine, model, examples, columns)
    return (
        f"(SELECT {names}, any_value({LABEL}) AS {LABEL} FROM {found} GROUP BY {names} "
        f"HAVING count(*) = 1 AND any_value({LABEL}) IS NOT NULL)"
    )


def _measured(served: ServedModel, rows: Sequence[tuple[float, float]]) -> dict[str, Measured]:
    import numpy as np

    from millpond.definitions.gates import METRICS
    from millpond.training.metrics import metrics

    outputs, labels = (np.array(values, dtype=np.float64) for values in zip(*rows, strict=True))
    found = metrics(served.task, labels, outputs, served.threshold)
    return {name: Measured(found.get(name), len(rows)) for name in METRICS[served.task]}
