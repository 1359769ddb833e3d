"""Inference requests as REST has them: JSON, and binary tensors after it.

Source: the Open Inference Protocol, version 2, and its binary tensor data extension,
https://github.com/kserve/open-inference-protocol and https://github.com/triton-inference-server/server.
"""

from __future__ import annotations

import numpy as np
import orjson

from millpond.core.errors import PayloadTooLarge, RequestError
from millpond.serving.ports import InferRequest, ServedModel
from millpond.serving.protocol.documents import load_json, parse_document
from millpond.serving.protocol.matrices import quick_matrix
from millpond.serving.protocol.quick import quick_request
from millpond.serving.protocol.requests import MAX_ROWS
from millpond.serving.protocol.signature import signature_of
from millpond.serving.rows import Rows

#: Longest text that is read a second time for nothing but a better error text.
_EXPLAINED_BYTES = 1 << 20
#: From here on the quick parser may have rounded a whole number.
_ROUNDED = float(1 << 63)


def parse_infer(
    body: bytes, served: ServedModel, *, json_length: int | None = None, max_rows: int = MAX_ROWS
) -> InferRequest:
    """Read the body of an inference request to a version.

    Args:
        body: JSON, UTF-8; with `json_length` binary data of inputs follows it.
        served: The version.
        json_length: The header Inference-Header-Content-Length: how many bytes are JSON.
        max_rows: Most rows that are taken.

    Raises:
        RequestError: It is no request that the version takes; names the model, the input, what was expected and what
            was found.
        PayloadTooLarge: More than `max_rows` rows.
    """
    signature = signature_of(served)
    place = signature.place
    rest = None
    if json_length is not None:
        if not 0 <= json_length <= len(body):
            raise RequestError(
                f"the header Inference-Header-Content-Length is {json_length}, and the body has {len(body)} bytes",
                where=place,
                hint="it says how many bytes of the body are JSON",
            )
        rest = memoryview(body)[json_length:]
        body = body[:json_length]
    else:
        found = quick_matrix(body, signature, max_rows)
        if found is not None:
            return found
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return parse_document(load_json(body, place), served, max_rows, place, rest)
    if rest is None and max_rows > 0:
        found = quick_request(document, signature)
        if found is not None:
            return found
    try:
        request = parse_document(document, served, max_rows, place, rest)
    except PayloadTooLarge:
        raise
    except RequestError:
        if len(body) > _EXPLAINED_BYTES:
            raise
    else:
        if not _rounded(request.rows):
            return request
    return parse_document(load_json(body, place), served, max_rows, place, rest)


def _rounded(rows: Rows) -> bool:
    """Whether a number is so large that the quick parser may have rounded it."""
    columns = rows.given if rows.matrix is None else (rows.matrix,)
    for column in columns:
        if isinstance(column, np.ndarray):
            if column.dtype.kind == "f" and (np.abs(column) >= _ROUNDED).any():
                return True
        elif any(type(value) is float and abs(value) >= _ROUNDED for value in column):
            return True
    return False
