"""Plain values, as they come in JSON or as text, read as values of a column's type."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from millpond.core.time import parse_instant


def read_value(value: Any, kind: str) -> Any:
    """A plain value as one of `kind`; None, and an empty text for anything but a string, is null. NaN is null.

    Args:
        value: What JSON, a form or Python gives.
        kind: "bool", "int64", "float64", "string", "instant", "date", "decimal" or "binary".

    Raises:
        ValueError: It is none; the message says why.
    """
    if value is None or (isinstance(value, str) and not value and kind != "string"):
        return None
    try:
        return _READERS[kind](value)
    except (TypeError, InvalidOperation) as error:
        raise ValueError(f"a {type(value).__name__} does not fit") from error


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    raise ValueError("write true or false")


def _integer(value: Any) -> int:
    if isinstance(value, bool):
        raise ValueError("it is a boolean")
    number = int(value) if isinstance(value, str) else value
    if int(number) != number:
        raise ValueError("it is no whole number")
    if not -(2**63) <= number < 2**63:
        raise ValueError("it does not fit into 64 bits")
    return int(number)


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        raise ValueError("it is a boolean")
    number = float(value)
    return None if math.isnan(number) else number


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"it is a {type(value).__name__}; put it in quotes")
    return value


def _moment(value: Any) -> datetime:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("it names no time zone")
        return value
    return parse_instant(_string(value))


def _day(value: Any) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    return date.fromisoformat(_string(value))


def _decimal(value: Any) -> Decimal:
    if isinstance(value, bool):
        raise ValueError("it is a boolean")
    return Decimal(str(value))


def _binary(value: Any) -> bytes:
    return value if isinstance(value, bytes) else bytes.fromhex(_string(value))


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "bool": _boolean,
    "int64": _integer,
    "float64": _number,
    "string": _string,
    "instant": _moment,
    "date": _day,
    "decimal": _decimal,
    "binary": _binary,
}
