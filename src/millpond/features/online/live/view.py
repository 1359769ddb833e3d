"""The live state of one view, in any ordered store of bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from millpond.core.errors import NotFound
from millpond.features.online.live.answer import Answer
from millpond.features.online.live.newest import Newest
from millpond.features.online.live.shape import Shape
from millpond.features.online.live.tree import HEAD, NODE, Head, Reader, Writer, newest_start
from millpond.features.online.ports import EntityKey, KeyValueReads, KeyValueWrites, OnlineView, Row

if TYPE_CHECKING:
    import pyarrow as pa


class LiveView:
    """Rows of a live view by entity, and the values of its features at any instant.

    Keys of the store are `prefix + entity + suffix`, the suffix being 1 or 5 bytes long; `entity` is any bytes such
    that no entity's are the beginning of another's. Values of rows are Python's: bool, int, float, str, date, aware
    datetime, Decimal, bytes. Everything that is kept in memory depends on the view alone, so that one object
    serves any number of threads.

    Args:
        view: The view.

    Raises:
        SchemaMismatch: The view has a column of a type whose values have no order.
    """

    def __init__(self, view: OnlineView) -> None:
        self.view = view
        self._shape = Shape(view)
        self._newest = Newest(self._shape)
        self._answer = Answer(self._shape)
        self._only_latest = len(self._newest.features) == len(view.features)

    def insert(self, kv: KeyValueWrites, prefix: bytes, entity: bytes, row: Row) -> None:
        """Add a row, at any place in time; an equal row is another one."""
        base = prefix + entity
        shape = self._shape
        raw = shape.raw(row)
        data = kv.get(base + HEAD)
        head = Head.unpack(data) if data else Head(0, 0, b"", shape.leaf.build([]))
        Writer(shape, kv, base, head).insert(raw)
        head.newest = self._newest.with_row(head.newest, raw)
        kv.put(base + HEAD, head.pack())

    def remove(self, kv: KeyValueWrites, prefix: bytes, entity: bytes, row: Row) -> None:
        """Take away a row that was inserted before, or one that is equal to it.

        Raises:
            NotFound: There is none.
        """
        base = prefix + entity
        shape = self._shape
        raw = shape.raw(row)
        data = kv.get(base + HEAD)
        if data is None:
            raise NotFound(f"The row {row} is not in the live state of view {self.view.name!r}")
        head = Head.unpack(data)
        if not Writer(shape, kv, base, head).remove(raw):
            kv.delete(base + HEAD)
            return
        head.newest = self._newest.without_row(head.newest, raw, Reader(shape, kv, base, head))
        kv.put(base + HEAD, head.pack())

    def compute(self, kv: KeyValueReads, prefix: bytes, entity: bytes, at: int) -> tuple[Any, ...] | None:
        """The features' values at an instant, equal to those of `join_features` over the same rows.

        Args:
            kv: The store.
            prefix: As the rows were inserted under.
            entity: Likewise.
            at: Microseconds since 1970 UTC; of no account where the view has no time.

        Returns:
            Values in order of the view's features: counts and integer sums as int; mean, std and other sums as float;
            the rest as values of the column. None where the entity has no row, visible or not.

        Raises:
            DataError: A sum of integers does not fit into 64 bits.
            StoreMismatch: The state was written in another format.
        """
        base = prefix + entity
        data = kv.get(base + HEAD)
        if data is None:
            return None
        if self.view.time is None:
            at = 1  # all rows have the time 0
        latest = self._newest.values(data, newest_start(data), at) if self._newest.features else None
        if latest is not None and self._only_latest:
            return tuple(latest)
        return self._answer.values(Reader(self._shape, kv, base, Head.unpack(data)), at, latest)

    def build(self, rows: pa.RecordBatchReader, entity: Callable[[EntityKey], bytes]) -> Iterator[tuple[bytes, bytes]]:
        """The state that inserting many rows would make: keys without prefix, and values.

        Args:
            rows: The view's source columns under their names, in the types of the lake; ordered by the entity's
                keys, then time. Rows with a null among the entity's keys, time and known are never visible and left
                out.
            entity: From the values of the entity's keys to its bytes.
        """
        from millpond.features.online.live.bulk import build

        return build(self._shape, self._newest, rows, entity)

    def forget(self, kv: KeyValueWrites, prefix: bytes, entity: bytes) -> int:
        """Delete an entity; how many rows it had."""
        base = prefix + entity
        data = kv.get(base + HEAD)
        if data is None:
            return 0
        head = Head.unpack(data)
        root = Reader(self._shape, kv, base, head).root
        rows = sum(root.column(self._shape.rows)) if head.level else root.count
        for key in [key for key, _ in kv.scan(base + NODE, base + HEAD)]:
            kv.delete(key)
        kv.delete(base + HEAD)
        return rows
