"""Tensors and parameters of a request as an `InferRequest`, whatever wire carried them.

A request has one of three forms, told apart by the names of its tensors:

1. request columns: entity keys, plain inputs, the instant of prediction; features are looked up;
2. raw model inputs by name, as soon as one name is a raw input and no request column; absent ones are null;
3. one matrix of shape [rows, inputs], under a name that is no column; a model without column names takes only this.

A column has shape [rows] or [rows, 1]. Instants are BYTES, ISO 8601 with an offset. JSON null, and NaN in binary, mean
that a value is unknown, where the input is not required; the protocol itself has no null.

Source: the Open Inference Protocol, version 2, https://github.com/kserve/open-inference-protocol.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from millpond.core.errors import PayloadTooLarge, RequestError
from millpond.core.names import did_you_mean
from millpond.serving.columns import describe_columns
from millpond.serving.ports import InferRequest, OutputWanted, RequestColumn, ServedModel
from millpond.serving.protocol.columns import (
    check_datatype,
    elements,
    flatten,
    nulls,
    read_column,
    read_matrix,
)
from millpond.serving.protocol.datatypes import EXACT, NUMBERS
from millpond.serving.protocol.parameters import read_parameters
from millpond.serving.protocol.quick import quick_row
from millpond.serving.protocol.signature import CONTRIBUTIONS, CONTRIBUTIONS_BASE, Signature, signature_of
from millpond.serving.protocol.tensors import NO_PARAMETERS, Tensor
from millpond.serving.protocol.values import shown
from millpond.serving.rows import Rows

if TYPE_CHECKING:
    from millpond.serving.rows import Column

#: Rows that one request may carry.
MAX_ROWS = 10_000


def request_of(
    tensors: Sequence[Tensor],
    served: ServedModel,
    parameters: Mapping[str, Any] = NO_PARAMETERS,
    id: str | None = None,
    outputs: Sequence[OutputWanted] = (),
    *,
    binary: bool = False,
    max_rows: int = MAX_ROWS,
) -> InferRequest:
    """A request to a version.

    Args:
        tensors: The inputs, as they were sent.
        served: The version.
        parameters: Of the request; unknown ones are ignored, unless they look like a misspelt one of ours.
        id: The caller's identifier.
        outputs: Those asked for, in order; all where there are none.
        binary: Whether all outputs are wanted in binary, where `outputs` names none.
        max_rows: Most rows that are taken.

    Raises:
        RequestError: It is no request that the version takes; names the model, the input, what was expected and what
            was found.
        PayloadTooLarge: More than `max_rows` rows.
    """
    return _request(tensors, served, parameters, id, outputs, binary, max_rows, quick=True)


def request_of_json(
    tensors: Sequence[Tensor],
    served: ServedModel,
    parameters: Mapping[str, Any],
    id: str | None,
    outputs: Sequence[OutputWanted],
    *,
    binary: bool,
    max_rows: int,
) -> InferRequest:
    """`request_of` for what a JSON document holds, of which nothing is known: names are text, and all else anything."""
    return _request(tensors, served, parameters, id, outputs, binary, max_rows, quick=False)


def _request(
    tensors: Sequence[Tensor],
    served: ServedModel,
    parameters: Mapping[str, Any],
    id: str | None,
    outputs: Sequence[OutputWanted],
    binary: bool,
    max_rows: int,
    quick: bool,
) -> InferRequest:
    signature = signature_of(served)
    as_of, explain, routing_key = read_parameters(parameters, signature.place)
    wanted = _outputs(outputs, signature, explain, binary)
    found = quick_row(tensors, signature) if quick and max_rows > 0 else None
    rows, raw = found or _rows(tensors, served, signature, max_rows)
    return InferRequest(rows, raw, as_of, id, wanted, explain, routing_key)


def takes(served: ServedModel) -> str:
    """What a version takes, in one line for a hint."""
    if served.matrix:
        return f"the model takes one tensor of numbers of shape [rows, {len(served.inputs)}]"
    return f"the model takes: {describe_columns(served.columns)}"


def _outputs(
    wanted: Sequence[OutputWanted], signature: Signature, explain: bool, binary: bool
) -> tuple[OutputWanted, ...]:
    if not wanted:
        return signature.wanted[explain, binary]
    known = signature.specs(explain)
    where = f"{signature.place}, outputs"
    seen: set[str] = set()
    for each in wanted:
        if each.name not in known:
            hint = did_you_mean(each.name, known, noun="outputs")
            if each.name in (CONTRIBUTIONS, CONTRIBUTIONS_BASE):
                hint = "ask for explanations: parameters.explain = true"
            raise RequestError(f"the model has no output {each.name!r}", where=where, hint=hint)
        if each.name in seen:
            raise RequestError(f"the output {each.name!r} is asked for twice", where=where, hint="name it once")
        seen.add(each.name)
    return tuple(wanted)


def _rows(tensors: Sequence[Tensor], served: ServedModel, signature: Signature, max_rows: int) -> tuple[Rows, bool]:
    place = signature.place
    if not tensors:
        raise RequestError("inputs is empty, expected an array of tensors", where=place, hint=takes(served))
    first = tensors[0]
    if signature.matrix:
        if len(tensors) > 1:
            raise RequestError(f"there are {len(tensors)} inputs, expected one", where=place, hint=takes(served))
        return _matrix(first, signature, max_rows), True
    columns, raws = signature.columns, signature.raws
    if len(tensors) == 1 and first.name not in columns and first.name not in raws and _is_matrix(first, signature):
        return _matrix(first, signature, max_rows), True
    raw = signature.same or any(each.name not in columns and each.name in raws for each in tensors)
    found, count = _columns(tensors, raws if raw else columns, served, signature, raw, max_rows)
    if not raw:
        return Rows(count, tuple(found), tuple(found.values())), False
    return _raw_rows(found, count, signature), True


def _is_matrix(tensor: Tensor, signature: Signature) -> bool:
    """Whether a tensor whose name is unknown is meant as all raw inputs at once: any of two dimensions that is wide."""
    shape = _sizes(tensor.shape)
    return signature.countable and len(shape) == 2 and (shape[1] == signature.width or shape[1] != 1)


def _sizes(shape: Any) -> list[int]:
    """A shape as a list of sizes; empty where it is none."""
    if isinstance(shape, (list, tuple)) and all(type(size) is int and size >= 0 for size in shape):
        return list(shape)
    return []


def _shape_error(shape: Any, expected: str, where: str, hint: str) -> RequestError:
    found = "is missing" if shape is None else f"is {shown(shape, 80)}"
    return RequestError(f"the shape {found}, expected {expected}", where=where, hint=hint)


def _columns(
    tensors: Sequence[Tensor],
    known: Mapping[str, RequestColumn],
    served: ServedModel,
    signature: Signature,
    raw: bool,
    max_rows: int,
) -> tuple[dict[str, Column], int]:
    place = signature.place
    found: dict[str, Column] = {}
    count = 0
    for tensor in tensors:
        name = tensor.name
        if name not in known:
            raise _unknown(name, known, served, signature, raw)
        where = f"{place}, input {name!r}"
        if name in found:
            raise RequestError(f"the input {name!r} is there twice", where=where, hint="send each input once")
        rows = _row_count(tensor.shape, where, max_rows)
        if found and rows != count:
            what = f"{name!r} has {rows} rows, and {next(iter(found))!r} has {count}"
            raise RequestError(what, where=where, hint="every input has one value a row")
        count = rows
        column = known[name]
        check_datatype(column, tensor.datatype, where)
        found[name] = read_column(column, tensor.datatype, _flat(tensor, count, where), where)
    for name, column in known.items():
        if column.required and name not in found:
            raise RequestError(f"the input {name!r} is missing", where=place, hint=takes(served))
    return {name: found[name] for name in known if name in found}, count


def _unknown(
    name: str, known: Mapping[str, RequestColumn], served: ServedModel, signature: Signature, raw: bool
) -> RequestError:
    if raw and name in signature.columns:
        return RequestError(
            f"the input {name!r} is a request column, and others are raw model inputs",
            where=signature.place,
            hint=f"send raw inputs alone, or request columns alone: {describe_columns(served.columns)}",
        )
    hint = did_you_mean(name, {**signature.raws, **known}, noun="inputs")
    return RequestError(f"the model takes no input {name!r}", where=signature.place, hint=hint)


def _raw_rows(found: Mapping[str, Column], count: int, signature: Signature) -> Rows:
    if signature.numbers and all(_exact(found[name]) for name in found if signature.raws[name].type == "int64"):
        matrix = np.full((count, signature.width), np.nan)
        for index, name in enumerate(signature.raw_names):
            if name in found:
                matrix[:, index] = found[name]
        return Rows(count, signature.raw_names, matrix=matrix)
    given = (found[name] if name in found else nulls(column.type, count) for name, column in signature.raws.items())
    return Rows(count, signature.raw_names, tuple(given))


def _exact(whole: Column) -> bool:
    """Whether whole numbers are exact as float64."""
    if isinstance(whole, np.ndarray):
        return bool(int(whole.min()) >= -EXACT and int(whole.max()) <= EXACT)
    return all(value is None or -EXACT <= value <= EXACT for value in whole)


def _matrix(tensor: Tensor, signature: Signature, max_rows: int) -> Rows:
    width = signature.width
    where = f"{signature.place}, input {tensor.name!r}"
    shape = _sizes(tensor.shape)
    if len(shape) != 2 or shape[1] != width:
        order = ", ".join(signature.raw_names[:12]) + (", ..." if width > 12 else "")
        hint = f"one column for each of the {width} raw inputs of the model, in the order: {order}"
        raise _shape_error(tensor.shape, f"[rows, {width}]", where, hint)
    count = _checked_count(shape[0], where, max_rows)
    if tensor.datatype not in (*NUMBERS, "BOOL"):
        check_datatype(RequestColumn(tensor.name, "float64", False, "input"), tensor.datatype, where)
    data = tensor.data
    if isinstance(data, list) and data and isinstance(data[0], list):
        flat = flatten(data, width)
        if flat is None or len(data) != count:
            raise RequestError(
                f"data is not {count} arrays of {width} values each, as its shape says",
                where=where,
                hint="send [[...], ...], or all values in one array, row after row",
            )
        data = flat
    values = elements(tensor.datatype, data, count * width, where)
    if len(values) != count * width:
        raise RequestError(
            f"data has {len(values)} values, and the shape says {count * width}",
            where=where,
            hint=f"send {width} values a row",
        )
    if signature.matrices and tensor.datatype in NUMBERS:
        matrix = read_matrix(tensor.datatype, values, signature.whole, width)
        if matrix is not None:
            return Rows(count, signature.raw_names, matrix=matrix)
    return _matrix_by_column(tensor, values, count, signature)


def _matrix_by_column(tensor: Tensor, values: Any, count: int, signature: Signature) -> Rows:
    found: dict[str, Column] = {}
    for index, (name, column) in enumerate(signature.raws.items()):
        where = f"{signature.place}, input {tensor.name!r}, column {index}"
        part = values[index :: signature.width]
        if tensor.datatype == "BOOL" or column.type == "bool":
            found[name] = _bool_as(column, tensor.datatype, part, where)
        else:
            found[name] = read_column(column, tensor.datatype, part, where)
    return _raw_rows(found, count, signature)


def _bool_as(column: RequestColumn, datatype: str, values: Any, where: str) -> Column:
    """A column of a matrix where bool meets numbers: true is 1 and false is 0, both ways."""
    bools = RequestColumn(column.name, "bool", column.required, column.role)
    if datatype == "BOOL":
        found = read_column(bools, "BOOL", values, where)
        if column.type == "bool":
            return found
        numbers = [None if each is None else int(each) for each in found]
        return read_column(column, "INT64", numbers, where)
    whole = RequestColumn(column.name, "int64", column.required, column.role)
    numbers = list(read_column(whole, datatype, values, where))
    for row, number in enumerate(numbers):
        if number not in (0, 1, None):
            raise RequestError(
                f"{column.name!r} in row {row}: found {number}, expected 0 or 1", where=where, hint="the input is bool"
            )
    return read_column(bools, "BOOL", [None if each is None else bool(each) for each in numbers], where)


def _row_count(shape: Any, where: str, max_rows: int) -> int:
    sizes = _sizes(shape)
    if len(sizes) not in (1, 2) or sizes[1:] not in ([], [1]):
        raise _shape_error(shape, "[rows] or [rows, 1]", where, "one value a row")
    return _checked_count(sizes[0], where, max_rows)


def _checked_count(count: int, where: str, max_rows: int) -> int:
    if count == 0:
        raise RequestError("there are no rows to predict", where=where, hint="send at least one row")
    if count > max_rows:
        raise PayloadTooLarge(
            f"the request has {count} rows, and at most {max_rows} are taken at once",
            where=where,
            hint="send several requests, or predict a whole table with `millpond predict --batch`",
        )
    return count


def _flat(tensor: Tensor, count: int, where: str) -> Any:
    data = tensor.data
    if isinstance(data, list) and len(tensor.shape) == 2 and data and isinstance(data[0], list):
        for row, inner in enumerate(data):
            if not isinstance(inner, list) or len(inner) != 1:
                raise RequestError(f"data in row {row} is {shown(inner)}, expected one value in brackets", where=where)
        data = [inner[0] for inner in data]
    values = elements(tensor.datatype, data, count, where)
    if len(values) != count:
        raise RequestError(
            f"data has {len(values)} values, and the shape says {count}", where=where, hint="send one value a row"
        )
    return values
