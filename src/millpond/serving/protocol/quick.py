"""The short way through the most frequent JSON requests: a matrix of numbers, and one row in tensors of its own.

It decides only that a request is right. Whatever is in doubt gives None, and is read the exact way, which comes to the
same request or says what is wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from itertools import chain
from math import hypot, nan
from typing import Any, NamedTuple

import numpy as np
import orjson

from millpond.core.time import parse_instant, to_microseconds
from millpond.serving.ports import RequestColumn
from millpond.serving.protocol.columns import read_matrix
from millpond.serving.protocol.datatypes import EXACT, INT64, INTEGERS, NUMBERS, allowed_datatypes
from millpond.serving.protocol.signature import Signature
from millpond.serving.rows import Rows

#: What is raised where something is not as it mostly is.
DOUBTS = (KeyError, TypeError, ValueError, AttributeError, OverflowError, struct.error)

#: Heads of requests that are remembered for a version, and their longest.
_HEADS = 256
_HEAD_BYTES = 16_384


class Plan(NamedTuple):
    """How a request of one row is read whose head, which is all but its data, was seen before.

    Attributes:
        raw: Whether the tensors are raw model inputs.
        names: Columns of the rows.
        readers: For each tensor in order: how its value is read. Empty where all are numbers for a matrix.
        order: For each column: the position of its tensor, or -1 where it is absent.
        straight: Whether the order is that of the tensors.
    """

    raw: bool
    names: tuple[str, ...]
    readers: tuple[Callable[[Any], Any], ...]
    order: tuple[int, ...]
    straight: bool


def quick_rows(
    inputs: list[dict[str, Any]], body: bytes, signature: Signature, max_rows: int
) -> tuple[Rows, bool] | None:
    """The rows of a request and whether they are raw, or None where it is in doubt.

    Args:
        inputs: As `orjson` read them.
        body: The text they were read from.
        signature: Of the version.
        max_rows: Most rows that are taken; at least one.

    Raises:
        One of `DOUBTS`: It is in doubt, too.
    """
    shape = inputs[0]["shape"]
    if len(shape) == 2 and len(inputs) == 1:
        matrix = _matrix(inputs[0], body, signature, max_rows)
        return None if matrix is None else (Rows(len(matrix), signature.raw_names, (), matrix), True)
    if shape != [1] or signature.matrix:
        return None
    data = [tensor.pop("data", None) for tensor in inputs]
    head = orjson.dumps(inputs)
    plan = signature.plans.get(head)
    if plan is None and head not in signature.plans:
        plan = _remember(head, inputs, signature)
    rows = None
    try:
        if plan is not None:
            rows = _row(plan, data, signature)
    finally:
        if rows is None:
            for tensor, values in zip(inputs, data, strict=True):
                tensor["data"] = values
    return None if rows is None or plan is None else (rows, plan.raw)


def _matrix(tensor: Mapping[str, Any], body: bytes, signature: Signature, max_rows: int) -> Any:
    count, width = tensor["shape"]
    name = tensor["name"]
    if type(count) is not int or type(width) is not int or width != signature.width or not 0 < count <= max_rows:
        return None
    if type(name) is not str or not (
        signature.matrix or (name not in signature.columns and name not in signature.raws)
    ):
        return None
    if not signature.numbers or signature.required:
        return None
    data, datatype = tensor["data"], tensor["datatype"]
    if type(data) is not list:
        return None
    if count == 1:
        row = data if len(data) == width else data[0]
        if len(row) != width or (row is not data and len(data) != 1):
            return None
        return _matrix_row(row, datatype, signature)
    if len(data) == count:
        if set(map(len, data)) != {width}:
            return None
        data = list(chain.from_iterable(data))
    if len(data) != count * width:
        return None
    if len(data) < 500 or signature.whole or datatype != "FP64" or may_hold_bool(body):
        return read_matrix(datatype, data, signature.whole, width) if datatype in NUMBERS else None
    matrix: Any = np.empty((count, width))
    try:
        struct.pack_into(f"<{len(data)}d", matrix, 0, *data)
    except struct.error:  # a null, or no number
        return read_matrix(datatype, data, signature.whole, width)
    return matrix if matrix.max() < EXACT and matrix.min() > -EXACT else None


def _matrix_row(row: list[Any], datatype: str, signature: Signature) -> Any:
    if datatype != "FP64":
        return read_matrix(datatype, row, signature.whole, signature.width) if datatype in NUMBERS else None
    if list(map(type, row)) != signature.floats:
        types = set(map(type, row))
        if type(None) in types:
            types.discard(type(None))
            row = [nan if value is None else value for value in row]
        if not types <= {float, int}:
            return None
    # The length of the row bounds each number; NaN, which only a null becomes here, would hide the others.
    bound = hypot(*row)
    if not bound < EXACT and (bound == bound or not all(-EXACT < value < EXACT for value in row if value == value)):  # noqa: PLR0124
        return None
    for index in signature.whole:
        value = row[index]
        if type(value) is float and not value.is_integer() and value == value:  # noqa: PLR0124
            return None
    matrix: Any = np.empty((1, signature.width))
    signature.row.pack_into(matrix, 0, *row)
    return matrix


def may_hold_bool(text: bytes) -> bool:
    """Whether JSON may hold true or false; quick where nearly all of it is digits, and wrong only towards yes."""
    for letter, word, back in ((b"u", b"true", 2), (b"l", b"false", 2)):
        at = text.find(letter)
        tries = 0
        while at >= 0:
            tries += 1
            if tries > 64 or text[max(at - back, 0) : at - back + len(word)] == word:
                return True
            at = text.find(letter, at + 1)
    return False


def _remember(head: bytes, inputs: list[dict[str, Any]], signature: Signature) -> Plan | None:
    if len(head) > _HEAD_BYTES:
        return None
    if len(signature.plans) >= _HEADS:
        signature.plans.clear()
    plan = _plan(inputs, signature)
    signature.plans[head] = plan
    return plan


def _plan(inputs: list[dict[str, Any]], signature: Signature) -> Plan | None:
    """The plan of a head, or None where not every part of it is as it mostly is."""
    names = [tensor.get("name") for tensor in inputs]
    if any(type(each) is not str for each in names) or len(set(names)) != len(names):
        return None
    raw = signature.same or any(name not in signature.columns and name in signature.raws for name in names)
    known = signature.raws if raw else signature.columns
    for tensor in inputs:
        column = known.get(tensor["name"])
        if column is None or tensor.get("datatype") not in allowed_datatypes(column.type):
            return None
        if tensor.get("parameters") is not None or orjson.dumps(tensor.get("shape")) != b"[1]":
            return None
    if any(column.required and name not in names for name, column in known.items()):
        return None
    columns = tuple(known) if raw else tuple(name for name in known if name in names)
    order = tuple(names.index(name) if name in names else -1 for name in columns)
    wide = all(tensor["datatype"] == "FP64" for tensor in inputs)
    readers: tuple[Callable[[Any], Any], ...] = ()
    if not (raw and signature.numbers and not signature.required and wide):
        found = [
            _reader(known[tensor["name"]].type, tensor["datatype"], known[tensor["name"]].required) for tensor in inputs
        ]
        if None in found:
            return None
        readers = tuple(each for each in found if each is not None)
    return Plan(raw, columns, readers, order, order == tuple(range(len(inputs))))


def _row(plan: Plan, data: list[Any], signature: Signature) -> Rows | None:
    if plan.readers:
        values = [read(value) for read, (value,) in zip(plan.readers, data, strict=True)]
        if set(map(type, data)) != {list}:
            return None
        given = tuple([None if index < 0 else values[index]] for index in plan.order)
        if not (plan.raw and signature.numbers):
            return Rows(1, plan.names, given)
        row: list[Any] = [each[0] for each in given]
    elif plan.straight:
        row = [value for (value,) in data]
    else:
        values = [value for (value,) in data]
        row = [None if index < 0 else values[index] for index in plan.order]
    matrix = _matrix_row(row, "FP64", signature)
    return None if matrix is None else Rows(1, plan.names, (), matrix)


def _reader(column: RequestColumn, datatype: str) -> Callable[[Any], Any] | None:
    """Reads one value of a column, or raises one of `DOUBTS`."""
    kind = column.type
    if kind == "float64":
        if datatype == "FP64":
            read: Callable[[Any], Any] = _float
        elif datatype == "FP32":
            read = _single
        elif datatype in INTEGERS:
            read = _whole_float(*INTEGERS[datatype])
        else:
            return None
    elif kind == "int64":
        if datatype not in INTEGERS:
            return None
        low, high = INTEGERS[datatype]
        read = _whole(low, min(high, INT64[1]))
    else:
        read = {"bool": _bool, "string": _text, "instant": _instant}[kind]
    if column.required:
        return read
    return lambda value: None if value is None else read(value)


def _float(value: Any) -> float:
    if type(value) is float or (type(value) is int and -EXACT <= value <= EXACT):
        wide = float(value)
        if -EXACT < wide < EXACT:
            return wide
    raise TypeError


_SINGLE = struct.Struct("<f")


def _single(value: Any) -> float:
    rounded: float = _SINGLE.unpack(_SINGLE.pack(_float(value)))[0]
    return rounded


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if type(value) is int and low <= value <= high:
            return value
        raise TypeError

    return read


def _whole_float(low: int, high: int) -> Callable[[Any], float]:
    read = _whole(max(low, -EXACT), min(high, EXACT))
    return lambda value: float(read(value))


def _bool(value: Any) -> bool:
    if type(value) is bool:
        return value
    raise TypeError


def _text(value: Any) -> str:
    if type(value) is str:
        return value
    raise TypeError


def _instant(value: Any) -> int:
    return to_microseconds(parse_instant(_text(value)))
