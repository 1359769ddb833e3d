"""The columns of many rows as the segments and heaps of `columns.Layout`."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pyarrow as pa  # noqa: TID253 - imported by a bulk load alone
import pyarrow.compute as pc  # noqa: TID253

from millpond.features.online.live.shape import Shape
from millpond.features.online.live.values import Type

_Integers = np.ndarray[Any, np.dtype[np.int64]]
_COUNT = struct.Struct("<I")
_DTYPES = {"b": "<i1", "i": "<i4", "q": "<i8", "f": "<f4", "d": "<f8"}


class Segments:
    """Rows of several entities, from which leaves are cut.

    Args:
        shape: The view's.
        table: The view's source columns; the rows of an entity follow each other in order of time.
        starts: Where the rows of each entity begin.

    Attributes:
        table: The rows, those of an entity in order of (time, known, key).
    """

    def __init__(self, shape: Shape, table: pa.Table, starts: _Integers) -> None:
        view = shape.view
        self._times = _instants(table, view.time)
        known = _instants(table, view.known) if view.known else None
        entity = np.zeros(table.num_rows, dtype=np.int64)
        entity[starts[1:]] = 1
        entity = np.cumsum(entity)
        if _any_tie(entity, self._times) and (known is not None or shape.keys):
            columns: dict[str, Any] = {"entity": entity, "time": self._times}
            if known is not None:
                columns["known"] = known
            keys: dict[str, Any] = {f"key{index}": table[name] for index, name in enumerate(shape.keys)}
            order = pc.sort_indices(
                pa.table({**columns, **keys}), sort_keys=[(name, "ascending") for name in (*columns, *keys)]
            )
            table = table.take(order).combine_chunks()
            self._times = self._times[order.to_numpy()]
            known = known[order.to_numpy()] if known is not None else None
        self.table = table
        self._segments: list[tuple[bytes, int]] = [(self._times.astype("<i8").tobytes(), 8)]
        self._heaps: list[tuple[bytes, list[int]]] = []
        if known is not None:
            self._segments.append((known.astype("<i8").tobytes(), 8))
        for name, type in zip(shape.keys, shape.key_types, strict=True):
            self._add(_array(table[name]), type, nullable=False)
        for name, type in shape.types.items():
            self._add(_array(table[name]), type, nullable=True)

    def tied(self, start: int, stop: int) -> int:
        """The first row of an entity that has the time of its last."""
        return start + int(np.searchsorted(self._times[start:stop], self._times[stop - 1]))

    def leaf(self, start: int, stop: int) -> bytes:
        """Rows [start, stop) as `Layout.build` makes them."""
        heaps = [heap[ends[start] : ends[stop]] for heap, ends in self._heaps]
        head = [_COUNT.pack(stop - start), *(_COUNT.pack(len(heap)) for heap in heaps)]
        return b"".join([*head, *(data[start * width : stop * width] for data, width in self._segments), *heaps])

    def _add(self, values: pa.Array[Any], type: Type, *, nullable: bool) -> None:
        if nullable:
            self._segments.append((values.is_valid().cast(pa.int8()).to_numpy(zero_copy_only=False).tobytes(), 1))
        if type.code:
            raw = _fixed(values, type)
            self._segments.append((raw.tobytes(), raw.itemsize))
            return
        heap, lengths = _varying(values)
        self._segments.append((lengths.astype("<u4").tobytes(), 4))
        self._heaps.append((heap, [0, *np.cumsum(lengths).tolist()]))


def _array(column: pa.ChunkedArray[Any]) -> pa.Array[Any]:
    whole: Any = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    found: pa.Array[Any] = whole.storage if isinstance(whole.type, pa.BaseExtensionType) else whole
    return found  # of UUIDs, the bytes


def _instants(table: pa.Table, name: str | None) -> _Integers:
    if name is None:
        return np.zeros(table.num_rows, dtype=np.int64)
    return _fixed(_array(table[name]), Type("q", int, int)).astype(np.int64)


def _any_tie(entity: _Integers, times: _Integers) -> bool:
    """Whether rows of an entity have the same time, or are not in order."""
    return bool(np.any((entity[1:] == entity[:-1]) & (times[1:] <= times[:-1])))


def _fixed(values: pa.Array[Any], type: Type) -> np.ndarray[Any, Any]:
    """Raw values of fixed width; 0 for null."""
    of = values.type
    if pa.types.is_decimal(of):
        raw = np.where(values.is_valid().to_numpy(zero_copy_only=False), _unscaled(values)[:, 0], 0)
    else:
        if pa.types.is_timestamp(of):
            values = values.cast(pa.timestamp("us", of.tz)).cast(pa.int64())
        elif pa.types.is_time(of):
            values = values.cast(pa.time64("us")).cast(pa.int64())
        elif pa.types.is_date(of):
            values = values.cast(pa.date32()).cast(pa.int32())
        elif pa.types.is_boolean(of):
            values = values.cast(pa.int8())
        raw = values.fill_null(0).to_numpy(zero_copy_only=False)
    return raw.astype(_DTYPES[type.code])


def _unscaled(values: pa.Array[Any]) -> np.ndarray[Any, Any]:
    """The low and the high 64 bits of decimals."""
    wide: Any = values.cast(pa.decimal128(values.type.precision, values.type.scale))
    words: np.ndarray[Any, Any] = np.frombuffer(wide.buffers()[1], dtype="<i8").reshape(-1, 2)
    return words[wide.offset : wide.offset + len(wide)]


def _varying(values: pa.Array[Any]) -> tuple[bytes, _Integers]:
    """Raw values one after the other, and their lengths; nothing for null."""
    if pa.types.is_decimal(values.type):
        valid = values.is_valid().to_numpy(zero_copy_only=False)
        return _unscaled(values)[valid].tobytes(), valid.astype(np.int64) * 16
    whole: Any = values.cast(pa.large_binary()).fill_null(b"")
    ends = np.frombuffer(whole.buffers()[1], dtype="<i8")[whole.offset : whole.offset + len(whole) + 1]
    heap = whole.buffers()[2]
    return (heap.to_pybytes()[ends[0] : ends[-1]] if heap is not None else b""), np.diff(ends)
