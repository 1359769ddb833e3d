"""The short way through requests that are one matrix of numbers: their data is read straight from the text.

All of a request but its data is its head. Heads come again and again: how a request with such a head is read is worked
out once, and kept by the very bytes before and after the data. Where a head holds an id or parameters, which differ
from request to request, the head alone is read as JSON, and what is left of it without them is known.

The short way decides only that a request is right: whatever is in doubt gives None, and is read the exact way, which
comes to the same request or says what is wrong.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import orjson

from millpond.serving.ports import InferRequest, OutputWanted
from millpond.serving.protocol.columns import are_whole
from millpond.serving.protocol.datatypes import INTEGERS, LAYOUTS
from millpond.serving.protocol.heads import DOUBTS, HEAD_BYTES, outputs_of, remember, with_parameters
from millpond.serving.protocol.numbers import FRACTIONS, NULLS, NumberReader, ReaderOfThread
from millpond.serving.protocol.readers import CODES
from millpond.serving.protocol.signature import Signature
from millpond.serving.rows import Rows

#: Stands for the data in a head that is kept: no JSON has this byte, so that heads are equal where all around is.
_CUT = b"\0"
#: Stands for the data in a head that is read. Nobody else knows it: whatever field is this is the one that was cut.
_TOKEN = os.urandom(16).hex()
_QUOTED = orjson.dumps(_TOKEN)

#: Bytes of the shortest request around its data.
_AROUND = len('{"inputs":[{"name":"","shape":[1,1],"datatype":"FP64","data":[]}]}')

_THREAD = ReaderOfThread()

#: `InferRequest` of all its fields, without looking for defaults.
_request: Callable[[tuple[Any, ...]], InferRequest] = partial(tuple.__new__, InferRequest)


class MatrixPlan(NamedTuple):
    """How a request with a certain head is read.

    Attributes:
        outputs: The outputs that it asks for.
        shape: Rows and columns.
        numbers: How many there are.
        refused: What must not be among them; see `numbers`.
        bounds: The least and the greatest that the datatype holds; None where it is float64.
        layout: Of the datatype, where numbers are rounded to it; else empty.
    """

    outputs: tuple[OutputWanted, ...]
    shape: tuple[int, int]
    numbers: int
    refused: int = 0
    bounds: tuple[float, float] | None = None
    layout: str = ""


def quick_matrix(body: bytes, signature: Signature, max_rows: int) -> InferRequest | None:
    """The request that a text holds, or None where that is in doubt.

    Args:
        body: JSON.
        signature: Of the version.
        max_rows: Most rows that are taken.
    """
    if not signature.matrices or len(body) < _AROUND + 2 * signature.width - 1:  # a digit and a comma a column
        return None
    reader = _THREAD.reader
    found = reader.find(body, max_rows * signature.width)
    if found is None:
        return None
    start, end, count, rows, flags = found
    if count % signature.width or len(body) - (end - start) > HEAD_BYTES:
        return None
    before, after = body[:start], body[end:]
    head = _CUT.join((before, after))
    plan = signature.heads.get(head)
    request_id = parameters = None
    try:
        if plan is None:
            plan, request_id, parameters = _read_head(_QUOTED.join((before, after)), head, signature)
        if (
            count != plan.numbers
            or flags & plan.refused
            or plan.shape[0] > max_rows
            or (rows and rows != plan.shape[0])
        ):
            return None
        matrix = _matrix(plan, reader, signature)
        if matrix is None:
            return None
        given = Rows(plan.shape[0], signature.raw_names, (), matrix)
        request = _request((given, True, None, request_id, plan.outputs, False, None))
        return request if parameters is None else with_parameters(request, parameters, signature)
    except DOUBTS:
        return None


def _matrix(plan: MatrixPlan, reader: NumberReader, signature: Signature) -> Any:
    if plan.bounds is not None:
        least, most = reader.bounds
        if least < plan.bounds[0] or most > plan.bounds[1]:
            return None
    matrix = reader.matrix(plan.shape)
    if plan.layout:
        matrix = matrix.astype(plan.layout).astype(np.float64)
    if signature.whole and not are_whole(matrix[:, signature.whole]):
        return None
    return matrix


def _read_head(text: bytes, head: bytes, signature: Signature) -> tuple[MatrixPlan, str | None, Any]:
    """How a request with a head is read, its id, and its parameters. Raises one of `DOUBTS`."""
    document = orjson.loads(text)
    request_id = document.pop("id", None)
    parameters = document.pop("parameters", None)
    (tensor,) = document["inputs"]
    if tensor.pop("data") != _TOKEN or not (request_id is None or type(request_id) is str):
        raise ValueError
    rest = orjson.dumps(document)
    plan = signature.heads.get(rest)
    if plan is None:
        plan = _plan(document, tensor, signature)
        remember(signature.heads, rest, plan)
    if request_id is None and parameters is None:
        remember(signature.heads, head, plan)
    return plan, request_id, parameters


def _plan(document: dict[str, Any], tensor: dict[str, Any], signature: Signature) -> MatrixPlan:
    name, (count, width), datatype = tensor["name"], tensor["shape"], tensor["datatype"]
    outputs = outputs_of(document, signature)
    if type(name) is not str or tensor.get("parameters") is not None:
        raise ValueError
    if type(count) is not int or type(width) is not int or width != signature.width or count < 1:
        raise ValueError
    if datatype not in CODES or (not signature.matrix and (name in signature.columns or name in signature.raws)):
        raise ValueError
    plan = MatrixPlan(outputs, (count, width), count * width)
    if datatype in INTEGERS:
        return plan._replace(refused=FRACTIONS | NULLS, bounds=INTEGERS[datatype])
    if datatype == "FP64":
        return plan
    most = float(np.finfo(LAYOUTS[datatype]).max)
    return plan._replace(bounds=(-most, most), layout=LAYOUTS[datatype])
