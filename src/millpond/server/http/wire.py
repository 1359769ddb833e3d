"""The codec of the protocol, as the HTTP wire calls it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from millpond.core.errors import RequestError
from millpond.serving import protocol
from millpond.serving.protocol import (
    format_infer,
    model_metadata,
    parse_index,
    parse_infer,
    repository_index,
    server_metadata,
)

if TYPE_CHECKING:
    from millpond.serving.ports import Answer, InferRequest, ServedModel

__all__ = [
    "format_infer",
    "format_records",
    "model_metadata",
    "parse_index",
    "parse_infer",
    "parse_records",
    "repository_index",
    "server_metadata",
    "timeout_of",
]


def parse_records(body: bytes, served: ServedModel, *, json_length: int | None = None) -> InferRequest:
    """Read a request of plain JSON records, which has no binary part."""
    if json_length is not None:
        where = "header Inference-Header-Content-Length"
        raise RequestError("records are JSON alone", where=where, hint="send tensors in binary to .../infer")
    return protocol.parse_records(body, served)


def format_records(request: InferRequest, answer: Answer) -> tuple[bytes, list[bytes]]:
    """The answer to a request of plain JSON records."""
    return protocol.format_records(request, answer), []


def timeout_of(body: bytes, json_length: int | None = None) -> float | None:
    """The seconds that `parameters.timeout` gives, which is in microseconds; None where there is none to read.

    Raises:
        RequestError: It is no number of microseconds.
    """
    try:
        document: Any = orjson.loads(body if json_length is None else memoryview(body)[:json_length])
        value = document["parameters"]["timeout"]
    except (ValueError, KeyError, TypeError):
        return None  # the body is read again, and what is wrong with it is said then
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        what = f"parameters.timeout is {value!r}, expected microseconds"
        raise RequestError(what, where="parameters", hint="such as 500000, or leave it out")
    return value / 1e6 if value else None
