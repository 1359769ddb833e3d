"""Writing records: each frame is there whole or not at all. How a record lies in its frame: `layout`.

What many records have in common is written once a segment, in frames of its own, to which records refer by a number:
the signature (`layout.Layout`), what features were read from, and who asked.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias
from zlib import crc32

import numpy as np

from millpond.serving.log.ids import RowIds
from millpond.serving.log.layout import BASED, FRAME, HEAD, LAYOUT, PROVENANCE, RECORD, USER, VARIANTS, Block, Layout
from millpond.serving.ports import Answer, LogRecord, ServedModel
from millpond.serving.rows import Rows

if TYPE_CHECKING:
    from millpond.serving.rows import Column

_CODES = {name: code for code, name in enumerate(VARIANTS)}
_SHADOW = _CODES["shadow"]
_Part: TypeAlias = bytes | memoryview
_CRC = struct.Struct("<I")
_NAN = float("nan")
_NULLS: dict[str, Any] = {"float64": _NAN, "int64": 0, "instant": 0, "bool": 2}
#: Of provenances and of users that are remembered; they are few, but nothing limits them.
_REMEMBERED = 4096


@dataclass(slots=True)
class Group:
    """Records that are committed at once.

    Attributes:
        frames: Their frames, in order.
        needs: Number -> frame of what they refer to.
        size: Bytes of `frames`.
    """

    frames: list[bytes] = field(default_factory=list)
    needs: dict[int, bytes] = field(default_factory=dict)
    size: int = 0


class Encoder:
    """Turns records into frames. Not safe across threads. What it refers to has one number as long as it lives."""

    def __init__(self) -> None:
        self._count = 0
        self._signatures: dict[tuple[Any, ...], _Signature] = {}
        self._users: dict[str, tuple[int, bytes]] = {}
        self._provenances: dict[Any, _Provenance] = {}
        self._recent: dict[int, _Signature] = {}

    def add(self, record: LogRecord, group: Group) -> int:
        """Add a record to a group; how many bytes it takes.

        Raises:
            ValueError: A value is not of its column's type.
        """
        answer = record.answer
        signature = self._recent.get(id(answer.served))
        if signature is None or not signature.fits(record, answer):
            signature = self._signature(record)
        provenance = signature.provenance
        if provenance is None or not provenance.fits(record, answer):
            provenance = self._provenance(signature, record)
        user = self._users.get(record.requested_by) or self._user(record.requested_by)
        frame = None
        if record.inputs.count == 1:
            try:
                frame = _encode_one(record, signature, provenance.number, user[0])
            except (struct.error, TypeError, UnicodeEncodeError):
                frame = None  # such as a null among integers that came as an array of floats
        if frame is None:
            try:
                frame = _encode(record, signature, provenance.number, user[0])
            except (struct.error, TypeError, OverflowError) as error:
                raise ValueError(str(error)) from error
        needs = group.needs
        needs[signature.number] = signature.frame
        needs[provenance.number] = provenance.frame
        needs[user[0]] = user[1]
        group.frames.append(frame)
        size = len(frame)
        group.size += size
        return size

    def _signature(self, record: LogRecord) -> _Signature:
        answer, request, inputs = record.answer, record.request, record.inputs
        key = (
            id(answer.served), tuple(answer.outputs), record.raw, request is inputs,
            request.names, request.matrix is None, inputs.names, inputs.matrix is None,
        )  # fmt: skip
        found = self._signatures.get(key)
        if found is None:
            if len(self._signatures) >= _REMEMBERED:
                self._signatures.clear()
                self._recent.clear()
            found = self._signatures[key] = _Signature(self._next(), record)
        self._recent[id(answer.served)] = found
        return found

    def _provenance(self, signature: _Signature, record: LogRecord) -> _Provenance:
        snapshots, events, synced_at = record.snapshots, record.events, record.answer.synced_at
        key = (tuple(snapshots.items()), tuple(events.items()), synced_at)
        found = self._provenances.get(key)
        if found is None:
            if len(self._provenances) >= _REMEMBERED:
                self._provenances.clear()
            found = self._provenances[key] = _Provenance(self._next(), dict(snapshots), dict(events), synced_at)
        signature.provenance = found
        return found

    def _user(self, name: str) -> tuple[int, bytes]:
        if len(self._users) >= _REMEMBERED:
            self._users.clear()
        number = self._next()
        found = self._users[name] = (number, frame_of(USER, json.dumps({"id": number, "name": name}).encode()))
        return found

    def _next(self) -> int:
        self._count += 1
        return self._count


def frame_of(kind: int, payload: bytes) -> bytes:
    """A frame that is no record."""
    rest = struct.pack("<IB", FRAME.size + len(payload), kind) + payload
    return _CRC.pack(crc32(rest)) + rest


class _Provenance:
    """What features were read from."""

    __slots__ = ("events", "frame", "number", "snapshots", "synced_at")

    def __init__(
        self, number: int, snapshots: Mapping[str, int], events: Mapping[str, int], synced_at: int | None
    ) -> None:
        self.number, self.snapshots, self.events, self.synced_at = number, snapshots, events, synced_at
        kept = {"id": number, "snapshots": snapshots, "events": events, "synced_at": synced_at}
        self.frame = frame_of(PROVENANCE, json.dumps(kept).encode())

    def fits(self, record: LogRecord, answer: Answer) -> bool:
        return (
            record.snapshots == self.snapshots and record.events == self.events and answer.synced_at == self.synced_at
        )


class _Signature:
    """A layout with its number, and which columns of a record it takes."""

    __slots__ = (
        "_input_names", "_inputs_given", "_outputs", "_raw", "_request_given", "_request_names", "_served", "_shared",
        "frame", "inputs", "layout", "number", "provenance", "request",
    )  # fmt: skip

    def __init__(self, number: int, record: LogRecord) -> None:
        answer = record.answer
        served = answer.served
        # What the identity in the key belongs to must stay alive.
        self._served, self._outputs = served, tuple(answer.outputs)
        self._raw, self._shared = record.raw, record.request is record.inputs
        self._request_names, self._input_names = record.request.names, record.inputs.names
        self._request_given, self._inputs_given = record.request.matrix is None, record.inputs.matrix is None
        hidden = frozenset(served.logging.redact)
        asked = {column.name: column.type for column in served.columns}
        given = {output.name: output for output in served.outputs}
        outputs = Block(
            self._outputs,
            tuple(given[name].type for name in self._outputs),
            tuple(given[name].width for name in self._outputs),
        )
        request = Block() if record.raw or self._shared else _block(record.request, asked, hidden)
        inputs = _block(record.inputs, dict(served.inputs) | ({} if record.raw else _missing(served, asked)), hidden)
        self.request, self.inputs = _taken(record.request, request), _taken(record.inputs, inputs)
        redacted = tuple(name for name in served.logging.redact)
        self.layout = Layout(served.model, served.version, record.raw, self._shared, outputs, request, inputs, redacted)
        self.number = number
        self.frame = frame_of(LAYOUT, self.layout.to_json(number))
        self.provenance: _Provenance | None = None

    def fits(self, record: LogRecord, answer: Answer) -> bool:
        request, inputs = record.request, record.inputs
        return (
            answer.served is self._served
            and record.raw is self._raw
            and (request is inputs) is self._shared
            and (inputs.matrix is None) is self._inputs_given
            and (inputs.names is self._input_names or inputs.names == self._input_names)
            and (
                self._shared
                or (
                    (request.matrix is None) is self._request_given
                    and (request.names is self._request_names or request.names == self._request_names)
                )
            )
            and (len(answer.outputs) == 1 == len(self._outputs) or tuple(answer.outputs) == self._outputs)
        )


def _missing(served: ServedModel, asked: Mapping[str, str]) -> dict[str, str]:
    return {name: kind for name, kind in asked.items() if name not in served.inputs}


def _block(rows: Rows, kinds: Mapping[str, str], hidden: frozenset[str]) -> Block:
    names = tuple(name for name in rows.names if name not in hidden)
    return Block(
        names, tuple(kinds[name] for name in names), (0,) * len(names), rows.matrix is not None and bool(names)
    )


def _taken(rows: Rows, block: Block) -> list[int] | None:
    """The positions of a block's columns; None where all are taken."""
    return None if block.names == rows.names else [rows.names.index(name) for name in block.names]


def _encode_one(record: LogRecord, signature: _Signature, provenance: int, user: int) -> bytes:
    """The frame of a record of one row, in one call of `struct`."""
    (
        answer, request, _, inputs, predicted_at, _, latency, request_id, _, _, shadow_of
    ) = record  # fmt: skip
    layout = signature.layout
    strings: list[str | None] = []
    values: list[Any] = []
    _one(layout.outputs, list(answer.outputs.values()), values, strings)
    answers = answer.answers
    values.append(2 if answers is None else 1 if answers[0] else 0)
    if layout.has_request:
        _one_of(layout.request, request, signature.request, values, strings)
    _one_of(layout.inputs, inputs, signature.inputs, values, strings)
    tail = answer.ids[0].encode()
    if request_id is None and not strings:
        lengths = [-1, len(tail)]
    else:
        texts = [b"" if each is None else each.encode() for each in (request_id, *strings)]
        lengths = [*map(len, texts)]
        if request_id is None or None in strings:
            lengths = [-1 if each is None else size for each, size in zip((request_id, *strings), lengths, strict=True)]
        lengths.insert(1, len(tail))
        texts.insert(1, tail)
        tail = b"".join(texts)
    single = layout.single
    rest = single.pack(
        4 + single.size + len(tail), RECORD, _CODES[answer.variant] if shadow_of is None else _SHADOW, 0,
        signature.number, 1, provenance, user, predicted_at, latency, -1 if shadow_of is None else shadow_of,
        *lengths, answer.as_of[0], *values,
    ) + tail  # fmt: skip
    return _CRC.pack(crc32(rest)) + rest


def _one_of(block: Block, rows: Rows, taken: list[int] | None, values: list[Any], strings: list[str | None]) -> None:
    if rows.matrix is not None:
        if block.names:
            values.append((rows.matrix if taken is None else rows.matrix[:, taken]).tobytes())
        return
    _one(block, rows.given if taken is None else [rows.given[at] for at in taken], values, strings)


def _one(block: Block, columns: Sequence[Column], values: list[Any], strings: list[str | None]) -> None:
    row = [column[0] for column in columns]
    if not block.vectors and None not in row:
        if block.simple:
            values += row
        else:
            values += block.numbers_of(row)
            values += block.no_nulls
            strings += block.strings_of(row)
        return
    for kind, width, value in zip(block.kinds, block.widths, row, strict=True):
        if width:
            values.append(np.asarray(value, "<f8").tobytes())
        elif kind == "string":
            strings.append(value)
        elif value is None:
            values.append(_NULLS[kind])
        else:
            values.append(value)
    values += [row[at] is None for at in block.masked]


def _encode(record: LogRecord, signature: _Signature, provenance: int, user: int) -> bytes:
    """The frame of a record of any number of rows."""
    answer, layout, rows = record.answer, signature.layout, record.inputs.count
    ids = answer.ids
    flags = BASED if isinstance(ids, RowIds) and rows > 1 else 0
    strings: list[str | None] = [record.request_id, *([ids.base] if isinstance(ids, RowIds) and flags else ids)]
    answers = b"\2" * rows if answer.answers is None else np.asarray(answer.answers, np.bool_).tobytes()
    parts: list[_Part] = [_raw(answer.as_of, "<i8")]
    _many(layout.outputs, list(answer.outputs.values()), rows, parts, strings)
    parts.append(answers)
    if layout.has_request:
        _many_of(layout.request, record.request, signature.request, parts, strings)
    _many_of(layout.inputs, record.inputs, signature.inputs, parts, strings)
    texts = [b"" if each is None else each.encode("utf-8", "replace") for each in strings]
    lengths = [-1 if each is None else len(text) for each, text in zip(strings, texts, strict=True)]
    parts = [_raw(lengths, "<i4"), *parts, b"".join(texts)]
    head = HEAD.pack(
        0, HEAD.size + sum(map(len, parts)), RECORD,
        _CODES[answer.variant] if record.shadow_of is None else _SHADOW, flags,
        signature.number, rows, provenance, user,
        record.predicted_at, record.latency_us, -1 if record.shadow_of is None else record.shadow_of,
    )[_CRC.size :]  # fmt: skip
    checksum = crc32(head)
    for part in parts:
        checksum = crc32(part, checksum)
    return b"".join([_CRC.pack(checksum), head, *parts])


def _raw(values: Any, layout: str) -> memoryview:
    """The bytes of an array in a layout, without a copy where it has it."""
    return np.ascontiguousarray(values, layout).reshape(-1).view(np.uint8).data


def _many_of(block: Block, rows: Rows, taken: list[int] | None, parts: list[_Part], strings: list[str | None]) -> None:
    if rows.matrix is not None:
        parts.append(_raw(rows.matrix if taken is None else rows.matrix[:, taken], "<f8"))
        return
    given = rows.given if taken is None else [rows.given[at] for at in taken]
    _many(block, given, rows.count, parts, strings)


def _many(block: Block, columns: Sequence[Column], rows: int, parts: list[_Part], strings: list[str | None]) -> None:
    masks = []
    for kind, width, column in zip(block.kinds, block.widths, columns, strict=True):
        if width or kind == "float64":
            parts.append(_raw(column, "<f8"))
        elif kind == "string":
            strings += [each if each is None else str(each) for each in column]
        else:
            values, nulls = _nulls_apart(column, rows)
            if kind == "bool":
                parts.append(np.where(nulls, 2, values).astype("<u1").tobytes())
            else:
                parts.append(_raw(values, "<i8"))
                masks.append(nulls.astype("<u1").tobytes())
    parts += masks


def _nulls_apart(column: Column, rows: int) -> tuple[Any, Any]:
    """The values of a column of integers or booleans, 0 for null; and which are null."""
    if isinstance(column, np.ndarray):
        if column.dtype.kind != "f":
            return column, np.zeros(rows, bool)
        nulls = np.isnan(column)
        return np.where(nulls, 0, column), nulls
    if None not in column:
        return np.array(column, "<i8"), np.zeros(rows, bool)
    return np.array([0 if each is None else each for each in column], "<i8"), np.array([e is None for e in column])
