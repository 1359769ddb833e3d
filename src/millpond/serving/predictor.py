"""From request rows to durable predictions: featurize, run the estimator, log, answer."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from millpond.core.errors import MillpondError
from millpond.core.ids import new_id
from millpond.core.time import now, to_microseconds
from millpond.serving.columns import conform
from millpond.serving.log.ids import RowIds
from millpond.serving.ports import (
    OUTPUT,
    Answer,
    Featurized,
    Featurizer,
    LogRecord,
    Prediction,
    PredictionSink,
    Runtime,
    ServedModel,
)
from millpond.serving.rows import Rows

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Scored:
    """Answers for rows, in their order, before they are logged.

    Attributes:
        rows: The request rows, conformed.
        featurized: The estimator's inputs and what they were read from.
        ids: A new prediction id a row.
        outputs: Probability of yes, or the number; finite.
        answers: `output >= threshold`; None each for regression.
        scored_at: When the estimator had answered; UTC.
        latency_ms: Milliseconds that the whole call took, waiting for the model included.
    """

    rows: pa.Table
    featurized: Featurized
    ids: Sequence[str]
    outputs: tuple[float, ...]
    answers: tuple[bool | None, ...]
    scored_at: datetime
    latency_ms: float


class Predictor:
    """Answers for one version. Safe across threads: calls of featurizer and runtime are made one at a time."""

    def __init__(self, served: ServedModel, runtime: Runtime, featurizer: Featurizer, log: PredictionSink) -> None:
        self.served = served
        self._runtime = runtime
        self._featurizer = featurizer
        self._log = log
        self._turn = threading.Lock()

    def predict(self, rows: pa.Table, as_of: datetime | None, requested_by: str) -> list[Prediction]:
        """Answer the rows, in order; every answer is durable in the prediction log when this returns.

        Args:
            rows: Request rows; see `columns.conform` for what is accepted.
            as_of: The instant of the features of all rows; None takes each row's own, else now.
            requested_by: Who asks.

        Raises:
            RequestError: The rows do not fit the model.
            Unavailable: The answers could not be made durable; nothing was logged.
            MillpondError: The model failed, or answered something that is no finite number.
        """
        scored = self.score(rows, as_of)
        self._log.write([self._record(scored, requested_by)])
        return self._predictions(scored, requested_by)

    def score(self, rows: pa.Table, as_of: datetime | None) -> Scored:
        """Answer the rows without logging. Same arguments and errors as `predict`."""
        started = time.perf_counter()
        rows = conform(rows, self.served)
        with self._turn:
            featurized = self._featurizer.featurize(rows, as_of)
            self._check_featurized(featurized, rows)
            outputs = tuple(self._runtime.predict(featurized.inputs))
        self._check_outputs(outputs, rows)
        threshold = self.served.threshold
        answers = tuple(None if threshold is None else output >= threshold for output in outputs)
        ids = RowIds(new_id("p"), len(outputs))
        latency_ms = (time.perf_counter() - started) * 1000
        return Scored(rows, featurized, ids, outputs, answers, now(), latency_ms)

    def _check_featurized(self, featurized: Featurized, rows: pa.Table) -> None:
        expected, found = list(self.served.inputs), featurized.inputs.column_names
        counts = {featurized.inputs.num_rows, len(featurized.as_of)}
        if found != expected or counts != {rows.num_rows}:
            raise MillpondError(
                f"the features of {self._name} came as {featurized.inputs.num_rows} rows of {found} "
                f"with {len(featurized.as_of)} instants, expected {rows.num_rows} rows of {expected}",
                where=self._name,
                hint="train and deploy the model again with the present definitions",
            )

    def _check_outputs(self, outputs: Sequence[float], rows: pa.Table) -> None:
        if len(outputs) != rows.num_rows:
            what = f"{self._name} gave {len(outputs)} answers for {rows.num_rows} rows"
            raise MillpondError(what, where=self._name, hint="look at the estimator's predict method")
        for row, output in enumerate(outputs):
            if not math.isfinite(output):
                raise MillpondError(
                    f"{self._name} answered {output} in row {row}, which is no finite number",
                    where=self._name,
                    hint="look at the inputs of that row; retrain, or roll back to an earlier version",
                )

    def _record(self, scored: Scored, requested_by: str) -> LogRecord:
        featurized, served = scored.featurized, self.served
        synced_at = featurized.synced_at
        answer = Answer(
            served=served,
            variant="live",
            ids=scored.ids,
            outputs={OUTPUT.name: list(scored.outputs)},
            answers=None if served.threshold is None else [bool(each) for each in scored.answers],
            as_of=[to_microseconds(each) for each in featurized.as_of],
            synced_at=None if synced_at is None else to_microseconds(synced_at),
        )
        return LogRecord(
            answer=answer,
            request=Rows.from_arrow(scored.rows),
            raw=False,
            inputs=Rows.from_arrow(featurized.inputs),
            predicted_at=to_microseconds(scored.scored_at),
            requested_by=requested_by,
            latency_us=round(scored.latency_ms * 1000),
            snapshots=featurized.snapshots,
            events=featurized.events,
        )

    def _predictions(self, scored: Scored, requested_by: str) -> list[Prediction]:
        featurized = scored.featurized
        requests, inputs = scored.rows.to_pylist(), featurized.inputs.to_pylist()
        return [
            Prediction(
                id=scored.ids[row],
                model=self.served.model,
                version=self.served.version,
                predicted_at=scored.scored_at,
                as_of=featurized.as_of[row],
                requested_by=requested_by,
                output=scored.outputs[row],
                answer=scored.answers[row],
                request=requests[row],
                inputs=inputs[row],
                snapshots=featurized.snapshots,
                events=featurized.events,
                synced_at=featurized.synced_at,
                latency_ms=scored.latency_ms,
            )
            for row in range(len(scored.ids))
        ]

    @property
    def _name(self) -> str:
        return f"version {self.served.version} of model {self.served.model!r}"
