"""Instants, durations and refresh grids.

An instant is a time-zone aware `datetime` in UTC with microseconds; a duration is a whole number of microseconds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNIT_MICROSECONDS = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 7 * 86_400_000_000,
}
_PART = re.compile(r"(\d+)(us|ms|s|m|h|d|w)")

DURATION_RULE = 'a duration is written like "30m", "1h", "7d" or "1d12h" (units: us ms s m h d w)'


@dataclass(frozen=True, order=True)
class Duration:
    """A positive length of time in whole microseconds. A day is 24 hours, a week 7 days; no calendar months."""

    microseconds: int

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Read "90s", "1h", "1d12h".

        Raises:
            ValueError: The text has no, a zero, or an unknown part.
        """
        parts = _PART.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            raise ValueError(f"{text!r} is not a duration; {DURATION_RULE}")
        total = sum(int(number) * _UNIT_MICROSECONDS[unit] for number, unit in parts)
        if total <= 0:
            raise ValueError(f"{text!r} is not longer than zero")
        return cls(total)

    @property
    def delta(self) -> timedelta:
        return timedelta(microseconds=self.microseconds)

    def __str__(self) -> str:
        rest, out = self.microseconds, ""
        for unit in ("d", "h", "m", "s", "ms", "us"):
            count, rest = divmod(rest, _UNIT_MICROSECONDS[unit])
            out += f"{count}{unit}" if count else ""
        return out


def now() -> datetime:
    """The current instant."""
    return datetime.now(UTC)


def parse_instant(text: str) -> datetime:
    """Read an ISO 8601 instant that says its offset ("2013-12-01T08:00:00Z", "...+01:00") as UTC.

    Raises:
        ValueError: The text is no ISO 8601 date and time, or says no offset.
    """
    try:
        value = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise ValueError(f'{text!r} is not an ISO 8601 instant such as "2013-12-01T08:00:00Z"') from error
    if value.tzinfo is None:
        raise ValueError(f'{text!r} names no time zone; add "Z" or an offset such as "+01:00"')
    return value.astimezone(UTC)


def parse_boundary(text: str) -> datetime:
    """Read an instant, or a plain date, which means midnight UTC of that day."""
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text.strip()):
        return datetime.fromisoformat(text.strip()).replace(tzinfo=UTC)
    return parse_instant(text)


def format_instant(value: datetime) -> str:
    """An instant as ISO 8601 in UTC, with microseconds only where there are any: "2013-12-01T08:00:00Z"."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def to_microseconds(value: datetime) -> int:
    """Microseconds since 1970-01-01T00:00:00Z, exact."""
    return (value - _EPOCH) // timedelta(microseconds=1)


def from_microseconds(value: int) -> datetime:
    """The instant `value` microseconds after 1970-01-01T00:00:00Z."""
    return _EPOCH + timedelta(microseconds=value)


def grid_floor(value: datetime, every: Duration) -> datetime:
    """The last point `<= value` of the grid of step `every` that goes through 1970-01-01T00:00:00Z."""
    step = every.microseconds
    return from_microseconds(to_microseconds(value) // step * step)
