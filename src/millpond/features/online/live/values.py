"""How values of each type are kept: as a raw value that sorts as the value does, in a fixed or a variable width."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, Decimal
from typing import Any
from uuid import UUID

from millpond.core.errors import SchemaMismatch

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIRST_DAY = date(1970, 1, 1).toordinal()
_SINGLE = struct.Struct("<f")
_DECIMALS = Context(prec=77)

#: Greatest precision of a decimal whose unscaled value fits into 64 bits.
_NARROW_DECIMAL = 18


@dataclass(frozen=True)
class Type:
    """How a column's values are kept.

    A raw value is an int, a float or bytes; raw values compare as the values do.

    Attributes:
        code: Format character of `struct` for a raw value of fixed width; "" where the width varies.
        raw: From a Python value, never None.
        value: Back, to a value of the column's type.
        pack: From a raw value to bytes, where the width varies.
        unpack: Back.
        scale: A number is its raw value divided by this.
    """

    code: str
    raw: Callable[[Any], Any]
    value: Callable[[Any], Any]
    pack: Callable[[Any], bytes] = bytes
    unpack: Callable[[bytes], Any] = bytes
    scale: int = 1

    @property
    def restore(self) -> Callable[[Any], Any] | None:
        """From what `struct`, or a heap, gives to a value; None where it is one already."""
        if self.value is _same:
            return None
        value, unpack = self.value, self.unpack
        return value if self.code or unpack is bytes else lambda packed: value(unpack(packed))


def _same(value: Any) -> Any:
    return value


def _single(value: float) -> float:
    """The nearest float of 32 bits."""
    return float(_SINGLE.unpack(_SINGLE.pack(value))[0])


def _instant(value: datetime) -> int:
    return (value - EPOCH) // _MICROSECOND


def _to_instant(raw: int) -> datetime:
    return EPOCH + timedelta(microseconds=raw)


def _clock(value: time) -> int:
    return ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond


def _to_clock(raw: int) -> time:
    return _to_instant(raw).time()


def _decimal(precision: int, scale: int) -> Type:
    unit = 10**scale

    def raw(value: Decimal) -> int:
        return int(_DECIMALS.scaleb(value, scale))

    def value(raw: int) -> Decimal:
        return _DECIMALS.scaleb(Decimal(raw), -scale)

    if precision <= _NARROW_DECIMAL:
        return Type("q", raw, value, scale=unit)
    return Type(
        "",
        raw,
        value,
        pack=lambda raw: raw.to_bytes(16, "little", signed=True),
        unpack=lambda packed: int.from_bytes(packed, "little", signed=True),
        scale=unit,
    )


_TYPES = {
    "boolean": Type("b", int, bool),
    "int": Type("i", int, _same),
    "long": Type("q", int, _same),
    "float": Type("f", _single, _same),
    "double": Type("d", float, _same),
    "string": Type("", str.encode, bytes.decode),
    "date": Type("i", lambda value: value.toordinal() - _FIRST_DAY, lambda raw: date.fromordinal(raw + _FIRST_DAY)),
    "time": Type("q", _clock, _to_clock),
    "timestamptz": Type("q", _instant, _to_instant),
    "binary": Type("", _same, bytes),
    "uuid": Type("", lambda value: value.bytes, lambda raw: UUID(bytes=raw)),
}


def type_of(type_: str, column: str, view: str) -> Type:
    """How values of an Iceberg type are kept.

    Raises:
        SchemaMismatch: Values of the type are not ordered, so that no live view can hold them.
    """
    if found := re.fullmatch(r"decimal\((\d+),\s*(\d+)\)", type_):
        return _decimal(int(found[1]), int(found[2]))
    if type_.startswith("fixed"):
        return _TYPES["binary"]
    if type_ not in _TYPES:
        raise SchemaMismatch(
            f"Column {column!r} is {type_}, which a live view cannot hold",
            where=f"feature view {view!r}",
            hint="take its parts as columns of their own, or give the view every=",
        )
    return _TYPES[type_]
