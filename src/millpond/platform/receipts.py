"""What is behind a prediction, recomputed from the pinned snapshots that it was made from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from millpond.core.errors import NotFound
from millpond.features.ports import PinnedView
from millpond.lake.ports import Snapshot
from millpond.platform import logged, versions
from millpond.platform.batch_receipts import find_in_batches
from millpond.platform.events import land_or_wait
from millpond.platform.log_policies import policies
from millpond.platform.platform import Platform
from millpond.platform.read_models import FeatureValue, Receipt, SnapshotRef
from millpond.serving.ports import Prediction, ServedModel

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

    made, was_logged = find(platform, prediction_id)
    loaded = versions.load(platform, platform.store.version(made.model, made.version))
    lineage = platform.store.lineage(loaded.version)
    pushed = [table for table, position in made.events.items() if position]
    land_or_wait(platform, pushed)
    snapshots = {
        table: platform.lake.snapshot(table) if table in pushed else _snapshot(platform, table, number)
        for table, number in made.snapshots.items()
    }
    redacted = tuple(name for name in loaded.redacted if was_logged and _absent(made, name))
    views = [
        PinnedView(view, snapshot)
        for view in loaded.views
        if (snapshot := snapshots.get(view.source.name)) is not None and not {*view.entity.keys} & {*redacted}
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
        inputs=tuple(
            _input(name, value, behind.get(name), compared=was_logged and name not in redacted)
            for name, value in _all_inputs(made, loaded.served, redacted).items()
        ),
        snapshots=tuple(_reference(table, number, snapshots[table]) for table, number in made.snapshots.items()),
        code_commit=lineage.code.commit,
        code_dirty=lineage.code.dirty,
        run_id=loaded.version.run_id,
        trained_by=loaded.version.created_by,
        trained_at=loaded.version.created_at,
        redacted=redacted,
        outputs=made.outputs,
    )


def find(platform: Platform, prediction_id: str) -> tuple[Prediction, bool]:
    """A prediction, from the spool, the log in the lake, or a table that a batch wrote; and whether its inputs were
    logged, which those of a batch are not.

    Raises:
        NotFound: There is none of that id.
    """
    found = logged.find(platform, prediction_id)
    if found is not None:
        return found, True
    batch = find_in_batches(platform, prediction_id)
    if batch is not None:
        return batch, False
    hint = "an id is in every answer, such as p_06f3...; the newest ones: millpond status"
    left_out = list(_left_out(platform, prediction_id))
    if left_out:
        hint = f"{'; '.join(left_out)}: if that answered, the prediction was not logged, and has no receipt"
    raise NotFound(f"There is no prediction {prediction_id!r}", hint=hint)


def _left_out(platform: Platform, prediction_id: str) -> Iterable[str]:
    """The models that log a share of their requests to which one of this id does not belong."""
    from millpond.serving.log.ids import may_be_left_out

    for model in platform.store.models():
        version = versions.champion(platform, model)
        if version is not None:
            share = policies(platform, version).least_sample
            if may_be_left_out(prediction_id, share):
                yield f"{version} logs {share:.3%} of its requests, and one of this id is not among them"


def _absent(made: Prediction, name: str) -> bool:
    """Whether the log holds no value of a column."""
    return made.inputs.get(name) is None and made.request.get(name) is None


def _all_inputs(made: Prediction, served: ServedModel, redacted: Iterable[str]) -> Mapping[str, Any]:
    """The logged inputs, and null for those that are redacted."""
    names = {*made.inputs, *redacted}
    return {name: made.inputs.get(name) for name in served.inputs if name in names}


def _snapshot(platform: Platform, table: str, number: int) -> Snapshot | None:
    try:
        return platform.lake.snapshot(table, number)
    except NotFound:
        return None


def _reference(table: str, number: int, snapshot: Snapshot | None) -> SnapshotRef:
    if snapshot is None:
        return SnapshotRef(table, number)
    return SnapshotRef(table, snapshot.id, snapshot.committed_at, snapshot.rows)


def _input(name: str, value: Any, behind: FeatureExplanation | None, *, compared: bool) -> FeatureValue:
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
        recomputed=_equal(value, behind.value) if compared else None,
    )


def _key(key: Mapping[str, Any]) -> str:
    values = [str(value) for value in key.values()]
    return values[0] if len(values) == 1 else f"({', '.join(values)})"


def _equal(served: Any, computed: Any) -> bool:
    if isinstance(served, float) and isinstance(computed, (int, float)):
        return math.isclose(served, computed, rel_tol=TOLERANCE, abs_tol=0.0)
    return bool(served == computed)
