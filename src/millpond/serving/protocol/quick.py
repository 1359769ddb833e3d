"""The short way through requests of one row in tensors of its own, a tensor a column.

All of a request but its data, its id and its parameters is its head. Heads come again and again; how a request with
such a head is read is worked out once. The short way decides only that a request is right: whatever is in doubt gives
None, and is read the exact way, which comes to the same request or says what is wrong. Requests that are one matrix of
numbers have a way of their own: `matrices`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from math import hypot, isnan, nan
from typing import Any, NamedTuple

import numpy as np
import orjson

from millpond.serving.ports import InferRequest, OutputWanted
from millpond.serving.protocol.columns import are_whole
from millpond.serving.protocol.datatypes import EXACT, allowed_datatypes
from millpond.serving.protocol.heads import DOUBTS, HEAD_BYTES, outputs_of, remember, with_parameters
from millpond.serving.protocol.readers import raw_reader, reader
from millpond.serving.protocol.signature import Signature
from millpond.serving.protocol.tensors import Tensor
from millpond.serving.rows import Rows

_empty: Any = np.empty

#: Shapes of a column of one row.
_ONE_ROW = ([1], [1, 1])


class Plan(NamedTuple):
    """How a request with a certain head is read.

    Attributes:
        outputs: The outputs that it asks for.
        raw: Whether the tensors are raw model inputs.
        names: Columns of the rows.
        shape: Of the row as a matrix.
        types: Types that the values of such a row mostly have; else empty.
        form: Packs such a row.
        order: For each column: the position of its tensor, or -1 where it is absent; empty where that changes nothing.
        readers: For each tensor in order: how its value is read, where the row is no matrix.
    """

    outputs: tuple[OutputWanted, ...]
    raw: bool
    names: tuple[str, ...]
    shape: tuple[int, int]
    types: list[type]
    form: struct.Struct
    order: tuple[int, ...]
    readers: tuple[Callable[[Any], Any], ...]


def quick_request(document: Any, signature: Signature) -> InferRequest | None:
    """The request of one row that a document holds, or None where that is in doubt.

    Args:
        document: As `orjson` read it; unchanged when this returns.
        signature: Of the version.
    """
    try:
        inputs = document["inputs"]
        request_id = document.pop("id", None)
        parameters = document.pop("parameters", None)
        data = [tensor.pop("data", None) for tensor in inputs]
    except DOUBTS:
        return None
    request = None
    try:
        plan = _plan_of(document, signature)
        if plan is not None and (request_id is None or type(request_id) is str):
            rows = _row(plan, data, signature)
            if rows is not None:
                request = InferRequest(rows, plan.raw, None, request_id, plan.outputs)
                if parameters is not None:
                    request = with_parameters(request, parameters, signature)
    except DOUBTS:
        request = None
    if request is None:
        for tensor, values in zip(inputs, data, strict=True):
            tensor["data"] = values
        document.update(id=request_id, parameters=parameters)
    return request


class TensorPlan(NamedTuple):
    """How one row in tensors of its own is read, whatever wire they came by.

    Attributes:
        plan: How their values are read.
        raws: For each tensor: how its one element in the raw layout becomes a value.
    """

    plan: Plan
    raws: tuple[Callable[[bytes], Any], ...]


def quick_row(tensors: Sequence[Tensor], signature: Signature) -> tuple[Rows, bool] | None:
    """The rows of a request of one row, a tensor a column, and whether they are raw; None where that is in doubt.

    Sizes in shapes are of type int.
    """
    try:
        if len(tensors[0].shape) != 1:
            return None
        head = tuple([(tensor.name, tensor.datatype, *tensor.shape) for tensor in tensors])
        known = signature.rows.get(head) or _remember_row(head, tensors, signature)
        if known is None:
            return None
        data: list[Any] = [tensor.data for tensor in tensors]
        types = set(map(type, data))
        if types <= {bytes, memoryview}:
            data = [[read(raw)] for read, raw in zip(known.raws, data, strict=True)]
        elif types != {list}:
            return None
        rows = _row(known.plan, data, signature)
    except DOUBTS:
        return None
    return None if rows is None else (rows, known.plan.raw)


def _remember_row(head: tuple[Any, ...], tensors: Sequence[Tensor], signature: Signature) -> TensorPlan | None:
    if signature.matrix or any(type(size) is not int or size != 1 for each in head for size in each[2:]):
        return None
    if any(len(each) != 3 or type(each[0]) is not str for each in head):
        return None
    plan = _row_plan([tensor._asdict() for tensor in tensors], signature.plain, signature)
    if plan is None or sum(len(each[0]) for each in head) > HEAD_BYTES:
        return None
    known = TensorPlan(plan, tuple(raw_reader(tensor.datatype) for tensor in tensors))
    remember(signature.rows, head, known)
    return known


def _matrix_row(plan: Plan, row: list[Any], signature: Signature) -> Rows | None:
    bounded = row
    if list(map(type, row)) != plan.types:
        types = set(map(type, row))
        if type(None) in types:
            types.discard(type(None))
            bounded = [0.0 if value is None else value for value in row]
            row = [nan if value is None else value for value in row]
        if not types <= {float, int}:
            return None
    # The length of a row bounds each number in it; a NaN, which only a wire other than JSON has, hides them.
    bound = hypot(*bounded)
    if not bound < EXACT and not (isnan(bound) and all(-EXACT < value < EXACT or isnan(value) for value in row)):
        return None
    matrix = _empty(plan.shape)
    plan.form.pack_into(matrix, 0, *row)
    if signature.whole and not are_whole(matrix[:, signature.whole]):
        return None
    return Rows(1, plan.names, (), matrix)


def _plan_of(document: dict[str, Any], signature: Signature) -> Plan | None:
    """The plan of a document without its data, id and parameters."""
    head = orjson.dumps(document)
    plan = signature.plans.get(head)
    if plan is None:
        plan = _plan(document, signature)
        if plan is not None and len(head) <= HEAD_BYTES:
            remember(signature.plans, head, plan)
    return plan


def _plan(document: dict[str, Any], signature: Signature) -> Plan | None:
    inputs = document["inputs"]
    outputs = outputs_of(document, signature)
    if not inputs or signature.matrix or any(each["shape"] not in _ONE_ROW for each in inputs):
        return None
    if any(type(size) is not int for each in inputs for size in each["shape"]):
        return None
    if any(type(each["name"]) is not str or each.get("parameters") is not None for each in inputs):
        return None
    return _row_plan(inputs, outputs, signature)


def _row_plan(inputs: list[dict[str, Any]], outputs: tuple[OutputWanted, ...], signature: Signature) -> Plan | None:
    names = [tensor["name"] for tensor in inputs]
    raw = signature.same or any(name not in signature.columns and name in signature.raws for name in names)
    known = signature.raws if raw else signature.columns
    if len(set(names)) != len(names) or not known.keys() >= set(names):
        return None
    if any(tensor["datatype"] not in allowed_datatypes(known[tensor["name"]].type) for tensor in inputs):
        return None
    if any(column.required and name not in names for name, column in known.items()):
        return None
    columns = tuple(known) if raw else tuple(name for name in known if name in names)
    order = tuple(names.index(name) if name in names else -1 for name in columns)
    if order == tuple(range(len(inputs))):
        order = ()
    width = signature.width
    form = struct.Struct(f"<{width}d")
    if raw and signature.matrices and all(tensor["datatype"] == "FP64" for tensor in inputs):
        return Plan(outputs, raw, columns, (1, width), [float] * width, form, order, ())
    readers = [reader(known[tensor["name"]], tensor["datatype"]) for tensor in inputs]
    sure = tuple(each for each in readers if each is not None)
    if len(sure) < len(readers):
        return None
    return Plan(outputs, raw, columns, (1, 0), [], form, order, sure)


def _row(plan: Plan, data: list[Any], signature: Signature) -> Rows | None:
    if not plan.readers:
        row = [value for (value,) in data]
        if plan.order:
            row = [None if index < 0 else row[index] for index in plan.order]
        return _matrix_row(plan, row, signature)
    if set(map(type, data)) != {list}:
        return None
    row = [read(value) for read, (value,) in zip(plan.readers, data, strict=True)]
    if plan.order:
        row = [None if index < 0 else row[index] for index in plan.order]
    if plan.raw and signature.numbers:
        if any(type(value) is int and not -EXACT <= value <= EXACT for value in row):
            return None
        return Rows(1, plan.names, (), np.array([row], np.float64))
    return Rows(1, plan.names, tuple([value] for value in row))
