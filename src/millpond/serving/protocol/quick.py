"""The short way through the most frequent JSON requests: a matrix of numbers, and one row in tensors of its own.

All of a request but its data, its id and its parameters is its head. Heads come again and again; how a request with
such a head is read is worked out once. The short way decides only that a request is right: whatever is in doubt gives
None, and is read the exact way, which comes to the same request or says what is wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from math import hypot, isnan, nan
from typing import Any, NamedTuple

import numpy as np
import orjson

from millpond.core.errors import RequestError
from millpond.serving.ports import InferRequest, OutputWanted
from millpond.serving.protocol.columns import are_whole, flatten, read_matrix
from millpond.serving.protocol.datatypes import EXACT, INTEGERS, LAYOUTS, allowed_datatypes
from millpond.serving.protocol.parameters import read_parameters
from millpond.serving.protocol.readers import CODES, raw_reader, reader
from millpond.serving.protocol.signature import Signature
from millpond.serving.protocol.tensors import Tensor
from millpond.serving.rows import Rows

_empty: Any = np.empty

#: What is raised where something is not as it mostly is.
_DOUBTS = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, struct.error, RequestError)

#: Heads that are remembered for a version, and their longest.
_HEADS = 256
_HEAD_BYTES = 16_384

#: Values from which on it is quicker to look for true and false in the text than at each value.
_MANY = 500


#: Shapes of a column of one row.
_ONE_ROW = ([1], [1, 1])


class Plan(NamedTuple):
    """How a request with a certain head is read.

    Attributes:
        outputs: The outputs that it asks for.
        rows: How many rows.
        raw: Whether the tensors are raw model inputs.
        names: Columns of the rows.
        shape: Of one row of a matrix.
        types: Types that the values of a row mostly have, where rows are a matrix; else empty.
        form: Packs such a row as its datatype.
        layout: Of what was packed; empty for float64.
        order: For each column: the position of its tensor, or -1 where it is absent; empty where that changes nothing.
        readers: For each tensor in order: how its value is read, where rows are no matrix.
        single: Whether one tensor holds the whole matrix.
    """

    outputs: tuple[OutputWanted, ...]
    rows: int
    raw: bool
    names: tuple[str, ...]
    shape: tuple[int, int]
    types: list[type]
    form: struct.Struct
    layout: str
    order: tuple[int, ...]
    readers: tuple[Callable[[Any], Any], ...]
    single: bool


def quick_request(document: Any, body: bytes, signature: Signature, max_rows: int) -> InferRequest | None:
    """The request that a document holds, or None where that is in doubt.

    Args:
        document: As `orjson` read it; unchanged when this returns.
        body: The text that it was read from.
        signature: Of the version.
        max_rows: Most rows that are taken.
    """
    try:
        inputs = document["inputs"]
        request_id = document.pop("id", None)
        parameters = document.pop("parameters", None)
        data = [tensor.pop("data", None) for tensor in inputs]
    except _DOUBTS:
        return None
    request = None
    try:
        plan = signature.plans.get(orjson.dumps(document)) or _remember(document, signature)
        if plan is not None and plan.rows <= max_rows and (request_id is None or type(request_id) is str):
            rows = _matrix(plan, data[0], body, signature) if plan.single else _row(plan, data, signature)
            if rows is not None:
                request = InferRequest(rows, plan.raw, None, request_id, plan.outputs)
                if parameters is not None:
                    request = _with_parameters(request, parameters, signature)
    except _DOUBTS:
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
    except _DOUBTS:
        return None
    return None if rows is None else (rows, known.plan.raw)


def _remember_row(head: tuple[Any, ...], tensors: Sequence[Tensor], signature: Signature) -> TensorPlan | None:
    if signature.matrix or any(type(size) is not int or size != 1 for each in head for size in each[2:]):
        return None
    if any(len(each) != 3 or type(each[0]) is not str for each in head):
        return None
    plan = _row_plan([tensor._asdict() for tensor in tensors], signature.plain, signature)
    if plan is None or sum(len(each[0]) for each in head) > _HEAD_BYTES:
        return None
    if len(signature.rows) >= _HEADS:
        signature.rows.clear()
    known = signature.rows[head] = TensorPlan(plan, tuple(raw_reader(tensor.datatype) for tensor in tensors))
    return known


def _with_parameters(request: InferRequest, parameters: Any, signature: Signature) -> InferRequest | None:
    if type(parameters) is not dict or "binary_data_output" in parameters:
        return None
    as_of, explain, routing_key = read_parameters(parameters, signature.place)
    return None if explain else request._replace(as_of=as_of, routing_key=routing_key)


def _matrix(plan: Plan, data: Any, body: bytes, signature: Signature) -> Rows | None:
    width = signature.width
    if plan.rows == 1:
        row = data if len(data) == width else data[0]
        if len(row) != width or (row is not data and len(data) != 1):
            return None
        return _matrix_row(plan, row, signature)
    if type(data) is not list:
        return None
    matrix = None
    if plan.rows * width >= _MANY and not may_hold_bool(body):
        matrix = _packed(plan, data, signature)
    if matrix is None:
        flat = data if len(data) == plan.rows * width else flatten(data, width)
        if flat is None or len(flat) != plan.rows * width:
            return None
        datatype = next(name for name, code in CODES.items() if plan.form.format.endswith(code))
        matrix = read_matrix(datatype, flat, signature.whole, width)
    return None if matrix is None else Rows(plan.rows, plan.names, (), matrix)


def _packed(plan: Plan, data: list[Any], signature: Signature) -> Any:
    """A matrix of many numbers, none of which is a bool; None where there is a null, or one does not fit."""
    count, width = plan.rows, signature.width
    try:
        if len(data) == count:
            pack = plan.form.pack
            held = bytearray().join([pack(*row) for row in data])
        else:
            held = bytearray(count * plan.form.size)
            struct.pack_into(f"<{count * width}{plan.form.format[-1]}", held, 0, *data)
    except (struct.error, OverflowError):
        return None
    matrix: Any = np.ndarray((count, width), plan.layout or np.float64, held)
    if plan.layout:
        matrix = matrix.astype(np.float64)
    if not (matrix.max() < EXACT and matrix.min() > -EXACT):
        return None
    return matrix if not signature.whole or are_whole(matrix[:, signature.whole]) else None


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
    if plan.layout:
        packed: Any = _empty(plan.shape, plan.layout)
        plan.form.pack_into(packed, 0, *row)
        matrix = packed.astype(np.float64)
    else:
        matrix = _empty(plan.shape)
        plan.form.pack_into(matrix, 0, *row)
    if signature.whole and not are_whole(matrix[:, signature.whole]):
        return None
    return Rows(1, plan.names, (), matrix)


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


def _remember(document: dict[str, Any], signature: Signature) -> Plan | None:
    """The plan of a document without its data, id and parameters; kept where it is one of few."""
    plan = _plan(document, signature)
    head = orjson.dumps(document)
    if plan is not None and len(head) <= _HEAD_BYTES:
        if len(signature.plans) >= _HEADS:
            signature.plans.clear()
        signature.plans[head] = plan
    return plan


def _plan(document: dict[str, Any], signature: Signature) -> Plan | None:
    inputs = document["inputs"]
    outputs = signature.plain
    if document.get("outputs"):
        names = [each["name"] for each in document["outputs"]]
        if len(set(names)) != len(names) or not signature.plain_names.issuperset(names):
            return None
        if any(len(each) > 1 for each in document["outputs"]):
            return None
        outputs = tuple(OutputWanted(name) for name in names)
    shape = inputs[0]["shape"]
    if any(type(size) is not int for each in inputs for size in each["shape"]):
        return None
    if any(type(each["name"]) is not str or each.get("parameters") is not None for each in inputs):
        return None
    if len(shape) == 2 and len(inputs) == 1 and not _names_column(inputs[0]["name"], signature):
        return _matrix_plan(inputs[0], outputs, signature)
    if signature.matrix or any(each["shape"] not in _ONE_ROW for each in inputs):
        return None
    return _row_plan(inputs, outputs, signature)


def _names_column(name: str, signature: Signature) -> bool:
    """Whether a tensor is one column, of a model that knows columns by name."""
    return not signature.matrix and (name in signature.columns or name in signature.raws)


def _matrix_plan(tensor: dict[str, Any], outputs: tuple[OutputWanted, ...], signature: Signature) -> Plan | None:
    (count, width), datatype = tensor["shape"], tensor["datatype"]
    if width != signature.width or count < 1 or datatype not in CODES or not signature.matrices:
        return None
    layout = "" if datatype == "FP64" else LAYOUTS[datatype]
    types: list[type] = [int if datatype in INTEGERS else float] * width
    form = struct.Struct(f"<{width}{CODES[datatype]}")
    return Plan(outputs, count, True, signature.raw_names, (1, width), types, form, layout, (), (), True)


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
        return Plan(outputs, 1, raw, columns, (1, width), [float] * width, form, "", order, (), False)
    readers = [reader(known[tensor["name"]], tensor["datatype"]) for tensor in inputs]
    sure = tuple(each for each in readers if each is not None)
    if len(sure) < len(readers):
        return None
    return Plan(outputs, 1, raw, columns, (1, 0), [], form, "", order, sure, False)


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
