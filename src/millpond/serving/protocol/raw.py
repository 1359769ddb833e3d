"""The raw layout of tensors: elements in row-major order, little-endian, without padding.

BYTES elements are a 4-byte length and that many bytes each; BOOL is one byte, 0 or 1; BF16 is the upper half of an
FP32. The binary tensor extension of REST and the raw contents of gRPC share it.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from millpond.core.errors import RequestError
from millpond.serving.protocol.datatypes import INTEGERS, LAYOUTS
from millpond.serving.protocol.tensors import OutTensor

_LENGTH = struct.Struct("<I")


def read_raw(datatype: str, data: bytes | memoryview, count: int, where: str) -> np.ndarray[Any, Any] | list[bytes]:
    """The `count` elements of a raw tensor: an array, or the byte strings of BYTES.

    BF16 comes as float32, which holds it exactly; BOOL as bool. The array may share memory with `data`.

    Raises:
        RequestError: The data is not as long as its elements, or a BOOL is neither 0 nor 1.
    """
    if datatype == "BYTES":
        return _read_strings(data, count, where)
    layout = np.dtype(LAYOUTS[datatype])
    if len(data) != count * layout.itemsize:
        raise RequestError(
            f"the binary data has {len(data)} bytes, and {count} values of {datatype} have {count * layout.itemsize}",
            where=where,
            hint="the size follows from shape and datatype",
        )
    found: np.ndarray[Any, Any] = np.frombuffer(data, layout)
    if datatype == "BF16":
        return (found.astype(np.uint32) << 16).view(np.float32)
    if datatype == "BOOL":
        if count and found.max() > 1:
            row = int((found > 1).argmax())
            raise RequestError(
                f"element {row} is the byte {found[row]}, which is no BOOL", where=where, hint="a BOOL is 0 or 1"
            )
        return found.view(np.bool_)
    return found


def _read_strings(data: bytes | memoryview, count: int, where: str) -> list[bytes]:
    found: list[bytes] = []
    at, end = 0, len(data)
    for element in range(count):
        start = at + 4
        if start > end:
            raise _cut(f"{element} of {count} elements", where)
        at = start + _LENGTH.unpack_from(data, at)[0]
        if at > end:
            raise _cut(f"a part of element {element}", where)
        found.append(bytes(data[start:at]))
    if at != end:
        raise _cut(f"{count} elements and {end - at} bytes more", where)
    return found


def _cut(found: str, where: str) -> RequestError:
    hint = "each element is a 4-byte little-endian length and its bytes"
    return RequestError(f"the binary data holds {found}", where=where, hint=hint)


def raw_bytes(tensor: OutTensor) -> bytes:
    """A tensor in the raw layout; text as UTF-8, and null as NaN, or as empty text.

    Raises:
        ValueError: A null where the datatype has none.
    """
    return encode_raw(tensor.datatype, tensor.column)


def encode_raw(datatype: str, values: Any) -> bytes:
    """`values`, a list or an array of any shape, in the raw layout of `datatype`; see `raw_bytes`."""
    if datatype == "BYTES":
        parts = bytearray()
        for value in values:
            text = value if isinstance(value, bytes) else ("" if value is None else str(value)).encode()
            parts += _LENGTH.pack(len(text)) + text
        return bytes(parts)
    if datatype == "BF16":
        return _brain_floats(np.asarray(values, np.float32)).tobytes()
    if isinstance(values, list) and (datatype == "BOOL" or datatype in INTEGERS) and None in values:
        raise ValueError(f"{datatype} has no null")
    kind = "?" if datatype == "BOOL" else LAYOUTS[datatype]
    return np.asarray(values, kind).tobytes()


def _brain_floats(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The upper halves, rounded to nearest, ties to even; NaN stays NaN."""
    bits = values.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    halves = np.where(np.isnan(values), 0x7FC0, rounded)
    return halves.astype(np.dtype("<u2"))
