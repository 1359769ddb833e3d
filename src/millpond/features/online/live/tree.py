"""An entity's rows in order of (time, known, key), as a tree whose nodes sum up what lies below them.

The root lies in the entity's head, every other node has a key of its own. A node that grows too large is split in two;
one that becomes empty goes; nodes are not merged, as events are rarely deleted.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

from millpond.core.errors import NotFound, StoreMismatch
from millpond.features.online.live.columns import Node, PackedRow
from millpond.features.online.live.shape import TIME, Shape
from millpond.features.online.ports import KeyValueReads, KeyValueWrites

#: A node with more rows, or more children, is split.
MOST_ROWS = 64
MOST_CHILDREN = 64

#: What follows an entity's bytes in the key of its head, and before the number of a node. Nodes come before the head.
HEAD = b"\x01"
NODE = b"\x00"

_FORMAT = 1
_HEAD = struct.Struct("<BBII")  # format, level of the root, number of the next node, bytes of the newest row
_NUMBER = struct.Struct(">I")


class Head:
    """What an entity's head holds.

    Attributes:
        level: Of the root above the leaves; 0 is a leaf.
        next: Number of the next node.
        newest: The newest row, as `newest.Newest` keeps it.
        root: The root.
    """

    __slots__ = ("level", "newest", "next", "root")

    def __init__(self, level: int, next: int, newest: bytes, root: bytes) -> None:
        self.level = level
        self.next = next
        self.newest = newest
        self.root = root

    @classmethod
    def unpack(cls, data: bytes) -> Head:
        start = newest_start(data)
        _, level, next, size = _HEAD.unpack_from(data)
        return cls(level, next, data[start : start + size], data[start + size :])

    def pack(self) -> bytes:
        return _HEAD.pack(_FORMAT, self.level, self.next, len(self.newest)) + self.newest + self.root


def newest_start(data: bytes) -> int:
    """Where the newest row begins in a head.

    Raises:
        StoreMismatch: The head is of another format.
    """
    if data[0] != _FORMAT:
        raise StoreMismatch(
            f"The live view was stored in format {data[0]}, and this version of Millpond reads format {_FORMAT}",
            hint="run: millpond feature refresh --full",
        )
    return _HEAD.size


def node_key(number: int) -> bytes:
    """What follows an entity's bytes in the key of a node."""
    return NODE + _NUMBER.pack(number)


class Reader:
    """The nodes of one entity as one transaction sees them, each read once."""

    def __init__(self, shape: Shape, kv: KeyValueReads, base: bytes, head: Head) -> None:
        self.shape = shape
        self.level = head.level
        self.root = Node(shape.layout(head.level), head.root)
        self._kv = kv
        self._base = base
        self._read: dict[int, Node] = {}

    def child(self, node: Node, index: int, level: int) -> Node:
        """A child of a node; `level` is the child's."""
        number = node.column(self.shape.child)[index]
        found = self._read.get(number)
        if found is None:
            data = self._kv.get(self._base + node_key(number))
            assert data is not None, f"node {number} is missing"
            found = self._read[number] = Node(self.shape.layout(level), data)
        return found

    def newest_first(self, lo: int, at: int) -> Iterator[tuple[Node, int]]:
        """The visible rows of [lo, at), each a leaf and a place in it; the last in order comes first."""
        return self._walk(self.root, self.level, lo, at, -1)

    def oldest_first(self, lo: int, at: int) -> Iterator[tuple[Node, int]]:
        """The same in order."""
        return self._walk(self.root, self.level, lo, at, 1)

    def _walk(self, node: Node, level: int, lo: int, at: int, step: int) -> Iterator[tuple[Node, int]]:
        shape = self.shape
        times = node.column(TIME)
        stop = bisect_left(times, at)
        start = bisect_left(node.column(shape.last) if level else times, lo)
        seen = node.column((shape.seen_first if level else 1) if shape.late else TIME)
        for index in range(start, stop)[::step]:
            if seen[index] < at:
                if level:
                    yield from self._walk(self.child(node, index, level - 1), level - 1, lo, at, step)
                else:
                    yield node, index


class Writer:
    """Changes the tree of one entity."""

    def __init__(self, shape: Shape, kv: KeyValueWrites, base: bytes, head: Head) -> None:
        self.shape = shape
        self.head = head
        self._kv = kv
        self._base = base

    def insert(self, row: list[Any]) -> None:
        """Add a row, given as its raw values."""
        root = Node(self.shape.layout(self.head.level), self.head.root)
        data, right = self._insert(root, self.head.level, row)
        if right is None:
            self.head.root = data
            return
        level = self.head.level
        children = [self._child(each, level, self._new(each)) for each in (data, right)]
        self.head.level += 1
        self.head.root = self.shape.summary.build(children)

    def _insert(self, node: Node, level: int, row: list[Any]) -> tuple[bytes, bytes | None]:
        """The node with the row; where it was split, its right part too."""
        order = row[: self.shape.order]
        if level == 0:
            at = self._after(node, order)
            return self._fit(node.layout.splice(node.data, at, 0, [node.layout.pack(row)]), at, level)
        at = max(0, self._after(node, order) - 1)
        number = node.column(self.shape.child)[at]
        data, right = self._insert(self._node(number, level - 1), level - 1, row)
        self._put(number, data)
        if right is None:
            summary = [node.value(index, at) for index in range(len(node.layout.columns))]
            children = [node.layout.pack(self.shape.absorb(summary, row))]
        else:
            children = [self._child(data, level - 1, number), self._child(right, level - 1, self._new(right))]
        return self._fit(node.layout.splice(node.data, at, 1, children), at + len(children) - 1, level)

    def _fit(self, data: bytes, at: int, level: int) -> tuple[bytes, bytes | None]:
        """A node that has grown at a place, split if it is too large.

        A node that grew at its end stays as it is but for the last, since more will come there.
        """
        layout = self.shape.layout(level)
        count = layout.count(data)
        if count <= (MOST_CHILDREN if level else MOST_ROWS):
            return data, None
        return layout.split(data, count - 1 if at == count - 1 else count // 2)

    def remove(self, row: list[Any]) -> bool:
        """Take away a row, given as its raw values; whether any is left.

        Raises:
            NotFound: There is no such row.
        """
        root = Node(self.shape.layout(self.head.level), self.head.root)
        data = self._remove(root, self.head.level, row)
        if data is None:
            raise NotFound(f"The row {tuple(row)} is not in the live state of view {self.shape.view.name!r}")
        while self.head.level and self.shape.summary.count(data) == 1:
            number = Node(self.shape.summary, data).column(self.shape.child)[0]
            data = self._node(number, self.head.level - 1).data
            self._kv.delete(self._base + node_key(number))
            self.head.level -= 1
        self.head.root = data
        return self.shape.layout(self.head.level).count(data) > 0

    def _remove(self, node: Node, level: int, row: list[Any]) -> bytes | None:
        """The node without the row; None where it does not have it."""
        order = row[: self.shape.order]
        start, stop = self._before(node, order), self._after(node, order)
        if level == 0:
            alone = node.layout.build([node.layout.pack(row)])
            for at in range(start, stop):
                if node.layout.one(node.data, at) == alone:
                    return node.layout.splice(node.data, at, 1)
            return None
        for at in range(max(0, start - 1), stop):
            number = node.column(self.shape.child)[at]
            data = self._remove(self._node(number, level - 1), level - 1, row)
            if data is None:
                continue
            if self.shape.layout(level - 1).count(data):
                self._put(number, data)
                return node.layout.splice(node.data, at, 1, [self._child(data, level - 1, number)])
            self._kv.delete(self._base + node_key(number))
            return node.layout.splice(node.data, at, 1)
        return None

    def _before(self, node: Node, order: list[Any]) -> int:
        """Place of the first row, or child, that does not come before `order`."""
        times = node.column(TIME)
        start, stop = bisect_left(times, order[0]), bisect_right(times, order[0])
        return start + bisect_left(self._orders(node, start, stop), order[1:]) if stop > start else start

    def _after(self, node: Node, order: list[Any]) -> int:
        """Place of the first row, or child, that comes after `order`."""
        times = node.column(TIME)
        start, stop = bisect_left(times, order[0]), bisect_right(times, order[0])
        return start + bisect_right(self._orders(node, start, stop), order[1:]) if stop > start else start

    def _orders(self, node: Node, start: int, stop: int) -> Sequence[list[Any]]:
        """What orders rows of equal time."""
        places = range(1, self.shape.order)
        return [[node.value(place, index) for place in places] for index in range(start, stop)]

    def _node(self, number: int, level: int) -> Node:
        data = self._kv.get(self._base + node_key(number))
        assert data is not None, f"node {number} is missing"
        return Node(self.shape.layout(level), data)

    def _put(self, number: int, data: bytes) -> None:
        self._kv.put(self._base + node_key(number), data)

    def _new(self, data: bytes) -> int:
        number = self.head.next
        self.head.next += 1
        self._put(number, data)
        return number

    def _child(self, data: bytes, level: int, number: int) -> PackedRow:
        summary = self.shape.summarize(Node(self.shape.layout(level), data), level)
        summary[self.shape.child] = number
        return self.shape.summary.pack(summary)
