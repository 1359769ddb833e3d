"""ModelInfer: from its request message, through an `Answering`, to its response message.

Answers are always in `raw_output_contents`: some clients read nothing else. As protobuf joins encoded messages by
writing one after the other, what is the same in all answers of one shape is encoded once.

Source: https://github.com/kserve/open-inference-protocol; https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from google.protobuf.message import DecodeError

from millpond.core.errors import NotFound, RequestError
from millpond.server.grpc import messages
from millpond.server.grpc.calls import fail, reply
from millpond.server.grpc.sending import Stream
from millpond.server.grpc.status import DEADLINE_EXCEEDED, OK, code_of, http_status
from millpond.serving.ports import Answer, Answering, InferRequest, OutputWanted, ServedModel
from millpond.serving.protocol import OutTensor, Tensor, output_tensors_of, raw_bytes, request_of, response_parameters
from millpond.serving.protocol.tensors import NO_PARAMETERS

#: The field of InferTensorContents that holds a datatype's elements; the 16-bit floats have none.
_CONTENTS: Mapping[str, str] = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_RAW_TAG = bytes((6 << 3 | 2,))
_ID_TAG = bytes((3 << 3 | 2,))
#: Encoded openings of answers that are remembered.
_REMEMBERED = 512


class Metrics(Protocol):
    """Counts inferences.

    Attributes:
        waiting: Inferences that were asked and not answered yet; kept by who asks.
    """

    waiting: int

    def observe(self, model: str, version: str, variant: str, code: int, rows: int, seconds: float) -> None:
        """Count one inference: its status as one of HTTP, the rows it was answered for, and how long it took."""
        ...


class Inference:
    """A `serving.ports.Question` that came by ModelInfer; counted when it is answered.

    Args:
        stream: Where the answer goes.
        responses: Encodes it.
        metrics: Counts it.
    """

    __slots__ = (
        "_asked",
        "_began",
        "_finished",
        "_label",
        "_metrics",
        "_parameters",
        "_responses",
        "_stream",
        "_tensors",
        "deadline",
        "model",
        "user",
        "version",
    )

    def __init__(self, stream: Stream, responses: Responses, metrics: Metrics | None) -> None:
        self._stream = stream
        self._responses = responses
        self._metrics = metrics
        self._label = ("", "")  # model and version that it is counted under
        self._finished = False
        self.deadline: float | None = stream.deadline
        if metrics is not None:
            metrics.waiting += 1
            self._began = time.monotonic()

    def ask(self, answering: Answering, user: str, message: bytes) -> None:
        """Ask what a ModelInferRequest says."""
        try:
            self._asked = asked = parse(messages.ModelInferRequest, message)
            self._tensors = tensors_of(asked)
            self._parameters = parameters_of(asked.parameters)
            self.model, self.version, self.user = asked.model_name, asked.model_version or None, user
            self._label = (asked.model_name, "")
            answering.ask(self)
        except Exception as error:
            self.done(None, error)

    def read(self, served: ServedModel) -> InferRequest:
        """See `serving.ports.Question`."""
        asked = self._asked
        self._label = (self.model, str(served.version))
        return request_of(self._tensors, served, self._parameters, asked.id or None, outputs_of(asked), binary=True)

    def done(self, request: InferRequest | None, answer: Answer | Exception) -> None:
        """See `serving.ports.Question`."""
        if self._finished:
            return
        if request is None or isinstance(answer, Exception):
            self._fail(answer)
            return
        stream = self._stream
        late = stream.answered
        try:
            encoded = b"" if stream.gone else self._responses.encode(request, answer)
        except Exception as error:
            self._fail(error)
            return
        reply(stream, encoded)
        self._count(answer.variant, DEADLINE_EXCEEDED if late else OK, 0 if late else len(answer.ids))

    def gone(self) -> bool:
        """See `serving.ports.Question`."""
        return self._stream.is_gone()

    def _fail(self, error: Any) -> None:
        fail(self._stream, error)
        if isinstance(error, NotFound):  # callers must not make new series
            self._label = ("", "")
        self._count("", code_of(error), 0)

    def _count(self, variant: str, code: int, rows: int) -> None:
        self._finished = True
        if self._metrics is not None:
            self._metrics.waiting -= 1
            seconds = time.monotonic() - self._began
            self._metrics.observe(*self._label, variant, http_status(code), rows, seconds)


def parse(kind: Any, message: bytes) -> Any:
    """A message of a kind.

    Raises:
        RequestError: It is none.
    """
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise RequestError(
            f"the message is no {kind.DESCRIPTOR.name}", hint="use the messages of the Open Inference Protocol"
        ) from error


def tensors_of(asked: Any) -> list[Tensor]:
    """The inputs of a ModelInferRequest.

    Raises:
        RequestError: Raw and typed contents are mixed, or there is not one content for each input.
    """
    # Slices: protobuf's iterators are several times slower.
    inputs, raws = asked.inputs[:], asked.raw_input_contents[:]
    if not raws:
        return [Tensor(each.name, each.datatype, each.shape[:], _typed(each)) for each in inputs]
    place = f"model {asked.model_name!r}"
    if len(raws) != len(inputs):
        raise RequestError(
            f"there are {len(inputs)} inputs and {len(raws)} raw_input_contents",
            where=place,
            hint="send one of raw_input_contents for each input, in their order",
        )
    found = []
    for each, raw in zip(inputs, raws, strict=True):
        if each.HasField("contents"):
            hint = "where there are raw_input_contents, no input has contents"
            raise RequestError("contents and raw_input_contents are mixed", where=_where(asked, each), hint=hint)
        found.append(Tensor(each.name, each.datatype, each.shape[:], raw))
    return found


def _typed(tensor: Any) -> list[Any]:
    field = _CONTENTS.get(tensor.datatype)
    if field is None:
        if tensor.datatype in ("FP16", "BF16"):
            hint = "the protocol has no typed contents for it; use raw_input_contents"
            raise RequestError(f"the input {tensor.name!r} of {tensor.datatype} is not raw", hint=hint)
        return []
    found: list[Any] = getattr(tensor.contents, field)[:]
    if not found and (others := [each.name for each, _ in tensor.contents.ListFields()]):
        raise RequestError(
            f"the contents of the input {tensor.name!r} are in {others[0]}, and its datatype is {tensor.datatype}",
            hint=f"{tensor.datatype} goes into {field}",
        )
    return found


def _where(asked: Any, tensor: Any) -> str:
    return f"model {asked.model_name!r}, input {tensor.name!r}"


def parameters_of(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Parameters of a message as Python values; one that is empty is left out."""
    if not given:
        return NO_PARAMETERS
    chosen = ((name, value.WhichOneof("parameter_choice"), value) for name, value in given.items())
    return {name: getattr(value, choice) for name, choice, value in chosen if choice is not None}


def outputs_of(asked: Any) -> Sequence[OutputWanted]:
    """The outputs that a ModelInferRequest asks for."""
    return [OutputWanted(each.name, True) for each in asked.outputs[:]]


class Responses:
    """Encodes answers."""

    def __init__(self) -> None:
        self._openings: dict[tuple[object, ...], bytes] = {}

    def encode(self, request: InferRequest, answer: Answer) -> bytes:
        """The encoded ModelInferResponse that answers a request.

        Raises:
            ValueError: An output holds a null that its datatype does not have.
        """
        tensors = output_tensors_of(request, answer)
        parts = [self._opening(request, answer, tensors)]
        if request.id is not None:
            text = request.id.encode()
            parts += (_ID_TAG, _varint(len(text)), text)
        for each in tensors:
            raw = raw_bytes(each)
            parts += (_RAW_TAG, _varint(len(raw)), raw)
        return b"".join(parts)

    def _opening(self, request: InferRequest, answer: Answer, tensors: Sequence[OutTensor]) -> bytes:
        """All but the id and the values. A version is immutable, so few things tell one opening from another."""
        if request.as_of is not None or answer.synced_at is not None:
            return _encoded_opening(request, answer, tensors)
        served = answer.served
        key = (served.model, served.version, answer.variant, request.outputs, request.explain, len(answer.ids))
        known = self._openings.get(key)
        if known is None:
            if len(self._openings) >= _REMEMBERED:
                self._openings.clear()
            known = self._openings[key] = _encoded_opening(request, answer, tensors)
        return known


def _encoded_opening(request: InferRequest, answer: Answer, tensors: Sequence[OutTensor]) -> bytes:
    message = messages.ModelInferResponse(
        model_name=answer.served.model,
        model_version=str(answer.served.version),
        outputs=[_told(each) for each in tensors],
    )
    for name, value in response_parameters(request, answer).items():
        message.parameters[name].string_param = value
    encoded: bytes = message.SerializeToString()
    return encoded


def _told(tensor: OutTensor) -> dict[str, Any]:
    parameters = {name: {"string_param": str(value)} for name, value in tensor.parameters.items()}
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape, "parameters": parameters}


def _varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
