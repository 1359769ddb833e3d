"""Trees from rows in order: batches become segments of bytes at once, and leaves are slices of them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa  # noqa: TID253 - imported by a bulk load alone
import pyarrow.compute as pc  # noqa: TID253

from millpond.features.online.live.columns import Node, PackedRow
from millpond.features.online.live.newest import Newest
from millpond.features.online.live.segments import Segments
from millpond.features.online.live.shape import Shape
from millpond.features.online.live.tree import HEAD, MOST_CHILDREN, MOST_ROWS, Head, node_key
from millpond.features.online.ports import EntityKey

_Entries = Iterator[tuple[bytes, bytes]]


@dataclass
class _Growing:
    """An entity whose rows are being read.

    Attributes:
        bytes: The entity's.
        next: Number of the next node.
        children: Summaries of the leaves so far.
    """

    bytes: bytes
    next: int = 0
    children: list[PackedRow] = field(default_factory=list)


def build(shape: Shape, newest: Newest, rows: pa.RecordBatchReader, entity: Callable[[EntityKey], bytes]) -> _Entries:
    """As `LiveView.build`. An entity's nodes come in order of their keys, the head last."""
    return _Builder(shape, newest, entity).build(rows)


class _Builder:
    def __init__(self, shape: Shape, newest: Newest, entity: Callable[[EntityKey], bytes]) -> None:
        self._shape = shape
        self._newest = newest
        self._entity = entity
        self._growing: _Growing | None = None

    def build(self, rows: pa.RecordBatchReader) -> _Entries:
        held: pa.Table | None = None
        for batch in rows:
            table = self._known_rows(pa.Table.from_batches([batch]))
            if held is not None:
                table = pa.concat_tables([held, table])
            if table.num_rows:
                held = yield from self._take(table.combine_chunks(), last=False)
        if held is not None and held.num_rows:
            yield from self._take(held.combine_chunks(), last=True)

    def _known_rows(self, table: pa.Table) -> pa.Table:
        """Those that can ever be visible to anyone."""
        view = self._shape.view
        needed = [*view.entity_keys, *(each for each in (view.time, view.known) if each)]
        for name in needed:
            if table[name].null_count:
                table = table.filter(pc.is_valid(table[name]))
        return table

    def _take(self, table: pa.Table, *, last: bool) -> Generator[tuple[bytes, bytes], None, pa.Table]:
        """The entries of the entities of a table, whose first may have begun before.

        Unless it is the last table, its last entity may go on: then full leaves are made of its rows, but of none that
        more rows may tie with.

        Returns:
            The rows that were not used, in order.
        """
        starts = _starts([table[name] for name in self._shape.view.entity_keys])
        segments = Segments(self._shape, table, starts)
        keys = list(zip(*(table[name].take(starts).to_pylist() for name in self._shape.view.entity_keys), strict=True))
        stops = [*starts[1:].tolist(), table.num_rows]
        final = len(keys) - 1
        for index, (start, stop, key) in enumerate(zip(starts.tolist(), stops, keys, strict=True)):
            growing = self._growing or _Growing(self._entity(key))
            if index == final and not last:
                self._growing = growing
                end: int = start + (segments.tied(start, stop) - start) // MOST_ROWS * MOST_ROWS
                yield from self._leaves(growing, segments, start, end)
                return segments.table.slice(end)
            self._growing = None
            yield from self._finish(growing, segments, start, stop)
        return segments.table.slice(table.num_rows)

    def _leaves(self, growing: _Growing, segments: Segments, start: int, stop: int) -> _Entries:
        for at in range(start, stop, MOST_ROWS):
            yield self._node(growing, segments.leaf(at, min(stop, at + MOST_ROWS)), 0, growing.children)

    def _finish(self, growing: _Growing, segments: Segments, start: int, stop: int) -> _Entries:
        if not growing.children and stop - start <= MOST_ROWS:
            level, root = 0, segments.leaf(start, stop)
        else:
            yield from self._leaves(growing, segments, start, stop)
            level, children = 1, growing.children
            while len(children) > MOST_CHILDREN:
                above: list[PackedRow] = []
                for at in range(0, len(children), MOST_CHILDREN):
                    data = self._shape.summary.build(children[at : at + MOST_CHILDREN])
                    yield self._node(growing, data, level, above)
                level, children = level + 1, above
            root = self._shape.summary.build(children)
        newest = b""
        if self._newest.features:
            node = Node(self._shape.leaf, segments.leaf(segments.tied(start, stop), stop))
            newest = self._newest.of_rows(lambda: ((node, index) for index in reversed(range(node.count))))
        yield growing.bytes + HEAD, Head(level, growing.next, newest, root).pack()

    def _node(self, growing: _Growing, data: bytes, level: int, siblings: list[PackedRow]) -> tuple[bytes, bytes]:
        number = growing.next
        growing.next += 1
        summary = self._shape.summarize(Node(self._shape.layout(level), data), level)
        summary[self._shape.child] = number
        siblings.append(self._shape.summary.pack(summary))
        return growing.bytes + node_key(number), data


def _starts(keys: Sequence[pa.ChunkedArray[Any]]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Where rows of another entity begin."""
    count = len(keys[0])
    changes = np.zeros(count, dtype=bool)
    changes[0] = True
    for key in keys:
        changes[1:] |= pc.not_equal(key.slice(1), key.slice(0, count - 1)).to_numpy()
    return np.flatnonzero(changes)
