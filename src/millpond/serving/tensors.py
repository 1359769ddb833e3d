"""Tensors of the Open Inference Protocol: JSON data to and from Arrow columns."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from millpond.core.errors import RequestError
from millpond.core.names import did_you_mean
from millpond.core.time import format_instant, parse_instant
from millpond.serving.columns import arrow_type
from millpond.serving.ports import RequestColumn

if TYPE_CHECKING:
    import pyarrow as pa

_INTEGERS: Mapping[str, tuple[int, int]] = {
    **{f"INT{bits}": (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": (0, (1 << bits) - 1) for bits in (8, 16, 32, 64)},
}
_FLOATS: Mapping[str, str] = {"FP16": "<e", "FP32": "<f", "FP64": "<d"}
DATATYPES = ("BOOL", *_INTEGERS, *_FLOATS, "BYTES")

#: The datatype that metadata names for a column; requests may use any other that holds the same values exactly.
DATATYPE_OF: Mapping[str, str] = {
    "bool": "BOOL",
    "int64": "INT64",
    "float64": "FP64",
    "string": "BYTES",
    "instant": "BYTES",
}
_INT64 = _INTEGERS["INT64"]


class JsonConstant:
    """Stands for a literal NaN, Infinity or -Infinity, which JSON does not have, until its place is known."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


class _Unfit(Exception):
    """A value does not fit; the arguments are what is wrong and a hint."""


def allowed_datatypes(kind: str) -> tuple[str, ...]:
    """The datatypes in which a request may send a column of type `kind`."""
    return (*_INTEGERS, *_FLOATS) if kind in ("int64", "float64") else (DATATYPE_OF[kind],)


def read_tensor(column: RequestColumn, datatype: Any, values: Sequence[Any], where: str) -> pa.Array[Any]:
    """The flat `data` of a tensor as an Arrow array of the column's type.

    A value counts as what its datatype says: a number in an FP32 tensor is rounded to FP32 first, and one in an
    INT8 tensor must fit INT8. After that it must be exactly a value of the column's type. JSON null is null, where
    the column is not required.

    Raises:
        RequestError: The datatype or a value does not fit; names the first such value and its row.
    """
    import pyarrow as pa

    allowed = allowed_datatypes(column.type)
    if datatype not in DATATYPES:
        raise RequestError(
            f"the datatype of {column.name!r} is {datatype!r}, which the protocol does not have",
            where=where,
            hint=did_you_mean(str(datatype), allowed, noun="datatypes of this input"),
        )
    if datatype not in allowed:
        raise RequestError(
            f"the datatype of {column.name!r} is {datatype}, and the model takes {column.type}",
            where=where,
            hint=f"send it as {' or '.join((DATATYPE_OF[column.type], *_others(column.type)))}" + _note(column),
        )
    convert = _reader(column.type, datatype)
    out: list[Any] = []
    for row, value in enumerate(values):
        if value is None:
            if column.required:
                raise RequestError(
                    f"{column.name!r} is null in row {row}", where=where, hint="the input is required in every row"
                )
            out.append(None)
            continue
        try:
            out.append(convert(value))
        except _Unfit as unfit:
            what, hint = unfit.args
            raise RequestError(f"{column.name!r} in row {row}: {what}", where=where, hint=hint) from unfit.__cause__
    array: pa.Array[Any] = pa.array(out, arrow_type(column.type))
    return array


def write_tensor(kind: str, values: pa.Array[Any] | pa.ChunkedArray[Any]) -> list[Any]:
    """The JSON data of a column; read back with `DATATYPE_OF[kind]` it gives the same values."""
    if kind == "instant":
        return [None if value is None else format_instant(value) for value in _instants(values)]
    data: list[Any] = values.to_pylist()
    return data


def _instants(values: pa.Array[Any] | pa.ChunkedArray[Any]) -> list[datetime | None]:
    return values.to_pylist()


def _others(kind: str) -> tuple[str, ...]:
    return ("another number datatype",) if kind in ("int64", "float64") else ()


def _note(column: RequestColumn) -> str:
    return ', an ISO 8601 instant such as "2013-12-01T08:00:00Z"' if column.type == "instant" else ""


def _reader(kind: str, datatype: str) -> Callable[[Any], Any]:
    if kind == "bool":
        return _read_bool
    if kind == "string":
        return _read_text
    if kind == "instant":
        return _read_instant
    read = _integer_reader(datatype) if datatype in _INTEGERS else _float_reader(datatype)
    narrow = _to_int64 if kind == "int64" else _to_float64
    return lambda value: narrow(read(value))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _read_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Unfit(f"found {_shown(value)}, expected true or false", "send JSON true or false")
    return value


def _read_text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Unfit(f"found {_shown(value)}, expected a string", "put the value in double quotes")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _Unfit(f"found {_shown(value)}, which is not valid Unicode", "send UTF-8 text") from error
    return value


def _read_instant(value: Any) -> datetime:
    if not isinstance(value, str):
        raise _Unfit(f"found {_shown(value)}, expected an instant", 'send ISO 8601 text such as "2013-12-01T08:00:00Z"')
    try:
        return parse_instant(value)
    except (ValueError, OverflowError) as error:
        hint = 'write it like "2013-12-01T08:00:00Z" or "2013-12-01T09:00:00+01:00"'
        raise _Unfit(f"found {_shown(value)}: {error}", hint) from error


def _number(value: Any) -> int | float:
    if isinstance(value, JsonConstant):
        raise _Unfit(f"found {value}, which is no JSON number", "send null where a value is unknown")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _Unfit(f"found {_shown(value)}, expected a number", "send a JSON number without quotes")
    if isinstance(value, float) and not math.isfinite(value):
        raise _Unfit("found a number that is too large for 64 bits", "send a finite number")
    return value


def _integer_reader(datatype: str) -> Callable[[Any], int]:
    low, high = _INTEGERS[datatype]

    def read(value: Any) -> int:
        number = _number(value)
        if isinstance(number, float):
            if not number.is_integer():
                raise _Unfit(f"found {number!r}, expected a whole number ({datatype})", "send it as FP64")
            number = int(number)
        if not low <= number <= high:
            raise _Unfit(f"found {_shown(number)}, which {datatype} cannot hold", f"{datatype} is {low}..{high}")
        return number

    return read


def _float_reader(datatype: str) -> Callable[[Any], int | float]:
    if datatype == "FP64":
        return _number
    form = struct.Struct(_FLOATS[datatype])

    def read(value: Any) -> float:
        number = _number(value)
        try:
            rounded: float = form.unpack(form.pack(number))[0]
        except (OverflowError, struct.error) as error:
            raise _Unfit(f"found {_shown(number)}, which {datatype} cannot hold", "send it as FP64") from error
        return rounded

    return read


def _to_int64(number: int | float) -> int:
    if isinstance(number, float):
        if not number.is_integer():
            raise _Unfit(f"found {number!r}, expected a whole number", "the model takes int64 here")
        number = int(number)
    low, high = _INT64
    if not low <= number <= high:
        raise _Unfit(f"found {_shown(number)}, which int64 cannot hold", f"int64 is {low}..{high}")
    return number


def _to_float64(number: int | float) -> float:
    try:
        wide = float(number)
    except OverflowError as error:
        raise _Unfit(f"found {_shown(number)}, which float64 cannot hold", "send a smaller number") from error
    if wide != number:
        raise _Unfit(f"found {number}, which float64 cannot hold exactly", "whole numbers are exact up to 2^53")
    return wide
