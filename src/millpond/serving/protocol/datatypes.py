"""Tensor datatypes of the Open Inference Protocol, and which of them hold the types of columns."""

from __future__ import annotations

from collections.abc import Mapping

#: Integer datatypes: the least and the greatest value.
INTEGERS: Mapping[str, tuple[int, int]] = {
    **{f"INT{bits}": (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": (0, (1 << bits) - 1) for bits in (8, 16, 32, 64)},
}
FLOATS = ("FP16", "FP32", "FP64", "BF16")
NUMBERS = (*INTEGERS, *FLOATS)
DATATYPES = ("BOOL", *NUMBERS, "BYTES")

#: How the elements of a datatype lie in binary: NumPy type strings, little-endian. BYTES have no fixed size.
LAYOUTS: Mapping[str, str] = {
    "BOOL": "u1",
    **{f"INT{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
    "BF16": "<u2",
}

#: The datatype that metadata names for a column; requests may use any other that holds the same values exactly.
DATATYPE_OF: Mapping[str, str] = {
    "bool": "BOOL",
    "int64": "INT64",
    "float64": "FP64",
    "string": "BYTES",
    "instant": "BYTES",
}
INT64 = INTEGERS["INT64"]

#: Whole numbers up to this are exact as float64, and so is everything that is made of them.
EXACT = 1 << 53


def allowed_datatypes(kind: str) -> tuple[str, ...]:
    """The datatypes in which a request may send a column of type `kind`."""
    return NUMBERS if kind in ("int64", "float64") else (DATATYPE_OF[kind],)
