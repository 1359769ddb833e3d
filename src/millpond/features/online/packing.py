"""Packed values, as of one entity and view: a header, slots of fixed width, and a heap for what has no fixed width.

    fingerprint of the view, 8 bytes | nulls, one bit a feature | slots | heap

The fingerprint tells what the view means, types included, so values of another schema are never read as if they were
of this one. A slot of a string or of bytes holds offset and length in the heap, counted from the heap's beginning.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from millpond.core.errors import DataError, StoreMismatch
from millpond.features.online.ports import OnlineView
from millpond.features.online.types import lake_type
from millpond.features.plan import Feature, column_kind

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

_Slot = Literal["float", "integer", "boolean", "date", "instant", "decimal", "string", "bytes"]
#: Of each slot: its code for `struct`, and for numpy.
_CODES: dict[_Slot, tuple[str, str]] = {
    "float": ("d", "<f8"),
    "integer": ("q", "<i8"),
    "boolean": ("?", "?"),
    "date": ("i", "<i4"),
    "instant": ("q", "<i8"),
    "decimal": ("16s", "V16"),
    "string": ("q", "<i8"),
    "bytes": ("q", "<i8"),
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_EXACT = Context(prec=80)
_ATTEMPTED_NULLS = 4096


class Packing:
    """Packs and reads values of some columns. Safe across threads.

    Args:
        view: The view that they are of.
        types: Iceberg types of the columns, by name, in order.
        fingerprint: What packed values begin with; nothing where they are told apart already.

    Raises:
        DataError: A column is of a type that the online store does not hold.
    """

    def __init__(self, view: OnlineView, types: Mapping[str, str], fingerprint: bytes = b"") -> None:
        self.view = view
        self.names = tuple(types)
        self._types = tuple(types.values())
        self._slots = tuple(_slot(name, type_) for name, type_ in types.items())
        self._bitmap = -(-len(self._slots) // 8)
        self._fingerprint = fingerprint
        self._head = len(self._fingerprint) + self._bitmap
        self._clean = self._fingerprint + bytes(self._bitmap)
        self._struct = struct.Struct("<" + "".join(_CODES[each][0] for each in self._slots))
        self._unpack_from = self._struct.unpack_from
        self._heap = self._head + self._struct.size
        self._readers = tuple(
            (index, _reader(slot, type_))
            for index, (slot, type_) in enumerate(zip(self._slots, self._types, strict=True))
            if slot not in ("float", "integer", "boolean")
        )
        self._plain = not self._readers
        self._nulls: dict[bytes, tuple[int, ...]] = {}

    @classmethod
    def of_features(cls, view: OnlineView) -> Packing:
        """Of the values of a view's features, marked with its fingerprint."""
        return cls(view, {each.name: feature_type(each) for each in view.features}, bytes.fromhex(view.fingerprint))

    @classmethod
    def of_columns(cls, view: OnlineView) -> Packing:
        """Of the values in the columns that a view's features are made of."""
        return cls(view, {each.name: each.type for each in view.columns})

    def unpack(self, packed: bytes) -> tuple[Any, ...]:
        """The values in order of the columns; None is null.

        Raises:
            StoreMismatch: They were packed under another schema.
        """
        if self._plain and packed.startswith(self._clean):
            try:
                return self._unpack_from(packed, self._head)
            except struct.error:
                raise self.mismatch(packed) from None
        return self._unpack_other(packed)

    def _unpack_other(self, packed: bytes) -> tuple[Any, ...]:
        """As `unpack`, of values with nulls among them, or of types that are not read by `struct` alone."""
        if not packed.startswith(self._fingerprint) or len(packed) < self._heap:
            raise self.mismatch(packed)
        found = list(self._unpack_from(packed, self._head))
        for index, read in self._readers:
            found[index] = read(found[index], packed, self._heap)
        for index in self._null_places(packed[: self._head]):
            found[index] = None
        return tuple(found)

    def mismatch(self, packed: bytes) -> StoreMismatch:
        """The error that tells of a value of another schema."""
        found = packed[: len(self._fingerprint)].hex()
        return StoreMismatch(
            f"An online value of view {self.view.name!r} was written under schema {found}, and is read under "
            f"{self._fingerprint.hex()}",
            hint="run `millpond feature refresh --full`",
        )

    def _null_places(self, head: bytes) -> tuple[int, ...]:
        places = self._nulls.get(head)
        if places is None:
            bits = int.from_bytes(head[len(self._fingerprint) :], "little")
            places = tuple(index for index in range(len(self._slots)) if bits >> index & 1)
            if len(self._nulls) < _ATTEMPTED_NULLS:
                self._nulls[head] = places
        return places

    def columns(self, packed: list[bytes | None]) -> list[pa.Array[Any]]:
        """The values of many entities, one array a column, in its Arrow type; null where unknown."""
        import numpy as np
        import pyarrow as pa

        if self._readers:
            rows = [None if each is None else self.unpack(each) for each in packed]
            return [
                pa.array([None if row is None else row[index] for row in rows], self._arrow[index])
                for index in range(len(self.names))
            ]
        unknown = self._fingerprint + b"\xff" * self._bitmap + bytes(self._struct.size)
        joined = b"".join([unknown if each is None else each for each in packed])
        if len(joined) != len(unknown) * len(packed):
            raise self.mismatch(next((e for e in packed if e is not None and len(e) != len(unknown)), b""))
        table = np.frombuffer(joined, self._dtype)
        if not (table["fingerprint"] == np.frombuffer(self._fingerprint, "u1")).all():
            raise self.mismatch(next((e for e in packed if e is not None and not e.startswith(self._fingerprint)), b""))
        nulls = np.unpackbits(table["nulls"], axis=1, bitorder="little")[:, : len(self.names)]
        some = set(np.flatnonzero(nulls.any(axis=0)).tolist())
        if "boolean" in self._slots:
            return [
                pa.array(np.ascontiguousarray(table[f"f{index}"]), mask=nulls[:, index].astype(bool))
                for index in range(len(self.names))
            ]
        valid = np.packbits(np.ascontiguousarray(nulls.T) ^ 1, axis=1, bitorder="little")
        return [
            pa.Array.from_buffers(
                self._arrow[index],
                len(packed),
                [
                    pa.py_buffer(valid[index].tobytes()) if index in some else None,
                    pa.py_buffer(table[f"f{index}"].tobytes()),
                ],
            )
            for index in range(len(self.names))
        ]

    def pack(self, rows: pa.RecordBatch | pa.Table) -> Iterator[bytes]:
        """One packed value a row.

        Args:
            rows: Has the columns under their names.

        Raises:
            DataError: A column is missing or not of its type.
        """
        import numpy as np

        if not rows.num_rows:
            return
        table = np.zeros(rows.num_rows, self._dtype)
        table["fingerprint"] = np.frombuffer(self._fingerprint, "u1")
        nulls = np.zeros((rows.num_rows, self._bitmap * 8), bool)
        heaps: list[bytearray] | None = None
        for index, (name, slot) in enumerate(zip(self.names, self._slots, strict=True)):
            column = self._column(rows, index, name)
            nulls[:, index] = column.is_null().to_numpy(zero_copy_only=False)
            if slot in ("string", "bytes"):
                heaps = heaps if heaps is not None else [bytearray() for _ in range(rows.num_rows)]
                table[f"f{index}"] = _fill_heaps(heaps, column.to_pylist())
            else:
                table[f"f{index}"] = _slot_values(column, slot)
        table["nulls"] = np.packbits(nulls, axis=1, bitorder="little")
        packed, width = table.tobytes(), table.dtype.itemsize
        for number in range(rows.num_rows):
            fixed = packed[number * width : (number + 1) * width]
            yield fixed + heaps[number] if heaps else fixed

    def _column(self, rows: pa.RecordBatch | pa.Table, index: int, name: str) -> pa.Array[Any]:
        import pyarrow as pa

        wanted = self._arrow[index]
        try:
            column = rows.column(name).cast(wanted)
        except KeyError as cause:
            raise DataError(f"The values of view {self.view.name!r} have no column {name!r}") from cause
        except pa.ArrowInvalid as cause:
            found = rows.schema.field(name).type
            raise DataError(f"{name!r} is {wanted}, and its values are {found} that do not fit") from cause
        return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column

    @cached_property
    def _arrow(self) -> tuple[pa.DataType, ...]:
        return tuple(arrow_type(each) for each in self._types)

    @cached_property
    def _dtype(self) -> np.dtype[Any]:
        import numpy as np

        slots = [(f"f{index}", _CODES[slot][1]) for index, slot in enumerate(self._slots)]
        return np.dtype([("fingerprint", "u1", (len(self._fingerprint),)), ("nulls", "u1", (self._bitmap,)), *slots])


def feature_type(feature: Feature) -> str:
    """The Iceberg type of a feature's values."""
    if feature.is_count or feature.is_integer_sum or feature.column is None:
        return "long"
    return "double" if feature.kind in ("sum", "mean", "std") else feature.column.type


def arrow_type(type_: str) -> pa.DataType:
    """The Arrow type that values of an Iceberg type are held in online; floats and integers at 64 bits."""
    import pyarrow as pa

    wide: dict[str, pa.DataType] = {"integer": pa.int64(), "float": pa.float64()}
    return wide.get(column_kind(type_)) or lake_type(type_) or pa.binary()


def _slot(name: str, type_: str) -> _Slot:
    kind = column_kind(type_)
    if kind != "other":
        return kind
    if type_ == "binary":
        return "bytes"
    raise DataError(
        f"Column {name!r} is of type {type_}, which the online store does not hold",
        hint="take a number, boolean, string, date, instant, decimal or bytes",
    )


def _slot_values(column: pa.Array[Any], slot: _Slot) -> Any:
    """A column's values as numpy holds them in slots; anything where null."""
    import numpy as np
    import pyarrow as pa

    if slot == "decimal":
        wide = column.cast(pa.decimal128(38, column.type.scale))
        raw = np.frombuffer(memoryview(wide.buffers()[1] or b""), "V16")
        return raw[wide.offset : wide.offset + len(wide)]
    if slot in ("date", "instant"):
        column = column.cast(pa.int32() if slot == "date" else pa.int64())
    return column.fill_null(False if slot == "boolean" else 0).to_numpy(zero_copy_only=False)


def _fill_heaps(heaps: list[bytearray], values: list[Any]) -> list[int]:
    slots = []
    for heap, value in zip(heaps, values, strict=True):
        data = b"" if value is None else value.encode() if isinstance(value, str) else value
        slots.append(len(heap) << 32 | len(data))
        heap.extend(data)
    return slots


def _reader(slot: _Slot, type_: str) -> Callable[[Any, bytes, int], Any]:
    if slot == "date":
        return lambda value, _, __: date.fromordinal(value + _EPOCH_DAY)
    if slot == "instant":
        return lambda value, _, __: _EPOCH + timedelta(microseconds=value)
    if slot == "decimal":
        scale = -int(type_.removesuffix(")").partition(",")[2])
        return lambda value, _, __: Decimal(int.from_bytes(value, "little", signed=True)).scaleb(scale, _EXACT)
    if slot == "string":
        return lambda value, packed, heap: _in_heap(value, packed, heap).decode()
    return _in_heap


def _in_heap(value: int, packed: bytes, heap: int) -> bytes:
    start = heap + (value >> 32)
    return packed[start : start + (value & 0xFFFFFFFF)]
