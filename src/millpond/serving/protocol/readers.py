"""Functions that read the one value of a column in the short way: each gives the value, or raises where in doubt.

What they raise is a TypeError, ValueError, OverflowError, IndexError or struct.error; the exact way is `values`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from millpond.core.time import parse_instant, to_microseconds
from millpond.serving.ports import RequestColumn
from millpond.serving.protocol.datatypes import EXACT, INT64, INTEGERS

#: Struct codes of datatypes of numbers.
CODES: Mapping[str, str] = {
    **dict(zip(("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"), "bhiqBHIQ", strict=True)),
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}


def reader(column: RequestColumn, datatype: str) -> Callable[[Any], Any] | None:
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
    if type(value) is bytes:
        return value.decode()
    raise TypeError


def _instant(value: Any) -> int:
    return to_microseconds(parse_instant(_text(value)))


def raw_reader(datatype: str) -> Callable[[bytes], Any]:
    if datatype in CODES:
        unpack = struct.Struct(f"<{CODES[datatype]}").unpack
        return lambda raw: unpack(raw)[0]
    return {"BOOL": _raw_bool, "BYTES": _raw_text}[datatype]


def _raw_bool(raw: bytes) -> bool:
    return (False, True)[raw[0]] if len(raw) == 1 else _doubt()


def _raw_text(raw: bytes) -> str:
    text = bytes(raw[4:])
    return text.decode() if int.from_bytes(raw[:4], "little") == len(text) and len(raw) >= 4 else _doubt()


def _doubt() -> NoReturn:
    raise TypeError
