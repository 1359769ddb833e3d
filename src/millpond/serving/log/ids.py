"""The ids of a request's predictions, and which requests are logged."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import overload


class RowIds(Sequence[str]):
    """A prediction id a row, made when asked for: `base` for a single row, `base-0`, `base-1` ... for several.

    Args:
        base: An id of its own.
        count: Number of rows.
    """

    __slots__ = ("_count", "base")

    def __init__(self, base: str, count: int) -> None:
        self.base = base
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, row: int) -> str: ...

    @overload
    def __getitem__(self, row: slice) -> list[str]: ...

    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self[each] for each in range(*row.indices(self._count))]
        if not -self._count <= row < self._count:
            raise IndexError(row)
        return self.base if self._count == 1 else f"{self.base}-{row % self._count}"

    def __iter__(self) -> Iterator[str]:
        if self._count == 1:
            return iter((self.base,))
        return map(self.base.__add__, _suffixes(self._count))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and not isinstance(other, str) and list(self) == list(other)

    def __hash__(self) -> int:
        return hash((self.base, self._count))


@lru_cache(maxsize=16)
def _suffixes(count: int) -> list[str]:
    return [f"-{row}" for row in range(count)]


def base_of(identifier: str) -> str | None:
    """What the ids of all rows of a request begin with, if `identifier` is of one of several rows."""
    base, dash, row = identifier.rpartition("-")
    return base if dash and base and row.isascii() and row.isdigit() else None


def is_sampled(base: str, share: float) -> bool:
    """Whether the request with this id is among the `share` of requests that are logged; the same at each call."""
    return share >= 1.0 or zlib.crc32(base.encode()) < share * 2**32


def request_id_of(ids: Sequence[str]) -> str:
    """The id by which a request is sampled."""
    if isinstance(ids, RowIds):
        return ids.base
    return (base_of(ids[0]) or ids[0]) if len(ids) > 1 else ids[0]


def may_be_left_out(identifier: str, share: float) -> bool:
    """Whether a version that logs `share` of its requests has not logged the prediction of this id."""
    base = base_of(identifier)
    return not is_sampled(identifier, share) or (base is not None and not is_sampled(base, share))
