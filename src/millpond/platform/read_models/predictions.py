"""What is shown of predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from millpond.platform.read_models.tables import SnapshotRef


@dataclass(frozen=True)
class PredictionLine:
    """A prediction in one line; `answer` is None for regression, `outputs` as of `Receipt`."""

    id: str
    model: str
    version: int
    predicted_at: datetime
    requested_by: str
    answer: bool | None
    output: float
    outputs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FeatureValue:
    """The value of one model input behind a prediction.

    Attributes:
        name: Such as "airport_traffic__mean_delay_1h", or a request column.
        value: As the model saw it; None for null.
        visible_since: When it became what it was: the newest instant at which a row behind it became visible; UTC;
            None where it came with the request, or no row was visible.
        rows: Number of source rows behind it; None where it came with the request.
        examples: Keys of up to 5 of those rows, as text.
        table: The table they came from, or None.
        snapshot_id: The snapshot of it, or None.
        recomputed: Whether the value came out equal when it was computed again from that snapshot (floating values
            to a relative 1e-9); None where it came with the request, where the snapshot is gone, or where no
            input was logged to compare with, as of a batch.
    """

    name: str
    value: Any
    visible_since: datetime | None = None
    rows: int | None = None
    examples: tuple[str, ...] = ()
    table: str | None = None
    snapshot_id: int | None = None
    recomputed: bool | None = None


@dataclass(frozen=True)
class Receipt:
    """Everything behind one prediction.

    Attributes:
        id: The prediction's id.
        model: The model's name.
        version: The version that answered.
        task: "classification" or "regression"; "other" of a model that was registered.
        output: Probability of yes, or the number; the first number of `outputs`, NaN where none is one.
        answer: Yes or no at `threshold`; None for regression.
        threshold: Probability from which the answer is yes; None for regression.
        predicted_at: When it was answered; UTC.
        as_of: The instant at which features were looked up; UTC.
        requested_by: The identity that asked.
        latency_ms: Milliseconds in the serving worker.
        request: What the request carried.
        inputs: The model's inputs with where they came from, in the model's order.
        snapshots: The snapshots that features were read from.
        code_commit: Commit of the project's code that the version was trained with, or None.
        code_dirty: Whether there were uncommitted changes (kept with the version).
        run_id: The MLflow run that trained the version.
        trained_by: Who trained the version.
        trained_at: UTC.
        redacted: Columns of the request and inputs that the log does not keep.
        outputs: All outputs by name, of a model that was registered; empty where `output` is all.
    """

    id: str
    model: str
    version: int
    task: str
    output: float
    answer: bool | None
    threshold: float | None
    predicted_at: datetime
    as_of: datetime
    requested_by: str
    latency_ms: float
    request: Mapping[str, Any]
    inputs: tuple[FeatureValue, ...]
    snapshots: tuple[SnapshotRef, ...]
    code_commit: str | None
    code_dirty: bool
    run_id: str
    trained_by: str
    trained_at: datetime
    redacted: tuple[str, ...] = ()
    outputs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """One answered row; `receipt` is the page of its receipt, `variant` is "live", or "canary" during a release.

    `outputs` has all outputs by name, of a model that was registered; `output` is then the first of them.
    """

    prediction_id: str
    model: str
    version: int
    output: Any
    answer: bool | None
    threshold: float | None
    as_of: datetime
    variant: str = "live"
    warnings: tuple[str, ...] = field(default=())
    outputs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def receipt(self) -> str:
        return f"/predictions/{self.prediction_id}"
