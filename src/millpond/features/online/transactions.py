"""One map of an LMDB transaction as ordered bytes, for the code that keeps live state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class Reads:
    """`ports.KeyValueReads` of a map, as one transaction sees it."""

    def __init__(self, txn: Any, map_: Any) -> None:
        self._txn = txn
        self._map = map_

    def get(self, key: bytes) -> bytes | None:
        found: bytes | None = self._txn.get(key, None, self._map)
        return found

    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        cursor = self._txn.cursor(self._map)
        if cursor.set_range(start):
            for key, value in cursor.iternext():
                if key >= stop:
                    return
                yield key, value


class Writes(Reads):
    """`ports.KeyValueWrites` of a map; what is written during a scan does not disturb it."""

    def __init__(self, txn: Any, map_: Any) -> None:
        super().__init__(txn, map_)
        self._changes = 0

    def put(self, key: bytes, value: bytes) -> None:
        self._changes += 1
        self._txn.put(key, value, db=self._map)

    def delete(self, key: bytes) -> None:
        self._changes += 1
        self._txn.delete(key, db=self._map)

    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        cursor = self._txn.cursor(self._map)
        found = cursor.set_range(start)
        while found:
            key, value = cursor.item()
            if key >= stop:
                return
            seen = self._changes
            yield key, value
            if seen == self._changes:
                found = cursor.next()
            else:
                found = cursor.set_range(key) and (cursor.key() != key or cursor.next())


def after(prefix: bytes) -> bytes:
    """The least bytes that are greater than everything that begins with `prefix`."""
    return (int.from_bytes(prefix, "big") + 1).to_bytes(len(prefix), "big")


def clear(txn: Any, map_: Any, prefix: bytes, limit: int | None = None) -> int:
    """Delete the entries that begin with `prefix`, at most `limit` of them; how many were deleted."""
    count = 0
    cursor = txn.cursor(map_)
    found = cursor.set_range(prefix)
    while found and (limit is None or count < limit) and cursor.key().startswith(prefix):
        found = cursor.delete()
        count += 1
    return count
