"""Columns and matrices of tensors: many values at once where they plainly fit, else one by one.

What is done at once decides only that values fit. Whatever is in doubt goes value by value through
`values.read_values`, which knows the exact rules and says what is wrong.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from millpond.core.errors import RequestError
from millpond.core.names import did_you_mean
from millpond.serving.ports import RequestColumn
from millpond.serving.protocol.datatypes import (
    DATATYPE_OF,
    DATATYPES,
    EXACT,
    INTEGERS,
    LAYOUTS,
    allowed_datatypes,
)
from millpond.serving.protocol.raw import read_raw
from millpond.serving.protocol.values import json_name, read_values

if TYPE_CHECKING:
    from millpond.serving.rows import Column

#: Up to so many rows a column is a list.
FEW = 16

_Array = np.ndarray[Any, Any]


def check_datatype(column: RequestColumn, datatype: Any, where: str) -> None:
    """Refuse a datatype that the protocol does not have, or that cannot hold the column's type."""
    allowed = allowed_datatypes(column.type)
    if datatype not in DATATYPES:
        raise RequestError(
            f"the datatype of {column.name!r} is {datatype!r}, which the protocol does not have",
            where=where,
            hint=did_you_mean(str(datatype), allowed, noun="datatypes of this input"),
        )
    if datatype not in allowed:
        others = " or another number datatype" if column.type in ("int64", "float64") else ""
        note = ', an ISO 8601 instant such as "2013-12-01T08:00:00Z"' if column.type == "instant" else ""
        raise RequestError(
            f"the datatype of {column.name!r} is {datatype}, and the model takes {column.type}",
            where=where,
            hint=f"send it as {DATATYPE_OF[column.type]}{others}{note}",
        )


def elements(datatype: str, data: Any, count: int, where: str) -> list[Any] | _Array:
    """The flat elements of a tensor's data: bytes in the raw layout are read, and a list or an array is left alone.

    Raises:
        RequestError: It is none of these, or not as long as it must be, or a list of BF16.
    """
    if isinstance(data, (bytes, memoryview)):
        return read_raw(datatype, data, count, where)
    if isinstance(data, np.ndarray):
        return data.reshape(-1)
    if not isinstance(data, list):
        found = "is missing" if data is None else f"is a JSON {json_name(data)}"
        raise RequestError(f"data {found}, expected an array of {count} values", where=where)
    if datatype == "BF16":
        raise RequestError("BF16 comes only in binary", where=where, hint="send FP32, which holds the same values")
    return data


def read_column(column: RequestColumn, datatype: str, values: list[Any] | _Array, where: str) -> Column:
    """Flat elements as a column of the column's type; see `values.read_values` for the rules.

    Returns:
        A list for `FEW` rows or fewer, for text and instants, and for bool and int64 with nulls; else an array.

    Raises:
        RequestError: A value does not fit.
    """
    if len(values) > FEW:
        found = _at_once(column, datatype, values)
        if found is not None:
            return found
    listed = values.tolist() if isinstance(values, np.ndarray) else values
    exact = read_values(column, datatype, listed, where)
    return exact if len(exact) <= FEW else _pack(column.type, exact)


def read_matrix(datatype: str, values: list[Any] | _Array, whole: list[int], width: int) -> _Array | None:
    """Flat elements as a float64 matrix of `width` columns, NaN for null; None where it is in doubt that they fit.

    Args:
        datatype: Of numbers.
        values: A multiple of `width` of them.
        whole: The columns that take only whole numbers.
        width: Columns.
    """
    flat = _floats(datatype, values)
    if flat is None:
        return None
    matrix: _Array = flat.reshape(-1, width)
    return matrix if not whole or are_whole(matrix[:, whole]) else None


def are_whole(numbers: _Array) -> bool:
    """Whether all of some float64 are whole numbers that are exact, or null."""
    return bool((np.isnan(numbers) | ((numbers == np.floor(numbers)) & (np.abs(numbers) <= EXACT))).all())


def _at_once(column: RequestColumn, datatype: str, values: list[Any] | _Array) -> Column | None:
    kind = column.type
    if kind == "float64":
        found = _floats(datatype, values)
        return None if found is None or (column.required and np.isnan(found).any()) else found
    if kind == "int64":
        return _integers(datatype, values)
    if isinstance(values, np.ndarray):
        return values if kind == "bool" and values.dtype == np.bool_ else None
    types = set(map(type, values))
    if kind == "bool":
        return np.array(values, np.bool_) if types == {bool} else None
    if kind != "string":
        return None
    try:
        if types == {bytes}:
            return [each.decode() for each in values]
        if types == {str}:
            "".join(values).encode()
            return values
    except UnicodeError:
        pass
    return None


def _floats(datatype: str, values: list[Any] | _Array) -> _Array | None:
    """Numbers as float64; None where one may not be exact, may be none, or is infinite."""
    if not isinstance(values, np.ndarray):
        listed = _array(datatype, values)
        if listed is None:
            return None
        values = listed
    elif values.dtype.kind not in "iuf":
        return None
    if values.dtype.kind != "f":
        if values.dtype.itemsize == 8 and len(values) and not -EXACT <= int(values.min()) <= int(values.max()) <= EXACT:
            return None
        return values.astype(np.float64)
    wide = values.astype(np.float64)
    return None if np.isinf(wide).any() else wide


def _array(datatype: str, values: list[Any]) -> _Array | None:
    """A list of Python numbers, and of None for null, as the array that its datatype means."""
    types = set(map(type, values))
    if datatype in INTEGERS:
        if types != {int}:
            return None
        low, high = INTEGERS[datatype]
        return np.array(values, LAYOUTS[datatype]) if low <= min(values) and max(values) <= high else None
    if not types <= {float, int, type(None)} or datatype == "BF16":
        return None
    wide = np.array(values, np.float64)
    if int in types and (np.abs(wide) >= EXACT).any():
        return None
    with np.errstate(over="ignore"):
        return wide.astype(LAYOUTS[datatype])


def _integers(datatype: str, values: list[Any] | _Array) -> _Array | None:
    if not isinstance(values, np.ndarray):
        listed = _array(datatype, values)
        if listed is None:
            return None
        values = listed
    if values.dtype.kind == "f":
        wide = values.astype(np.float64)
        fits = (wide == np.floor(wide)) & (np.abs(wide) <= EXACT)
        return wide.astype(np.int64) if fits.all() else None
    if values.dtype.kind not in "iu" or (values.dtype == np.uint64 and values.max() >= 1 << 63):
        return None
    return values.astype(np.int64)


def _pack(kind: str, values: list[Any]) -> Column:
    """Many values of one type in the form that a column of them has."""
    if kind == "float64":
        return np.array(values, np.float64)
    if None in values or kind not in ("int64", "bool"):
        return values
    return np.array(values, np.int64 if kind == "int64" else np.bool_)


def nulls(kind: str, count: int) -> Column:
    """A column that is null in every row."""
    return np.full(count, np.nan) if kind == "float64" and count > FEW else [None] * count


def flatten(data: list[Any], width: int) -> list[Any] | None:
    """The elements of rows of `width` each in lists of their own, or None where they are not that."""
    if set(map(type, data)) != {list} or set(map(len, data)) != {width}:
        return None
    return list(chain.from_iterable(data))
