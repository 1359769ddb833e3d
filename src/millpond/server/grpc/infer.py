"""ModelInfer: its request message as tensors, and an answer as its response message.

Answers are always in `raw_output_contents`: some clients read nothing else. As protobuf joins encoded messages by
writing one after the other, what is the same in all answers of one shape is encoded once.

Source: https://github.com/kserve/open-inference-protocol; https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from millpond.core.errors import RequestError
from millpond.server.grpc import messages
from millpond.serving.ports import Answer, InferRequest, OutputWanted
from millpond.serving.protocol import OutTensor, Tensor, output_tensors_of, raw_bytes, response_parameters
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


def tensors_of(asked: Any) -> list[Tensor]:
    """The inputs of a ModelInferRequest.

    Raises:
        RequestError: Raw and typed contents are mixed, or there is not one content for each input.
    """
    inputs, raws = asked.inputs, asked.raw_input_contents
    if not raws:
        return [Tensor(each.name, each.datatype, each.shape, _typed(each)) for each in inputs]
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
        found.append(Tensor(each.name, each.datatype, each.shape, raw))
    return found


def _typed(tensor: Any) -> list[Any]:
    field = _CONTENTS.get(tensor.datatype)
    if field is None:
        if tensor.datatype in ("FP16", "BF16"):
            hint = "the protocol has no typed contents for it; use raw_input_contents"
            raise RequestError(f"the input {tensor.name!r} of {tensor.datatype} is not raw", hint=hint)
        return []
    found = list(getattr(tensor.contents, field))
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
    outputs = asked.outputs
    return [OutputWanted(each.name, True) for each in outputs] if outputs else ()


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
