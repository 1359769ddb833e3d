"""What serving needs from the rest, and the nouns of predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class RequestColumn:
    """A column that a request carries.

    Attributes:
        name: The column's name, as in the examples table.
        type: "bool", "int64", "float64", "string" or "instant".
        required: Entity keys and columns of request features are; plain inputs may be null or absent.
        role: "key", "input" or "request".
    """

    name: str
    type: str
    required: bool
    role: str


@dataclass(frozen=True)
class ServedModel:
    """The version that answers for a model.

    Attributes:
        model: The model's name.
        version: The version's number.
        task: "classification" or "regression".
        threshold: Probability from which the answer is yes; None for regression.
        columns: What a request carries.
        at: Name of the request column that is the instant of prediction, or None.
        inputs: Raw inputs of the estimator, in order: name -> type.
    """

    model: str
    version: int
    task: str
    threshold: float | None
    columns: tuple[RequestColumn, ...]
    at: str | None
    inputs: Mapping[str, str]


@dataclass(frozen=True)
class Featurized:
    """The raw model inputs of a request's rows.

    Attributes:
        inputs: One row a request row, in order; columns in the order of `ServedModel.inputs`.
        as_of: The instant at which each row's features were looked up; UTC.
        snapshots: Table -> snapshot id that features were read from.
        events: Table -> position of the last pushed event that was seen beside the snapshot; 0 is none.
        synced_at: Until when the values are known to be complete, where they come from a replica that has lost its
            original; None where nothing is missing.
    """

    inputs: pa.Table
    as_of: tuple[datetime, ...]
    snapshots: Mapping[str, int]
    events: Mapping[str, int] = field(default_factory=dict)
    synced_at: datetime | None = None


class Featurizer(Protocol):
    """Turns request rows into raw model inputs; moves with its version.

    A predictor makes one call at a time, though not always from the same thread.
    """

    def featurize(self, rows: pa.Table, as_of: datetime | None) -> Featurized:
        """Look features up as of `as_of`; where it is None, as of each row's instant of prediction, else now.

        A row's instant that lies ahead counts as now: nothing later can be known.
        """
        ...


class Runtime(Protocol):
    """A loaded estimator. One call at a time, though not always from the same thread."""

    def predict(self, inputs: pa.Table) -> Sequence[float]:
        """Probability of yes, or the number, a row; never null."""
        ...


@dataclass(frozen=True)
class Prediction:
    """One answered row: what the log keeps, and a receipt starts from."""

    id: str
    model: str
    version: int
    predicted_at: datetime
    as_of: datetime
    requested_by: str
    output: float
    answer: bool | None
    request: Mapping[str, Any]
    inputs: Mapping[str, Any]
    snapshots: Mapping[str, int]
    latency_ms: float
    events: Mapping[str, int] = field(default_factory=dict)
    synced_at: datetime | None = None


class PredictionSink(Protocol):
    """Where predictions are durable."""

    def write(self, predictions: Sequence[Prediction]) -> None:
        """Durable when it returns."""
        ...
