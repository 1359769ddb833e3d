"""Reading segments: whole frames, as Arrow, many records of one layout at a time.

Reading stops at the first frame that is not whole, so what a crash tore off is never counted.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from millpond.serving.log.ids import base_of
from millpond.serving.log.layout import BASED, FRAME, HEAD, LAYOUT, PROVENANCE, RECORD, USER, VARIANTS, Block, Layout
from millpond.serving.log.segments import MAGIC
from millpond.serving.log.tables import INPUT, REQUEST, arrow_type, output_column

if TYPE_CHECKING:
    import pyarrow as pa

#: Lengths of a record's first two strings.
_TWO_LENGTHS = struct.Struct("<ii")
#: Where the length of a frame is, its kind and flags, its layout and its rows.
_SCAN = struct.Struct("<IIBxHII")


@dataclass
class Segment:
    """The whole frames of a segment.

    Attributes:
        data: The file.
        length: Bytes of `data` that are whole frames.
        records: (layout, rows, flags) -> positions of records.
        layouts: By number.
        provenances: By number: "snapshots", "events", "synced_at".
        users: By number.
        rows: Number of predictions.
    """

    data: bytes
    length: int = 0
    records: dict[tuple[int, int, int], list[int]] = field(default_factory=dict)
    layouts: dict[int, Layout] = field(default_factory=dict)
    provenances: dict[int, dict[str, Any]] = field(default_factory=dict)
    users: dict[int, str] = field(default_factory=dict)
    rows: int = 0

    @property
    def has_more(self) -> bool:
        """Whether there are bytes after the last whole frame that are not the zeros which a writer leaves."""
        return bool(self.data[self.length :].strip(b"\0"))

    def holding(self, prediction_id: str) -> Segment:
        """With only the records that may hold a prediction."""
        needle, base = prediction_id.encode(), (base_of(prediction_id) or "").encode()
        there = needle in self.data
        kept = {}
        for key, positions in self.records.items():
            layout, rows, flags = key
            if flags & BASED:
                size = self.layouts[layout].size(rows, flags)
                found = [at for at in positions if self._base(at, size) == base]
            else:
                found = [at for at in positions if there and self._has(at, needle)]
            if found:
                kept[key] = found
        return Segment(self.data, self.length, kept, self.layouts, self.provenances, self.users)

    def _has(self, at: int, needle: bytes) -> bool:
        return self.data.find(needle, at, at + FRAME.unpack_from(self.data, at)[1]) >= 0

    def _base(self, at: int, size: int) -> bytes:
        before, length = _TWO_LENGTHS.unpack_from(self.data, at + HEAD.size)
        start = at + size + max(before, 0)
        return self.data[start : start + length]

    def models(self) -> list[str]:
        """Names of the models that it has predictions of, sorted."""
        return sorted({self.layouts[layout].model for layout, _, _ in self.records})

    def counts(self) -> dict[str, int]:
        """Model -> number of predictions."""
        found: dict[str, int] = {}
        for (layout, rows, _), positions in self.records.items():
            model = self.layouts[layout].model
            found[model] = found.get(model, 0) + rows * len(positions)
        return found


def read_segment(path: Path) -> Segment:
    """The whole frames of a segment; of a file that is none, nothing.

    Raises:
        FileNotFoundError: The segment is gone (drained meanwhile).
    """
    return scan(path.read_bytes())


def scan(data: bytes) -> Segment:
    """The whole frames of a segment's bytes."""
    found = Segment(data)
    if not data.startswith(MAGIC):
        return found
    view, at, end = memoryview(data), len(MAGIC), len(data)
    records, crc32, head, smallest = found.records, zlib.crc32, FRAME.unpack_from, FRAME.size
    common = _SCAN.unpack_from
    while end - at >= smallest:
        checksum, length, kind = head(data, at)
        stop = at + length
        if length < smallest or stop > end or crc32(view[at + 4 : stop]) != checksum:
            break
        if kind == RECORD:
            _, _, _, flags, layout, rows = common(data, at)
            key = (layout, rows, flags)
            positions = records.get(key)
            if positions is None:
                positions = records[key] = []
            positions.append(at)
            found.rows += rows
        else:
            _define(found, kind, json.loads(bytes(view[at + smallest : stop])))
        at = stop
    found.length = at
    return found


def to_table(segment: Segment, model: str, columns: Mapping[str, str] = MappingProxyType({})) -> pa.Table:
    """The predictions of a model, in the order in which they were logged, as rows for its table in the lake.

    Args:
        segment: Holds some of the model.
        model: Its name.
        columns: The columns that the table has already: name -> kind; see `tables`.
    """
    from millpond.serving.log.tables import gathered

    parts, places = [], []
    for (number, rows, flags), positions in segment.records.items():
        layout = segment.layouts[number]
        if layout.model == model:
            starts = np.array(positions, np.int64)
            parts.append(_Records(segment, layout, rows, flags, starts).table())
            places.append(np.repeat(starts, rows))
    table = gathered(parts, columns)
    if len(parts) > 1:
        table = table.take(np.argsort(np.concatenate(places), kind="stable"))
    return table


def _define(segment: Segment, kind: int, kept: dict[str, Any]) -> None:
    if kind == LAYOUT:
        segment.layouts[kept["id"]] = Layout.from_json(kept)
    elif kind == PROVENANCE:
        segment.provenances[kept["id"]] = kept
    elif kind == USER:
        segment.users[kept["id"]] = kept["name"]


class _Records:
    """Records of one layout and number of rows, taken apart together."""

    def __init__(self, segment: Segment, layout: Layout, rows: int, flags: int, starts: Any) -> None:
        self._segment, self._layout, self._rows, self._flags = segment, layout, rows, flags
        self._starts, self._count = starts, len(starts)
        self._bytes = np.frombuffer(segment.data, np.uint8)
        self._fixed = _windows(self._bytes, starts, layout.size(rows, flags))
        self._at = HEAD.size
        lengths = self._take("<i4", layout.strings(rows, flags))
        self._lengths = lengths
        bytes_before = np.cumsum(np.maximum(lengths, 0), axis=1) - np.maximum(lengths, 0)
        self._places = bytes_before + (starts + layout.size(rows, flags))[:, None]
        self._cell = 0

    def table(self) -> pa.Table:
        import pyarrow as pa

        layout, total = self._layout, self._count * self._rows
        request_id, ids = self._repeated(self._strings(1)), self._ids()
        as_of = self._take("<i8", self._rows).reshape(-1)
        head = _header(self._fixed)
        outputs = self._block(layout.outputs)
        answers = self._take("u1", self._rows).reshape(-1)
        request, inputs = self._block(layout.request), self._block(layout.inputs)
        if layout.shared and not layout.raw:
            request = inputs
        instant = pa.timestamp("us", "UTC")
        shadow_of = self._each(head["shadow_of"])
        columns = {
            "prediction_id": ids,
            "request_id": request_id,
            "model": pa.repeat(pa.scalar(layout.model), total),
            "version": pa.repeat(pa.scalar(layout.version, pa.int64()), total),
            "variant": self._named(head["variant"], dict(enumerate(VARIANTS))),
            "shadow_of": pa.array(shadow_of, pa.int64(), mask=shadow_of < 0),
            "raw": pa.repeat(pa.scalar(layout.raw), total),
            "predicted_at": pa.array(self._each(head["predicted_at"])).cast(instant),
            "as_of": pa.array(as_of).cast(instant),
            "requested_by": self._named(head["user"], self._segment.users),
            "answer": pa.array(answers == 1, mask=answers == 2),
            "latency_ms": pa.array(self._each(head["latency"]) / 1000.0),
        }
        behind = self._segment.provenances
        numbers = head["provenance"]
        for name in ("snapshots", "events"):
            columns[name] = self._named(numbers, {each: json.dumps(behind[each][name]) for each in _once(numbers)})
        synced_at = self._named(numbers, {each: behind[each]["synced_at"] for each in _once(numbers)}, pa.int64())
        columns["synced_at"] = synced_at.cast(instant)
        for name, array in outputs.items():
            columns[output_column(name)] = array
        columns |= {REQUEST + name: array for name, array in request.items()}
        columns |= {INPUT + name: array for name, array in inputs.items()}
        return pa.table(columns)

    def _take(self, kind: str, width: int) -> Any:
        """The next part of the fixed parts: (records, width)."""
        size = np.dtype(kind).itemsize * width
        piece = np.ascontiguousarray(self._fixed[:, self._at : self._at + size])
        self._at += size
        return piece.view(kind) if size else np.empty((self._count, 0), kind)

    def _block(self, block: Block) -> dict[str, Any]:
        if block.matrix:
            matrix = self._take("<f8", self._rows * len(block.names)).reshape(-1, len(block.names))
            columns = np.ascontiguousarray(matrix.T)
            return {name: _numbers(columns[at], block.kinds[at]) for at, name in enumerate(block.names)}
        found, values = {}, {}
        for at, (name, kind) in enumerate(zip(block.names, block.kinds, strict=True)):
            if width := block.widths[at]:
                found[name] = _vectors(self._take("<f8", self._rows * width).reshape(-1), width)
            elif kind == "string":
                found[name] = self._strings(self._rows)
            else:
                stored = {"float64": "<f8", "bool": "u1"}.get(kind, "<i8")
                values[at] = self._take(stored, self._rows).reshape(-1)
        nulls = {at: self._take("u1", self._rows).reshape(-1).astype(bool) for at in block.masked}
        found |= {block.names[at]: _typed(each, block.kinds[at], nulls.get(at)) for at, each in values.items()}
        return {name: found[name] for name in block.names}

    def _strings(self, cells: int) -> Any:
        """The next `cells` strings of each record, in order."""
        chosen = slice(self._cell, self._cell + cells)
        self._cell += cells
        lengths, places = self._lengths[:, chosen].reshape(-1), self._places[:, chosen].reshape(-1)
        return _texts(self._bytes, places, lengths)

    def _ids(self) -> Any:
        import pyarrow as pa
        import pyarrow.compute as pc

        if not self._flags & BASED:
            return self._strings(self._rows)
        rows = pa.array(np.tile(np.arange(self._rows), self._count)).cast(pa.string())
        return pc.binary_join_element_wise(self._repeated(self._strings(1)), rows, "-")

    def _repeated(self, values: Any) -> Any:
        """A value a record, for each of its rows."""
        import pyarrow as pa

        if self._rows == 1 or values.null_count == len(values):
            return values if self._rows == 1 else pa.nulls(self._count * self._rows, values.type)
        return values.take(pa.array(np.repeat(np.arange(self._count), self._rows)))

    def _each(self, values: Any) -> Any:
        return np.repeat(values, self._rows) if self._rows > 1 else np.ascontiguousarray(values)

    def _named(self, numbers: Any, names: Mapping[int, Any], kind: pa.DataType | None = None) -> Any:
        """What numbers stand for, a record, for each row."""
        import pyarrow as pa

        there, positions = np.unique(numbers, return_inverse=True)
        values = pa.array([names[int(each)] for each in there], kind or pa.string())
        return values.take(pa.array(self._each(positions)))


def _once(numbers: Any) -> list[int]:
    found: list[int] = np.unique(numbers).tolist()
    return found


def _header(fixed: Any) -> Any:
    """The headers of records as a structured array."""
    names = (
        "crc", "length", "kind", "variant", "flags", "layout", "rows", "provenance", "user",
        "predicted_at", "latency", "shadow_of",
    )  # fmt: skip
    formats = ("u4", "u4", "u1", "u1", "u2", "u4", "u4", "u4", "u4", "i8", "i8", "i8")
    described = np.dtype([(name, f"<{each}") for name, each in zip(names, formats, strict=True)])
    return np.ascontiguousarray(fixed[:, : HEAD.size]).view(described).reshape(-1)


def _windows(data: Any, starts: Any, size: int) -> Any:
    """`size` bytes from each start: (starts, size). A view where the starts are evenly apart."""
    if len(starts) == 1:
        return data[starts[0] : starts[0] + size][None, :]
    apart = np.diff(starts)
    step = int(apart[0])
    if (apart == step).all():
        return np.lib.stride_tricks.as_strided(data[starts[0] :], (len(starts), size), (step, 1), writeable=False)
    return np.lib.stride_tricks.sliding_window_view(data, size)[starts]


def _texts(data: Any, places: Any, lengths: Any) -> Any:
    """Arrow strings of byte ranges; a length of -1 is null."""
    import pyarrow as pa

    nulls = lengths < 0
    if nulls.all():
        return pa.nulls(len(lengths), pa.string())
    sizes = np.maximum(lengths, 0)
    ends = np.cumsum(sizes, dtype=np.int64)
    offsets = np.zeros(len(lengths) + 1, np.int32)
    offsets[1:] = ends
    first = int(sizes[0])
    if first and (sizes == first).all():
        content = np.ascontiguousarray(_windows(data, places, first)).reshape(-1)
    else:
        content = data[np.repeat(places - (ends - sizes), sizes) + np.arange(int(ends[-1]))]
    valid = pa.array(~nulls).buffers()[1] if nulls.any() else None
    buffers = [valid, pa.py_buffer(offsets.data), pa.py_buffer(np.ascontiguousarray(content).data)]
    return pa.Array.from_buffers(pa.string(), len(lengths), buffers)


def _numbers(values: Any, kind: str) -> Any:
    """A column of a matrix in its kind; as floats, where a value is none of that kind."""
    import pyarrow as pa

    if kind in ("float64", "string"):
        return pa.array(values, from_pandas=True)
    nulls = np.isnan(values)
    rest = np.where(nulls, 0.0, values)
    if kind == "bool":
        fits = ((rest == 0) | (rest == 1)).all()
    else:
        fits = ((rest == np.trunc(rest)) & (np.abs(rest) <= 2.0**53)).all()
    return _typed(rest.astype("<i8"), kind, nulls) if fits else pa.array(values, from_pandas=True)


def _typed(values: Any, kind: str, nulls: Any) -> Any:
    import pyarrow as pa

    if kind == "float64":
        return pa.array(values, from_pandas=True)
    if kind == "bool":
        missing = values == 2 if nulls is None else nulls
        return pa.array(values == 1, mask=missing)
    mask = nulls if nulls is not None and nulls.any() else None
    return pa.array(values, mask=mask).cast(arrow_type(kind))


def _vectors(values: Any, width: int) -> Any:
    import pyarrow as pa

    offsets: Any = pa.array(np.arange(0, len(values) + 1, width, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, pa.array(values, from_pandas=True))
