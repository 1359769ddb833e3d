"""The codec of the protocol, as the HTTP wire calls it."""

from __future__ import annotations

from typing import Any

import orjson

from millpond.core.errors import RequestError
from millpond.serving.metadata import model_metadata, server_metadata
from millpond.serving.protocol import format_infer, parse_infer

__all__ = ["format_infer", "model_metadata", "parse_infer", "server_metadata", "timeout_of"]


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
