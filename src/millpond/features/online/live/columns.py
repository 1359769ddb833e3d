"""Rows as bytes, column by column, so that one row goes in or out without the others being read.

    rows (u32) | bytes in each heap (u32 each) | segments | heaps

A segment is an array with one element a row. A column has one segment, of raw values or, where its width varies, of
lengths (u32); before it a column that may be null has one of flags (u8, 1 is a value). The bytes of a column
whose width varies follow each other in its heap. Everything is little endian and unaligned.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress
from typing import Any, NamedTuple

_COUNT = struct.Struct("<I")


@lru_cache(4096)
def _array(count: int, code: str) -> struct.Struct:
    return struct.Struct(f"<{count}{code}")


@dataclass(frozen=True)
class Column:
    """One column of a layout.

    Attributes:
        code: Format character of `struct`; "" where the width varies.
        nullable: Whether it may be null.
        pack: From a raw value to bytes, where the width varies.
        unpack: Back.
    """

    code: str
    nullable: bool = False
    pack: Callable[[Any], bytes] = bytes
    unpack: Callable[[bytes], Any] = bytes


class PackedRow(NamedTuple):
    """A row's elements of all segments one after the other, and its bytes in each heap."""

    fixed: bytes
    heaps: tuple[bytes, ...]


class Layout:
    """Reads and writes rows of the same columns. Values are raw, None is null.

    Attributes:
        columns: The columns.
        row: A row's elements of all segments.
        places: Of each column, which segment has its flags, which its values, and which heap; -1 is none.
        start: Where the segments begin.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = tuple(columns)
        codes: list[str] = []
        self.places: list[tuple[int, int, int]] = []
        heaps = 0
        for column in self.columns:
            flags = -1
            if column.nullable:
                flags = len(codes)
                codes.append("B")
            self.places.append((flags, len(codes), -1 if column.code else heaps))
            heaps += not column.code
            codes.append(column.code or "I")
        self.row = struct.Struct("<" + "".join(codes))
        widths = [struct.calcsize("<" + code) for code in codes]
        befores = [sum(widths[:index]) for index in range(len(widths))]
        self._codes = codes
        self._segments = list(zip(widths, befores, strict=True))
        self._sizes = struct.Struct(f"<{heaps}I")
        self.start = _COUNT.size + self._sizes.size

    def count(self, data: bytes) -> int:
        """Number of rows."""
        return int(_COUNT.unpack_from(data)[0])

    def column(self, data: bytes, index: int) -> tuple[Sequence[Any], bytes | None]:
        """The raw values of a column, and its flags; no flags where none is null. Of a null the value is anything."""
        count = self.count(data)
        flags, place, heap = self.places[index]
        before = self._segments[place][1]
        values: Sequence[Any] = _array(count, self._codes[place]).unpack_from(data, self.start + count * before)
        if heap >= 0:
            values = self._from_heap(data, count, heap, values, self.columns[index].unpack)
        if flags >= 0:
            at = self.start + count * self._segments[flags][1]
            present = data[at : at + count]
            if 0 in present:
                return values, present
        return values, None

    def _from_heap(
        self, data: bytes, count: int, heap: int, lengths: Sequence[int], unpack: Callable[[bytes], Any]
    ) -> list[Any]:
        at = self.start + count * self.row.size + sum(self._sizes.unpack_from(data, _COUNT.size)[:heap])
        values = []
        for length in lengths:
            values.append(unpack(data[at : at + length]) if length else b"")  # of a null, which its flag tells
            at += length
        return values

    def one(self, data: bytes, row: int) -> bytes:
        """One row of many."""
        return self.splice(self.splice(data, row + 1, self.count(data) - row - 1), 0, row)

    def item(self, data: bytes, index: int, row: int) -> Any:
        """The raw value of a column in one row; None is null."""
        count = self.count(data)
        flags, place, heap = self.places[index]
        if flags >= 0 and not data[self.start + count * self._segments[flags][1] + row]:
            return None
        if heap >= 0:
            at, stop = self._span(data, count, heap, place, row, row + 1)
            return self.columns[index].unpack(data[at:stop])
        width, before = self._segments[place]
        return _array(1, self._codes[place]).unpack_from(data, self.start + count * before + row * width)[0]

    def elements(self, data: bytes, at: int = 0) -> Sequence[Any]:
        """The elements of all segments, lengths being replaced by the bytes, of data of one row that begins at `at`."""
        elements = self.row.unpack_from(data, at + self.start)
        if not self._sizes.size:
            return elements
        found = list(elements)
        done = at + self.start + self.row.size
        for _, place, heap in self.places:
            if heap >= 0:
                stop = done + found[place]
                found[place] = data[done:stop]
                done = stop
        return found

    def values(self, elements: Sequence[Any]) -> list[Any]:
        """The raw values of a row, of its elements."""
        return [
            None
            if flags >= 0 and not elements[flags]
            else elements[place]
            if heap < 0
            else column.unpack(elements[place])
            for (flags, place, heap), column in zip(self.places, self.columns, strict=True)
        ]

    def _span(self, data: bytes, count: int, heap: int, place: int, first: int, last: int) -> tuple[int, int]:
        """Where the bytes of rows [first, last) lie in a heap."""
        lengths = _array(last, "I").unpack_from(data, self.start + count * self._segments[place][1])
        at = self.start + count * self.row.size + sum(self._sizes.unpack_from(data, _COUNT.size)[:heap])
        at += sum(lengths[:first])
        return at, at + sum(lengths[first:])

    def pack(self, values: Sequence[Any]) -> PackedRow:
        """A row, ready to be spliced in."""
        elements: list[Any] = []
        heaps = []
        for value, column in zip(values, self.columns, strict=True):
            if column.nullable:
                elements.append(value is not None)
            if column.code:
                elements.append(0 if value is None and column.nullable else value)
            else:
                packed = b"" if value is None else column.pack(value)
                elements.append(len(packed))
                heaps.append(packed)
        return PackedRow(self.row.pack(*elements), tuple(heaps))

    def splice(self, data: bytes, at: int, drop: int = 0, rows: Sequence[PackedRow] = ()) -> bytes:
        """Rows [at, at + drop) replaced by `rows`."""
        count = self.count(data)
        start = self.start
        parts = [b""]
        done = start
        for width, before in self._segments:
            cut = start + count * before + at * width
            parts.append(data[done:cut])
            parts += [row.fixed[before : before + width] for row in rows]
            done = cut + drop * width
        parts.append(data[done : start + count * self.row.size])
        sizes = list(self._sizes.unpack_from(data, _COUNT.size))
        if sizes:
            done = start + count * self.row.size
            for _, place, heap in self.places:
                if heap < 0:
                    continue
                stop = done + sizes[heap]
                cut, resume = self._span(data, count, heap, place, at, at + drop)
                parts.append(data[done:cut])
                parts += [row.heaps[heap] for row in rows]
                parts.append(data[resume:stop])
                done = stop
            new = [sum(len(row.heaps[heap]) for row in rows) for heap in range(len(sizes))]
            gone = self._dropped(data, count, at, drop)
            sizes = [size + more - less for size, more, less in zip(sizes, new, gone, strict=True)]
        parts[0] = _COUNT.pack(count - drop + len(rows)) + self._sizes.pack(*sizes)
        return b"".join(parts)

    def _dropped(self, data: bytes, count: int, at: int, drop: int) -> list[int]:
        spans = [self._span(data, count, heap, place, at, at + drop) for _, place, heap in self.places if heap >= 0]
        return [stop - start for start, stop in spans]

    def build(self, rows: Sequence[PackedRow]) -> bytes:
        """Rows from nothing."""
        return self.splice(bytes(self.start), 0, 0, rows)

    def split(self, data: bytes, at: int) -> tuple[bytes, bytes]:
        """Rows [0, at), and those from `at` on."""
        return self.splice(data, at, self.count(data) - at), self.splice(data, 0, at)


class Node:
    """Rows of a layout, read when they are needed."""

    __slots__ = ("_columns", "count", "data", "layout")

    def __init__(self, layout: Layout, data: bytes) -> None:
        self.layout = layout
        self.data = data
        self.count = layout.count(data)
        self._columns: dict[int, tuple[Sequence[Any], bytes | None]] = {}

    def column(self, index: int) -> Sequence[Any]:
        """The raw values of a column that is never null; of another one's nulls the values are anything."""
        found = self._columns.get(index)
        if found is None:
            found = self._columns[index] = self.layout.column(self.data, index)
        return found[0]

    def present(self, index: int, rows: slice | Sequence[int]) -> Sequence[Any]:
        """The raw values of some rows, in order, without nulls."""
        values = self.column(index)
        flags = self._columns[index][1]
        if isinstance(rows, slice):
            return values[rows] if flags is None else list(compress(values[rows], flags[rows]))
        return [values[row] for row in rows if flags is None or flags[row]]

    def value(self, index: int, row: int) -> Any:
        """The raw value of one row; None is null."""
        if index not in self._columns:
            return self.layout.item(self.data, index, row)
        values, flags = self._columns[index]
        return values[row] if flags is None or flags[row] else None
