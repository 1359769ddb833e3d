"""Keys as bytes: prefix-free, ordered as their values are, and short enough for an ordered map.

A key is one marker byte and the parts, each of which tells where it ends: strings end in two zero bytes and write a
zero byte within as 00 FF; everything else has a fixed width. No key is the beginning of another, so whatever follows
a key (the suffix of a live view's entries) cannot be mistaken for a part of it. A key that would be longer than
`LONGEST` is its SHA-256 instead, under another marker; such keys are equal when their values are, but not ordered.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from millpond.core.errors import DataError
from millpond.core.time import to_microseconds
from millpond.features.plan import column_kind

if TYPE_CHECKING:
    import pyarrow as pa

#: Bytes of the longest key; the map takes 511, and what comes before and after a key needs room as well.
LONGEST = 192

_PLAIN, _HASHED = b"\x01", b"\x02"
_SIGN = 1 << 63
_WIDE_SIGN = 1 << 127
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_pack_long = struct.Struct(">Q").pack
_pack_plain_long = struct.Struct(">BQ").pack
_pack_double = struct.Struct(">d").pack


def integer(value: int) -> bytes:
    """A 64-bit integer as eight bytes that sort as it does."""
    return _pack_long(value + _SIGN)


class KeyCodec:
    """Writes keys of some columns. Immutable; safe across threads.

    Args:
        columns: The key columns, in order.
        types: Their Iceberg types.

    Attributes:
        encode: Gives a key as at most `LONGEST` bytes. It takes one value a column, in the columns' Python types;
            instants may be microseconds since 1970 UTC. DataError: a value is null or not of its column's type, or
            there are more or fewer than columns.
    """

    def __init__(self, columns: Sequence[str], types: Mapping[str, str]) -> None:
        self.columns = tuple(columns)
        self._encoders = tuple(_encoder(types[name]) for name in self.columns)
        self.encode: Callable[[Sequence[Any]], bytes] = self._encode
        if self._encoders == (_string,):
            self.encode = self._encode_string
        elif self._encoders == (_integer,):
            self.encode = self._encode_integer

    def _encode_string(self, key: Sequence[Any]) -> bytes:
        """As `encode` of a key of one string, which most keys are."""
        try:
            (value,) = key
            encoded = value.encode()
        except (TypeError, ValueError, AttributeError):
            return self._encode(key)
        if b"\0" in encoded or len(encoded) > LONGEST - 3:
            return self._encode(key)
        return b"\x01%b\0\0" % encoded

    def _encode_integer(self, key: Sequence[Any]) -> bytes:
        """As `encode` of a key of one integer."""
        try:
            (value,) = key
            if value.__class__ is int:
                return _pack_plain_long(1, value + _SIGN)
        except (TypeError, ValueError, struct.error):
            pass
        return self._encode(key)

    def _encode(self, key: Sequence[Any]) -> bytes:
        try:
            encoded = _PLAIN + b"".join([each(v) for each, v in zip(self._encoders, key, strict=True)])
        except (TypeError, ValueError, AttributeError, OverflowError, struct.error, InvalidOperation) as cause:
            raise self._refuse(key) from cause
        return encoded if len(encoded) <= LONGEST else _HASHED + hashlib.sha256(encoded).digest()

    def encode_columns(self, rows: pa.Table | pa.RecordBatch) -> list[bytes | None]:
        """The keys of all rows; None where a part of it is null."""
        columns = [plain(rows.column(name)) for name in self.columns]
        encode = self.encode
        if len(columns) == 1:
            return [None if value is None else encode((value,)) for value in columns[0]]
        return [None if None in key else encode(key) for key in zip(*columns, strict=True)]

    def _refuse(self, key: Sequence[Any]) -> DataError:
        values, columns = ", ".join(repr(each) for each in key), ", ".join(self.columns)
        return DataError(f"({values}) is no key of ({columns})", hint="give one value a column, of the column's type")


def plain(column: pa.Array[Any] | pa.ChunkedArray[Any]) -> list[Any]:
    """A column's values for `KeyCodec.encode`; instants as microseconds since 1970 UTC."""
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp("us", tz=column.type.tz)).cast(pa.int64()).to_pylist()
    return column.to_pylist()


def _encoder(type_: str) -> Callable[[Any], bytes]:
    kind = column_kind(type_)
    if kind == "decimal":
        return _decimals(type_)
    found = {
        "string": _string,
        "integer": _integer,
        "boolean": _boolean,
        "date": _date,
        "instant": _instant,
        "float": _float,
    }.get(kind)
    if found is None:
        raise DataError(
            f"A column of type {type_} cannot be a key online",
            hint="a key is made of strings, integers, booleans, dates, instants, decimals or floats",
        )
    return found


def _string(value: str) -> bytes:
    encoded = value.encode("utf-8", "surrogatepass")
    return (encoded.replace(b"\0", b"\0\xff") if b"\0" in encoded else encoded) + b"\0\0"


def _integer(value: Any) -> bytes:
    if value.__class__ is not int:
        value = _index(value)
    return _pack_long(value + _SIGN)


def _index(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError("a boolean is no integer")
    return int(value.__index__())


def _boolean(value: Any) -> bytes:
    if value is True or value is False:
        return b"\x01" if value else b"\x00"
    raise TypeError("not a boolean")


def _date(value: date) -> bytes:
    if isinstance(value, datetime):
        raise TypeError("an instant is no date")
    return _pack_long(value.toordinal() - _EPOCH_DAY + _SIGN)


def _instant(value: datetime | int) -> bytes:
    return _pack_long((value if value.__class__ is int else to_microseconds(value)) + _SIGN)  # type: ignore[arg-type]


def _float(value: float) -> bytes:
    value = float(value) + 0.0  # -0.0 becomes 0.0
    if math.isnan(value):
        raise ValueError("NaN is no key")
    packed = _pack_double(value)
    return bytes(byte ^ 0xFF for byte in packed) if packed[0] & 0x80 else bytes([packed[0] | 0x80]) + packed[1:]


def _decimals(type_: str) -> Callable[[Any], bytes]:
    found = re.match(r"decimal\(\s*\d+\s*,\s*(\d+)\s*\)", type_)
    scale = int(found[1]) if found else 0

    def encode(value: Decimal | int) -> bytes:
        if isinstance(value, bool | float):
            raise TypeError("not a decimal")
        sign, digits, exponent = Decimal(value).as_tuple()
        unscaled, shift = int("".join(map(str, digits)) or "0"), int(exponent) + scale
        if shift < 0:
            unscaled, rest = divmod(unscaled, 10**-shift)
            if rest:
                raise ValueError("more digits than the column has")
        else:
            unscaled *= int(10**shift)
        return ((-unscaled if sign else unscaled) + _WIDE_SIGN).to_bytes(16, "big")

    return encode
