"""The codec of the protocol, as the HTTP wire calls it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from millpond.core.errors import RequestError
from millpond.core.time import from_microseconds, to_microseconds
from millpond.serving import protocol
from millpond.serving.metadata import model_metadata, output_tensors, server_metadata
from millpond.serving.ports import Answer, InferRequest, OutputWanted, Prediction, ServedModel

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["format_infer", "model_metadata", "parse_infer", "server_metadata", "timeout_of"]


def parse_infer(body: bytes, served: ServedModel, *, json_length: int | None = None) -> InferRequest:
    """Read the body of an inference request; `json_length` bytes of it are JSON, where tensors in binary follow.

    Raises:
        RequestError: The body is no request for the model.
    """
    from millpond.serving.rows import Rows

    if json_length is not None:
        what = "the data is in binary, which this server does not take"
        raise RequestError(what, where=f"model {served.model!r}", hint="send it as JSON (binary_data=False)")
    parsed = protocol.parse_request(body, served)
    as_of = to_microseconds(parsed.as_of) if parsed.as_of is not None else None
    wanted = tuple(OutputWanted(name) for name in parsed.outputs)
    return InferRequest(Rows.from_arrow(parsed.rows), as_of=as_of, id=parsed.id, outputs=wanted)


def format_infer(request: InferRequest, answer: Answer) -> tuple[bytes, Sequence[bytes]]:
    """The answer's JSON, and the tensors in binary that follow it."""
    served = answer.served
    as_of = from_microseconds(request.as_of) if request.as_of is not None else None
    names = tuple(each.name for each in request.outputs) or tuple(each["name"] for each in output_tensors(served))
    asked = protocol.InferRequest(None, as_of, request.id, names)  # type: ignore[arg-type]
    (output,) = answer.outputs.values()
    predictions = [_prediction(answer, row, float(value)) for row, value in enumerate(output)]
    return protocol.format_response(asked, served, predictions), ()


def timeout_of(body: bytes, json_length: int | None = None) -> float | None:
    """The seconds that `parameters.timeout` gives, which is in microseconds; None where there is none to read.

    Raises:
        RequestError: It is no positive number.
    """
    if b'"timeout"' not in body:
        return None
    try:
        document: Any = orjson.loads(body if json_length is None else memoryview(body)[:json_length])
        value = document["parameters"]["timeout"]
    except (ValueError, KeyError, TypeError):
        return None  # the body is read again, and what is wrong with it is said then
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise RequestError(
            f"parameters.timeout is {value!r}, expected microseconds", where="parameters", hint="leave it out, or 1000"
        )
    return value / 1e6 if value else None


def _prediction(answer: Answer, row: int, output: float) -> Prediction:
    said = answer.answers[row] if answer.answers is not None else None
    instant = from_microseconds(answer.as_of[row])
    synced = from_microseconds(answer.synced_at) if answer.synced_at is not None else None
    served = answer.served
    return Prediction(
        answer.ids[row], served.model, served.version, instant, instant, "", output, said, {}, {}, {}, 0.0, {}, synced
    )
