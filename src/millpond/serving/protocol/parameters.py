"""The parameters of a request that mean something to us."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from millpond.core.errors import RequestError
from millpond.core.names import closest
from millpond.core.time import parse_instant, to_microseconds
from millpond.serving.protocol.values import shown

_OURS = ("as_of", "explain", "routing_key")


def read_parameters(given: Mapping[str, Any], place: str) -> tuple[int | None, bool, str | None]:
    """`as_of` in microseconds, `explain` and `routing_key` of a request's parameters.

    Raises:
        RequestError: One is not what it must be, or is misspelt.
    """
    if not given:
        return None, False, None
    for name in given:
        # The protocol lets a server ignore parameters it does not know; a misspelt one of ours changes the answer.
        meant = _meant(name)
        if meant:
            raise RequestError(f"there is no parameter {name!r}", where=place, hint=f"did you mean {meant!r}?")
    explain = given.get("explain")
    if explain is not None and not isinstance(explain, bool):
        raise RequestError(
            f"parameters.explain is {shown(explain)}, expected true or false", where=place, hint="leave the quotes out"
        )
    routing_key = given.get("routing_key")
    if routing_key is not None and not isinstance(routing_key, str):
        raise RequestError(
            f"parameters.routing_key is {shown(routing_key)}, expected a string", where=place, hint="put it in quotes"
        )
    return _as_of(given.get("as_of"), place), bool(explain), routing_key


@lru_cache(maxsize=256)
def _meant(name: str) -> str | None:
    return None if name in _OURS else closest(name.lower(), _OURS)


def _as_of(value: Any, place: str) -> int | None:
    if value is None:
        return None
    try:
        if not isinstance(value, str):
            raise ValueError("expected an ISO 8601 instant")
        return to_microseconds(parse_instant(value))
    except (ValueError, OverflowError) as error:
        raise RequestError(
            f"parameters.as_of is {shown(value)}: {error}",
            where=place,
            hint='write it like "2013-12-01T08:00:00Z"',
        ) from error
