"""Events: their bytes in the log, their digests, and the rows that live views make of them."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from millpond.core.errors import DataError, SchemaMismatch
from millpond.core.names import did_you_mean
from millpond.features.online.keys import KeyCodec, plain
from millpond.features.online.packing import Packing
from millpond.features.online.ports import OnlineView, Row
from millpond.features.online.types import iceberg_type, lake_type

if TYPE_CHECKING:
    import pyarrow as pa

_PLACE = struct.Struct("<qqH")
#: Where the length of the entity begins in a place.
_ENTITY = 16


def to_bytes(rows: pa.Table) -> bytes:
    """Events as an Arrow IPC stream."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return sink.getvalue().to_pybytes()


def from_bytes(data: bytes) -> pa.Table:
    """The events that `to_bytes` wrote."""
    import pyarrow as pa

    with pa.ipc.open_stream(data) as reader:
        return reader.read_all()


def digests(rows: pa.Table) -> list[bytes]:
    """A digest of each row, 16 bytes; equal for rows that are equal in every column.

    Columns count by name, in any order, and a null is as good as no column.
    """
    names = sorted(rows.column_names)
    columns = [plain(rows.column(name)) for name in names]
    return [
        hashlib.blake2b(
            repr([(name, value) for name, value in zip(names, row, strict=True) if value is not None]).encode(
                "utf-8", "surrogatepass"
            ),
            digest_size=16,
        ).digest()
        for row in zip(*columns, strict=True)
    ]


def keys_of(table: str, key: Sequence[str], rows: pa.Table) -> list[bytes]:
    """The rows' keys as bytes.

    Raises:
        SchemaMismatch: A column of the key is missing.
        DataError: A part of a key is null.
    """
    types = {}
    for name in key:
        if name not in rows.column_names:
            raise SchemaMismatch(
                f"Events for table {table!r} have no column {name!r}, which is part of its key",
                hint=did_you_mean(name, rows.column_names, noun="columns"),
            )
        types[name] = iceberg_type(rows.schema.field(name).type)
    keys = KeyCodec(key, types).encode_columns(rows)
    if None in keys:
        where = keys.index(None)
        raise DataError(
            f"Event {where + 1} for table {table!r} has null in its key",
            where=f"key ({', '.join(key)})",
            hint="every event needs a value in every column of the table's key",
        )
    return [each for each in keys if each is not None]


class Place(NamedTuple):
    """Where a row is in a live view's state.

    Attributes:
        entity: Its entity, encoded.
        time: Its event time, as in `Row`.
        known: When it became known, likewise.
        values: Its values, packed by `Packing.of_columns`.
    """

    entity: bytes
    time: int
    known: int
    values: bytes

    def to_bytes(self) -> bytes:
        return _PLACE.pack(self.time, self.known, len(self.entity)) + self.entity + self.values

    @staticmethod
    def is_of(entity: bytes) -> Callable[[bytes], bool]:
        """Tells of the bytes of places, without reading them, which are of an entity."""
        mark, start = _PLACE.pack(0, 0, len(entity))[_ENTITY:] + entity, _ENTITY
        return lambda data: data.startswith(mark, start)

    @classmethod
    def from_bytes(cls, data: bytes) -> Place:
        time, known, length = _PLACE.unpack_from(data)
        stop = _PLACE.size + length
        return cls(data[_PLACE.size : stop], time, known, data[stop:])


@dataclass(frozen=True)
class ViewRows:
    """How a live view reads the rows of its table. Safe across threads."""

    view: OnlineView

    @cached_property
    def entities(self) -> KeyCodec:
        return KeyCodec(self.view.entity_keys, self.view.types)

    @cached_property
    def keys(self) -> KeyCodec:
        return KeyCodec(self.view.row_keys, self.view.types)

    @cached_property
    def packing(self) -> Packing:
        return Packing.of_columns(self.view)

    def take(self, rows: pa.Table | pa.RecordBatch) -> pa.Table:
        """The columns that the view reads, in their types; nulls for those that the events have not."""
        import pyarrow as pa

        return pa.table({name: _column(rows, self.view, name) for name in self.view.types})

    def entities_of(self, events: pa.Table) -> list[bytes | None]:
        """The entity of each event; None where it names none."""
        import pyarrow as pa

        names = self.view.entity_keys
        return self.entities.encode_columns(pa.table({name: _column(events, self.view, name) for name in names}))

    def places(self, taken: pa.Table) -> list[Place | None]:
        """Where each row of `take` belongs; None where it can never be visible to anyone."""
        view, count = self.view, taken.num_rows
        times = plain(taken.column(view.time)) if view.time else [0] * count
        knowns = plain(taken.column(view.known)) if view.known else times
        return [
            None if entity is None or time is None or known is None else Place(entity, time, known, values)
            for entity, time, known, values in zip(
                self.entities.encode_columns(taken), times, knowns, self.packing.pack(taken), strict=True
            )
        ]

    def rows(self, taken: pa.Table) -> list[tuple[Place | None, Row]]:
        """The place and the row of each row of `take`; no place where it can never be visible to anyone."""
        values = _tuples(taken, [each.name for each in self.view.columns])
        keys = _tuples(taken, self.view.row_keys)
        return [
            (place, Row(place.time, place.known, key, value) if place else Row(0, 0, key, value))
            for place, key, value in zip(self.places(taken), keys, values, strict=True)
        ]


def _tuples(rows: pa.Table, names: Sequence[str]) -> list[tuple[Any, ...]]:
    columns = [rows.column(name).to_pylist() for name in names]
    return list(zip(*columns, strict=True)) if columns else [()] * rows.num_rows


def _column(rows: pa.Table | pa.RecordBatch, view: OnlineView, name: str) -> Any:
    """A column in the view's type; nulls where the events have none of it, as the lake reads it."""
    import pyarrow as pa

    index = rows.schema.get_field_index(name)
    wanted = lake_type(view.types[name])
    if index < 0:
        return pa.array([None] * rows.num_rows, wanted or pa.null())
    column = rows.column(index)
    if wanted is None or column.type == wanted:
        return column
    try:
        return column.cast(wanted)
    except pa.ArrowInvalid as cause:
        raise SchemaMismatch(
            f"Column {name!r} of events for table {view.table!r} is {column.type}, and view {view.name!r} reads it "
            f"as {view.types[name]}",
            hint="send the column in the table's type, or run `millpond feature refresh --full`",
        ) from cause
