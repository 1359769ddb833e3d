"""From request rows to durable predictions, for whoever waits: featurize, run the model, log, answer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from millpond.core.errors import MillpondError
from millpond.core.ids import new_id
from millpond.core.time import from_microseconds, now, to_microseconds
from millpond.serving.columns import conform
from millpond.serving.engine.loaded import thresholded
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
    first_number,
)
from millpond.serving.protocol.signature import signature_of
from millpond.serving.rows import Rows

if TYPE_CHECKING:
    import pyarrow as pa

    from millpond.serving.rows import Column


@dataclass(frozen=True)
class Predictor:
    """Answers for one version, as the engine does for those who do not wait. Used by one thread.

    Attributes:
        served: The version.
        runtime: Runs its model.
        featurizer: Makes raw inputs of request rows.
        log: Where answers are durable.
    """

    served: ServedModel
    runtime: Runtime
    featurizer: Featurizer
    log: PredictionSink

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
        started = time.perf_counter()
        request = conform(rows, self.served)
        featurized = self.featurizer.featurize(request, as_of)
        self._check(featurized, request)
        outputs = self.runtime.predict(featurized.inputs)
        record = self._record(request, featurized, outputs, requested_by, time.perf_counter() - started)
        self.log.write([record])
        return _predictions(record, request, featurized)

    def _check(self, featurized: Featurized, request: pa.Table) -> None:
        expected, found = list(self.served.inputs), featurized.inputs.column_names
        counts = {featurized.inputs.num_rows, len(featurized.as_of)}
        if found != expected or counts != {request.num_rows}:
            name = f"version {self.served.version} of model {self.served.model!r}"
            raise MillpondError(
                f"the features of {name} came as {featurized.inputs.num_rows} rows of {found} "
                f"with {len(featurized.as_of)} instants, expected {request.num_rows} rows of {expected}",
                where=name,
                hint="train and deploy the model again with the present definitions",
            )

    def _record(
        self,
        request: pa.Table,
        featurized: Featurized,
        outputs: Mapping[str, Column],
        requested_by: str,
        seconds: float,
    ) -> LogRecord:
        served, synced_at = self.served, featurized.synced_at
        answer = Answer(
            served=served,
            variant="live",
            ids=RowIds(new_id("p"), request.num_rows),
            outputs=outputs,
            answers=thresholded(served, outputs),
            as_of=[to_microseconds(each) for each in featurized.as_of],
            synced_at=None if synced_at is None else to_microseconds(synced_at),
        )
        return LogRecord(
            answer=answer,
            request=Rows.from_arrow(request),
            raw=signature_of(served).same,
            inputs=Rows.from_arrow(featurized.inputs),
            predicted_at=to_microseconds(now()),
            requested_by=requested_by,
            latency_us=round(seconds * 1e6),
            snapshots=featurized.snapshots,
            events=featurized.events,
        )


def _predictions(record: LogRecord, request: pa.Table, featurized: Featurized) -> list[Prediction]:
    """The answers of a record, as reading the log would give them."""
    answer, served = record.answer, record.answer.served
    requests, inputs = request.to_pylist(), featurized.inputs.to_pylist()
    found = []
    for row, id in enumerate(answer.ids):
        outputs = {name: _plain(column[row]) for name, column in answer.outputs.items()}
        found.append(
            Prediction(
                id=id,
                model=served.model,
                version=served.version,
                predicted_at=from_microseconds(record.predicted_at),
                as_of=featurized.as_of[row],
                requested_by=record.requested_by,
                output=first_number(outputs),
                answer=None if answer.answers is None else answer.answers[row],
                request=requests[row],
                inputs=inputs[row],
                snapshots=record.snapshots,
                latency_ms=record.latency_us / 1000,
                events=record.events,
                synced_at=featurized.synced_at,
                outputs={} if served.outputs == (OUTPUT,) else outputs,
            )
        )
    return found


def _plain(value: Any) -> Any:
    """A value of an output as plain Python, a vector as a list; NaN is None."""
    plain = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(plain, list):
        return [_plain(each) for each in plain]
    return None if plain != plain else plain  # noqa: PLR0124
