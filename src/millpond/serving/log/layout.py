"""How the columns of one signature lie in a record: shared by who writes records and who reads them.

A record holds the answers to one request, of `n` rows. Its fixed part has the same size for all records of a layout
and a number of rows; the bytes of its strings follow, in the order of their lengths. The fixed part is, little-endian:

    header                              HEAD
    lengths of strings, -1 is null      int32: the request's id; the base of the prediction ids, or n ids;
                                        then n for each string column of outputs, request, inputs
    as_of                               int64[n], microseconds UTC
    outputs, answers uint8[n], request, inputs

where an answer is 0, 1 or 2 for none, and outputs, request and inputs are blocks. A block is one float64[n, columns];
or a column after the other, each float64[n], int64[n], uint8[n] (2 is null) or float64[n, width], and then a
uint8[n] for each int64 column that is 1 where the value is null. NaN is null.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any

#: CRC-32 of all that follows, length of the frame, kind, variant, flags, layout, rows, provenance, user,
#: predicted_at and latency in microseconds, and the version that answered instead of a shadow, or -1.
HEAD = struct.Struct("<IIBBHIIIIqqq")
#: CRC-32 and length of any frame, and its kind.
FRAME = struct.Struct("<IIB")

#: Kinds of frames: what records refer to, as JSON with an "id", and records.
LAYOUT, PROVENANCE, USER, RECORD = 1, 2, 3, 4
#: Flag of a record: the prediction ids are one base, and the row.
BASED = 1

VARIANTS = ("live", "canary", "shadow", "asked", "batch")

_FORMATS = {"float64": "d", "int64": "q", "instant": "q", "bool": "B", "string": ""}
NULLABLE = ("int64", "instant")


@dataclass(frozen=True)
class Block:
    """Some columns of a record.

    Attributes:
        names: Their names.
        kinds: "bool", "int64", "float64", "string" or "instant" each.
        widths: Values a row of each: 0 is one value, more is a float64 vector.
        matrix: Whether all of them are one float64 matrix, whatever their kinds.
    """

    names: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    widths: tuple[int, ...] = ()
    matrix: bool = False

    @cached_property
    def strings(self) -> tuple[int, ...]:
        """Positions of the string columns."""
        return () if self.matrix else tuple(at for at, kind in enumerate(self.kinds) if kind == "string")

    @cached_property
    def masked(self) -> tuple[int, ...]:
        """Positions of the columns that have a mask of nulls."""
        return () if self.matrix else tuple(at for at, kind in enumerate(self.kinds) if kind in NULLABLE)

    @cached_property
    def simple(self) -> bool:
        """Whether one row of it is its values, where none is null."""
        return not self.strings and not self.masked and not self.vectors

    @cached_property
    def vectors(self) -> bool:
        """Whether a column holds vectors."""
        return any(self.widths)

    @cached_property
    def no_nulls(self) -> tuple[int, ...]:
        """The masks of one row without nulls."""
        return (0,) * len(self.masked)

    @cached_property
    def numbers_of(self) -> Callable[[Sequence[Any]], Sequence[Any]]:
        """Takes what is no string from the values of a row."""
        return _picker([at for at, kind in enumerate(self.kinds) if kind != "string"])

    @cached_property
    def strings_of(self) -> Callable[[Sequence[Any]], Sequence[Any]]:
        """Takes the strings from the values of a row."""
        return _picker(self.strings)

    @cached_property
    def single(self) -> str:
        """The block of one row, as a format of `struct`; strings have no part in it."""
        if self.matrix:
            return f"{8 * len(self.names)}s" if self.names else ""
        columns = zip(self.kinds, self.widths, strict=True)
        return "".join(f"{8 * width}s" if width else _FORMATS[kind] for kind, width in columns) + "B" * len(self.masked)

    @cached_property
    def row_size(self) -> int:
        """Bytes a row."""
        return struct.calcsize(f"<{self.single}")

    def to_json(self) -> dict[str, Any]:
        return {"names": self.names, "kinds": self.kinds, "widths": self.widths, "matrix": self.matrix}

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Block:
        """As `to_json` wrote it."""
        return cls(tuple(kept["names"]), tuple(kept["kinds"]), tuple(kept["widths"]), kept["matrix"])


@dataclass(frozen=True)
class Layout:
    """A signature: of which version, and where its columns lie.

    Attributes:
        model: The model's name.
        version: The version's number.
        raw: Whether requests are raw model inputs; they are then held once, as inputs.
        shared: Whether the request's rows are the inputs too; held once, as inputs.
        outputs: What the runtime gives.
        request: Columns of the request that are held; none where `raw` or `shared`.
        inputs: Raw model inputs that are held.
        redacted: Columns that are not.
    """

    model: str
    version: int
    raw: bool
    shared: bool
    outputs: Block
    request: Block
    inputs: Block
    redacted: tuple[str, ...] = ()

    @cached_property
    def has_request(self) -> bool:
        """Whether the request's rows are held beside the inputs."""
        return not (self.raw or self.shared)

    @cached_property
    def cells(self) -> int:
        """Strings a row, beside ids."""
        return len(self.outputs.strings) + len(self.request.strings) + len(self.inputs.strings)

    def strings(self, rows: int, flags: int) -> int:
        """Number of strings of a record."""
        return 1 + (1 if flags & BASED else rows) + self.cells * rows

    def size(self, rows: int, flags: int) -> int:
        """Bytes of a record's fixed part."""
        a_row = 8 + self.outputs.row_size + 1 + self.request.row_size + self.inputs.row_size
        return HEAD.size + 4 * self.strings(rows, flags) + rows * a_row

    @cached_property
    def single(self) -> struct.Struct:
        """The fixed part of a record of one row, from the length on."""
        parts = (self.outputs.single, "B", self.request.single, self.inputs.single)
        return struct.Struct(f"<{HEAD.format[2:]}{self.strings(1, 0)}iq{''.join(parts)}")

    def to_json(self, identifier: int) -> bytes:
        """For a frame of kind LAYOUT."""
        blocks = {name: getattr(self, name).to_json() for name in ("outputs", "request", "inputs")}
        named = {name: getattr(self, name) for name in ("model", "version", "raw", "shared", "redacted")}
        return json.dumps({"id": identifier, **named, **blocks}).encode()

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Layout:
        """As `to_json` wrote it."""
        return cls(
            model=kept["model"],
            version=kept["version"],
            raw=kept["raw"],
            shared=kept["shared"],
            outputs=Block.from_json(kept["outputs"]),
            request=Block.from_json(kept["request"]),
            inputs=Block.from_json(kept["inputs"]),
            redacted=tuple(kept["redacted"]),
        )


def _picker(places: Sequence[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    if len(places) > 1:
        return itemgetter(*places)
    return (lambda row: (row[places[0]],)) if places else (lambda _row: ())
