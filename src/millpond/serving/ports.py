"""What serving needs from the rest, and the nouns of predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

    from millpond.serving.rows import Column, Rows


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
class OutputColumn:
    """A column of what a runtime gives.

    Attributes:
        name: Its name.
        type: "bool", "int64", "float64" or "string".
        width: Values a row: 0 is one value, more is a vector of that many.
    """

    name: str
    type: str
    width: int = 0


#: What the runtime of a trained model gives: the probability of yes, or the number.
OUTPUT = OutputColumn("output", "float64")


@dataclass(frozen=True)
class LogPolicy:
    """What of a version's answers is logged.

    Attributes:
        sample: Share of requests that are logged, in (0, 1]; chosen by a hash of the prediction id.
        redact: Columns of requests and of raw inputs whose values are never written down.
    """

    sample: float = 1.0
    redact: tuple[str, ...] = ()


@dataclass(frozen=True)
class ServedModel:
    """A version, as who asks it must know it.

    Attributes:
        model: The model's name.
        version: The version's number.
        task: "classification", "regression", or "other": a registered model with outputs of its own.
        threshold: Probability from which the answer is yes; None where the task is not classification.
        columns: What a request carries.
        at: Name of the request column that is the instant of prediction, or None.
        inputs: Raw inputs of the estimator, in order: name -> type.
        outputs: What the runtime gives, in order; `OUTPUT` alone for a trained model.
        matrix: Whether the model takes one unnamed tensor of shape [rows, inputs] and knows no column names.
        logging: What of its answers is logged.
    """

    model: str
    version: int
    task: str
    threshold: float | None
    columns: tuple[RequestColumn, ...]
    at: str | None
    inputs: Mapping[str, str]
    outputs: tuple[OutputColumn, ...] = (OUTPUT,)
    matrix: bool = False
    logging: LogPolicy = LogPolicy()


class OutputWanted(NamedTuple):
    """An output that a request asks for: its name, and whether in binary."""

    name: str
    binary: bool = False


class InferRequest(NamedTuple):
    """An inference request, whatever wire it came by.

    Attributes:
        rows: Request columns, or raw model inputs where `raw`; exactly those that the request carries, conformed to
            their types.
        raw: Whether `rows` are raw model inputs (all of `ServedModel.inputs`, absent ones null), so that no feature
            is looked up.
        as_of: `parameters.as_of`: the instant at which features are looked up, for all rows; microseconds, UTC.
        id: The caller's identifier of the request, or None.
        outputs: The outputs asked for, in order; all of them where the request names none.
        explain: `parameters.explain`: whether contributions of the raw inputs are asked for.
        routing_key: `parameters.routing_key`: which requests belong together when a share of them goes to a canary;
            None leaves it to the entity.
    """

    rows: Rows
    raw: bool = False
    as_of: int | None = None
    id: str | None = None
    outputs: tuple[OutputWanted, ...] = ()
    explain: bool = False
    routing_key: str | None = None


@dataclass(frozen=True)
class Explanation:
    """How raw inputs contributed to each row's output.

    Attributes:
        base: The output's expectation over the training rows, in the space of `unit`.
        contributions: float64 of shape (rows, inputs), in the order of `ServedModel.inputs`; a row's sum and `base`
            are its output in the space of `unit`.
        unit: "log-odds", "probability" or "output".
    """

    base: float
    contributions: Any
    unit: str


class Answer(NamedTuple):
    """What a version answered.

    Attributes:
        served: The version.
        variant: "live", "canary", or "asked" where the caller named the version.
        ids: A prediction id a row.
        outputs: By name of `ServedModel.outputs`: one value a row, or float64 of shape (rows, width).
        answers: `output >= threshold` a row; None where the task is not classification.
        as_of: The instant of each row's features; microseconds, UTC.
        synced_at: See `Featurized.synced_at`; microseconds, UTC.
        explanation: Where it was asked for.
    """

    served: ServedModel
    variant: str
    ids: Sequence[str]
    outputs: Mapping[str, Column]
    answers: Sequence[bool] | None
    as_of: Sequence[int]
    synced_at: int | None = None
    explanation: Explanation | None = None


class Question(NamedTuple):
    """A request on its way to a version. Everything here happens in the thread of one event loop.

    Attributes:
        model: The model's name.
        version: A version's number, as text; None is whichever answers for the model.
        user: Who asks.
        read: Reads the request as one for a version. Raises RequestError; quick, and repeatable.
        done: Called once: with the request and its answer, which is in the prediction log by then, or with an error.
            May be called before `ask` returns.
        deadline: `time.monotonic()` at which the caller stops waiting, or None.
        gone: Whether the caller has gone meanwhile; work that has not begun is then left.
    """

    model: str
    version: str | None
    user: str
    read: Callable[[ServedModel], InferRequest]
    done: Callable[[InferRequest | None, Answer | Exception], None]
    deadline: float | None = None
    gone: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class ModelState:
    """A version as the repository extension lists it: state is "READY", "LOADING", "UNAVAILABLE" or "UNLOADED"."""

    name: str
    version: str
    state: str
    reason: str = ""


class Answering(Protocol):
    """What the wires ask: all versions that a serving process answers for. Used in the thread of one event loop."""

    def ask(self, question: Question) -> None:
        """Answer a question; never raises.

        Errors given to `question.done`:
            NotFound: There is no such model or version, or it was unloaded.
            RequestError: The request does not fit the version.
            Unavailable: The version is loading, has too many requests, or is failing; retry.
            DeadlineExceeded: The deadline passed.
            MillpondError: The model failed.
        """
        ...

    def served(self, model: str, version: str | None = None) -> ServedModel:
        """What a version takes and gives; of the live one where None.

        Raises:
            NotFound: There is none.
        """
        ...

    def state(self, model: str, version: str | None = None) -> ModelState:
        """Whether a version answers now; one that was unloaded, or is being opened, is there and does not.

        Raises:
            NotFound: There is none.
        """
        ...

    def index(self) -> Sequence[ModelState]:
        """Every model's versions that are deployed, and models that were unloaded."""
        ...

    def load(self, model: str) -> None:
        """Let a model answer again.

        Raises:
            NotFound: There is none.
        """
        ...

    def unload(self, model: str) -> None:
        """Stop answering for a model, on every worker and after restarts too, until it is loaded.

        Raises:
            NotFound: There is none.
        """
        ...


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
    """Turns request rows into raw model inputs; moves with its version. Used by one thread."""

    def featurize(self, rows: pa.Table, as_of: datetime | None) -> Featurized:
        """Look features up as of `as_of`; where it is None, as of each row's instant of prediction, else now.

        A row's instant that lies ahead counts as now: nothing later can be known.
        """
        ...


class Runtime(Protocol):
    """What runs a version's model for who waits. Used by one thread."""

    def predict(self, inputs: pa.Table) -> Mapping[str, Column]:
        """The outputs of raw inputs, by the names of `ServedModel.outputs`, in order.

        Args:
            inputs: At least one row of the columns of `ServedModel.inputs`, in their types.

        Raises:
            MillpondError: The model refuses a value or failed; or, of a trained version, an answer is no finite number.
            Unavailable: Its process has ended.
        """
        ...


@dataclass(frozen=True)
class Prediction:
    """One answered row, as the log gives it back, and a receipt starts from.

    `output` is the first number of `outputs`, NaN where none is one; `outputs` is empty where there is only it.
    """

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
    outputs: Mapping[str, Any] = field(default_factory=dict)


def first_number(outputs: Mapping[str, Any]) -> float:
    """The first of a row's outputs that is a number; NaN where none is."""
    return next((float(each) for each in outputs.values() if isinstance(each, (int, float))), float("nan"))


class LogRecord(NamedTuple):
    """The answers to one request, as the prediction log takes them.

    Attributes:
        answer: What was answered; of a shadow, what would have been.
        request: The request's rows.
        raw: Whether those are raw model inputs.
        inputs: The raw model inputs that the version saw.
        predicted_at: Microseconds, UTC.
        requested_by: Who asked.
        latency_us: Microseconds from the request's arrival to the scores.
        request_id: The caller's identifier of the request, or None.
        snapshots: Table -> snapshot id that features were read from.
        events: Table -> position of the last pushed event seen beside it.
        shadow_of: Version that answered the caller instead; None where this one did.
    """

    answer: Answer
    request: Rows
    raw: bool
    inputs: Rows
    predicted_at: int
    requested_by: str
    latency_us: int
    request_id: str | None = None
    snapshots: Mapping[str, int] = MappingProxyType({})
    events: Mapping[str, int] = MappingProxyType({})
    shadow_of: int | None = None


class PredictionSink(Protocol):
    """Where answers are durable."""

    def write(self, records: Sequence[LogRecord]) -> None:
        """Durable when it returns; all of them or none."""
        ...
