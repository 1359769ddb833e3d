"""One value of a tensor as a value of a column's type: the exact rules, and the words when it does not fit."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from millpond.core.errors import RequestError
from millpond.core.time import parse_instant, to_microseconds
from millpond.serving.ports import RequestColumn
from millpond.serving.protocol.datatypes import INT64, INTEGERS

_FLOATS: Mapping[str, str] = {"FP16": "<e", "FP32": "<f"}


class JsonConstant:
    """Stands for a literal NaN, Infinity or -Infinity, which JSON does not have, until its place is known."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


class _Unfit(Exception):
    """A value does not fit; the arguments are what is wrong and a hint."""


def shown(value: Any, length: int = 60) -> str:
    """A value for an error text."""
    text = repr(value)
    return text if len(text) <= length else text[: length - 3] + "..."


def json_name(value: Any) -> str:
    """What JSON calls a value."""
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null" if value is None else repr(value))


def read_values(column: RequestColumn, datatype: str, values: Sequence[Any], where: str) -> list[Any]:
    """The values as values of the column's type: bool, int, float, str, or for an instant int microseconds, UTC.

    A value counts as what its datatype says: a number in an FP32 tensor is rounded to FP32 first, and one in an
    INT8 tensor must fit INT8. After that it must be exactly a value of the column's type. None and NaN are null,
    where the column is not required.

    Args:
        column: Whose values they are.
        datatype: One of `allowed_datatypes(column.type)`.
        values: What the tensor holds; BYTES are str or UTF-8.
        where: The tensor, for errors.

    Raises:
        RequestError: A value does not fit; names the first such value and its row.
    """
    convert = _reader(column.type, datatype)
    found: list[Any] = []
    for row, value in enumerate(values):
        if value is None or (value.__class__ is float and math.isnan(value)):
            if column.required:
                raise RequestError(
                    f"{column.name!r} is null in row {row}", where=where, hint="the input is required in every row"
                )
            found.append(None)
            continue
        try:
            found.append(convert(value))
        except _Unfit as unfit:
            what, hint = unfit.args
            raise RequestError(f"{column.name!r} in row {row}: {what}", where=where, hint=hint) from unfit.__cause__
    return found


def _reader(kind: str, datatype: str) -> Callable[[Any], Any]:
    if kind == "bool":
        return _read_bool
    if kind == "string":
        return _read_text
    if kind == "instant":
        return _read_instant
    read = _integer_reader(datatype) if datatype in INTEGERS else _float_reader(datatype)
    narrow = _to_int64 if kind == "int64" else _to_float64
    return lambda value: narrow(read(value))


def _read_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Unfit(f"found {shown(value)}, expected true or false", "send JSON true or false")
    return value


def _text(value: Any, expected: str, hint: str) -> str:
    try:
        if isinstance(value, bytes):
            return value.decode()
        if isinstance(value, str):
            value.encode()
            return value
    except UnicodeError as error:
        raise _Unfit(f"found {shown(value)}, which is not valid Unicode", "send UTF-8 text") from error
    raise _Unfit(f"found {shown(value)}, expected {expected}", hint)


def _read_text(value: Any) -> str:
    return _text(value, "a string", "put the value in double quotes")


def _read_instant(value: Any) -> int:
    text = _text(value, "an instant", 'send ISO 8601 text such as "2013-12-01T08:00:00Z"')
    try:
        return to_microseconds(parse_instant(text))
    except (ValueError, OverflowError) as error:
        hint = 'write it like "2013-12-01T08:00:00Z" or "2013-12-01T09:00:00+01:00"'
        raise _Unfit(f"found {shown(text)}: {error}", hint) from error


def _number(value: Any) -> int | float:
    if isinstance(value, JsonConstant):
        raise _Unfit(f"found {value}, which is no JSON number", "send null where a value is unknown")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _Unfit(f"found {shown(value)}, expected a number", "send a JSON number without quotes")
    if isinstance(value, float) and math.isinf(value):
        raise _Unfit(
            f"found {value}: infinite, or too large for 64 bits", "send a finite number, or null where it is unknown"
        )
    return value


def _integer_reader(datatype: str) -> Callable[[Any], int]:
    low, high = INTEGERS[datatype]

    def read(value: Any) -> int:
        number = _number(value)
        if isinstance(number, float):
            if not number.is_integer():
                raise _Unfit(f"found {number!r}, expected a whole number ({datatype})", "send it as FP64")
            number = int(number)
        if not low <= number <= high:
            raise _Unfit(f"found {shown(number)}, which {datatype} cannot hold", f"{datatype} is {low}..{high}")
        return number

    return read


def _float_reader(datatype: str) -> Callable[[Any], int | float]:
    if datatype not in _FLOATS:
        return _number
    form = struct.Struct(_FLOATS[datatype])

    def read(value: Any) -> float:
        number = _number(value)
        try:
            rounded: float = form.unpack(form.pack(number))[0]
        except (OverflowError, struct.error) as error:
            raise _Unfit(f"found {shown(number)}, which {datatype} cannot hold", "send it as FP64") from error
        return rounded

    return read


def _to_int64(number: int | float) -> int:
    if isinstance(number, float):
        if not number.is_integer():
            raise _Unfit(f"found {number!r}, expected a whole number", "the model takes int64 here")
        number = int(number)
    low, high = INT64
    if not low <= number <= high:
        raise _Unfit(f"found {shown(number)}, which int64 cannot hold", f"int64 is {low}..{high}")
    return number


def _to_float64(number: int | float) -> float:
    try:
        wide = float(number)
    except OverflowError as error:
        raise _Unfit(f"found {shown(number)}, which float64 cannot hold", "send a smaller number") from error
    if wide != number:
        raise _Unfit(f"found {number}, which float64 cannot hold exactly", "whole numbers are exact up to 2^53")
    return wide
