"""What is behind a prediction, recomputed from the pinned snapshots that it was made from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from millpond.core.errors import NotFound
from millpond.features.ports import PinnedView
from millpond.lake.ports import Snapshot
from millpond.platform import versions
from millpond.platform.batch_receipts import find_in_batches
from millpond.platform.events import land_or_wait
from millpond.platform.platform import Platform
from millpond.platform.read_models import FeatureValue, PredictionLine, Receipt, SnapshotRef
from millpond.serving.ports import Prediction

if TYPE_CHECKING:
    from millpond.features.explain import FeatureExplanation

#: Floating features may differ by this much, relatively, between two computations (DESIGN: equal).
TOLERANCE = 1e-9


def trace(platform: Platform, prediction_id: str) -> Receipt:
    """The receipt of a prediction, durable ones that have not yet reached the lake included.

    Every looked-up feature is computed again from the snapshots that the prediction names, as of its instant, and
    compared with the value that was served. A table that had pushed events beside its snapshot is read as it is now,
    with all of them: what the prediction could not yet see is not visible at its instant.

    Raises:
        NotFound: There is no prediction of that id.
    """
    from millpond.features.explain import explain

    made, logged = find(platform, prediction_id)
    loaded = versions.load(platform, platform.store.version(made.model, made.version))
    lineage = platform.store.lineage(loaded.version)
    pushed = [table for table, position in made.events.items() if position]
    land_or_wait(platform, pushed)
    snapshots = {
        table: platform.lake.snapshot(table) if table in pushed else _snapshot(platform, table, number)
        for table, number in made.snapshots.items()
    }
    views = [
        PinnedView(view, snapshot) for view in loaded.views if (snapshot := snapshots.get(view.source.name)) is not None
    ]
    with platform.engine() as engine:
        behind = {each.name: each for each in explain(engine, views, made.request, made.as_of)}
    return Receipt(
        id=made.id,
        model=made.model,
        version=made.version,
        task=loaded.served.task,
        output=made.output,
        answer=made.answer,
        threshold=loaded.served.threshold,
        predicted_at=made.predicted_at,
        as_of=made.as_of,
        requested_by=made.requested_by,
        latency_ms=made.latency_ms,
        request=made.request,
        inputs=tuple(_input(name, value, behind.get(name), logged=logged) for name, value in made.inputs.items()),
        snapshots=tuple(_reference(table, number, snapshots[table]) for table, number in made.snapshots.items()),
        code_commit=lineage.code.commit,
        code_dirty=lineage.code.dirty,
        run_id=loaded.version.run_id,
        trained_by=loaded.version.created_by,
        trained_at=loaded.version.created_at,
    )


def find(platform: Platform, prediction_id: str) -> tuple[Prediction, bool]:
    """A prediction, from the spool, the log in the lake, or a table that a batch wrote; and whether its inputs were
    logged, which those of a batch are not.

    Raises:
        NotFound: There is none of that id.
    """
    from millpond.serving.prediction_log import find as find_in_spool
    from millpond.serving.prediction_table import from_row

    # The spool first: a prediction reaches the lake before it leaves the spool.
    spooled = find_in_spool(platform.settings.spool, prediction_id)
    if spooled is not None:
        return spooled, True
    quoted = prediction_id.replace("'", "''")
    for row in _logged(platform, f"WHERE prediction_id = '{quoted}'"):
        return from_row(row), True
    batch = find_in_batches(platform, prediction_id)
    if batch is not None:
        return batch, False
    raise NotFound(
        f"There is no prediction {prediction_id!r}",
        hint="an id is in every answer, such as p_06f3...; the newest ones: millpond status",
    )


def newest(platform: Platform, model: str | None, limit: int) -> list[PredictionLine]:
    """The newest predictions, newest first."""
    from millpond.serving.prediction_log import pending
    from millpond.serving.prediction_table import from_row

    quoted = (model or "").replace("'", "''")
    chosen = f"WHERE model = '{quoted}'" if model is not None else ""
    logged = [from_row(row) for row in _logged(platform, f"{chosen} ORDER BY predicted_at DESC LIMIT {limit}")]
    spooled = [each for each in pending(platform.settings.spool) if model in (None, each.model)]
    unique = {each.id: each for each in (*logged, *spooled)}
    ordered = sorted(unique.values(), key=lambda each: (each.predicted_at, each.id), reverse=True)
    return [
        PredictionLine(
            each.id, each.model, each.version, each.predicted_at, each.requested_by, each.output, each.answer
        )
        for each in ordered[:limit]
    ]


def counts(platform: Platform) -> dict[str, int]:
    """Number of logged predictions by model."""
    from millpond.serving.prediction_log import pending
    from millpond.serving.prediction_table import PREDICTIONS

    found: dict[str, int] = {}
    if platform.lake.exists(PREDICTIONS):
        with platform.engine() as engine:
            relation = engine.scan(platform.lake.snapshot(PREDICTIONS))
            found = dict(engine.rows(f"SELECT model, count(*) FROM {relation} GROUP BY model"))
    for each in pending(platform.settings.spool):
        found[each.model] = found.get(each.model, 0) + 1
    return found


def _logged(platform: Platform, clause: str) -> Iterable[Mapping[str, Any]]:
    from millpond.serving.prediction_table import PREDICTIONS

    if not platform.lake.exists(PREDICTIONS):
        return []
    snapshot = platform.lake.snapshot(PREDICTIONS)
    with platform.engine() as engine:
        rows = engine.rows(f"SELECT * FROM {engine.scan(snapshot)} {clause}")
    return [dict(zip(snapshot.column_names, row, strict=True)) for row in rows]


def _snapshot(platform: Platform, table: str, number: int) -> Snapshot | None:
    try:
        return platform.lake.snapshot(table, number)
    except NotFound:
        return None


def _reference(table: str, number: int, snapshot: Snapshot | None) -> SnapshotRef:
    if snapshot is None:
        return SnapshotRef(table, number)
    return SnapshotRef(table, snapshot.id, snapshot.committed_at, snapshot.rows)


def _input(name: str, value: Any, behind: FeatureExplanation | None, *, logged: bool) -> FeatureValue:
    if behind is None:
        return FeatureValue(name, value)
    return FeatureValue(
        name=name,
        value=value,
        visible_since=behind.visible_since,
        rows=behind.rows,
        examples=tuple(_key(key) for key in behind.example_rows),
        table=behind.table,
        snapshot_id=behind.snapshot_id,
        recomputed=_equal(value, behind.value) if logged else None,
    )


def _key(key: Mapping[str, Any]) -> str:
    values = [str(value) for value in key.values()]
    return values[0] if len(values) == 1 else f"({', '.join(values)})"


def _equal(served: Any, computed: Any) -> bool:
    if isinstance(served, float) and isinstance(computed, (int, float)):
        return math.isclose(served, computed, rel_tol=TOLERANCE, abs_tol=0.0)
    return bool(served == computed)
