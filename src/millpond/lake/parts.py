"""A snapshot in parts of about equally many rows: ranges of rows of its files, the same at every call."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from millpond.core.errors import Unavailable
from millpond.lake.scan import ScanPlan, scan_sql


class Piece(NamedTuple):
    """Rows `start` to `stop`, without the latter, of a file; `whole` where those are all of them."""

    file: str
    start: int
    stop: int
    whole: bool


class Part(NamedTuple):
    """Some rows of a snapshot.

    Attributes:
        first: Number of its first row, counted through the files in the order of the snapshot.
        rows: How many.
        pieces: Where they are.
    """

    first: int
    rows: int
    pieces: tuple[Piece, ...]


def split(plan: ScanPlan, rows: int) -> list[Part]:
    """Cut a snapshot into parts of `rows` rows, the last of which may be smaller; each row is in one part.

    Reads the footers of the files. A snapshot without rows has no parts.

    Raises:
        Unavailable: A file cannot be read.
    """
    parts: list[Part] = []
    pieces: list[Piece] = []
    first = held = 0
    for file in plan.files:
        count, start = _rows_of(file), 0
        while start < count:
            stop = min(count, start + rows - held)
            pieces.append(Piece(file, start, stop, (start, stop) == (0, count)))
            held += stop - start
            start = stop
            if held == rows:
                parts.append(Part(first, held, tuple(pieces)))
                first, held, pieces = first + held, 0, []
    if pieces:
        parts.append(Part(first, held, tuple(pieces)))
    return parts


def part_sql(plan: ScanPlan, part: Part) -> str:
    """The rows of a part as a relation, for use after FROM, in DuckDB's dialect; in the order of the snapshot."""
    relations: list[str] = []
    for whole, pieces in groupby(part.pieces, key=lambda piece: piece.whole):
        if whole:
            relations.append(scan_sql(replace(plan, files=tuple(piece.file for piece in pieces))))
        else:
            relations += [_range_sql(plan, piece) for piece in pieces]
    return f"({' UNION ALL '.join(f'SELECT * FROM {each}' for each in relations)})"


def _range_sql(plan: ScanPlan, piece: Piece) -> str:
    relation = scan_sql(replace(plan, files=(piece.file,)), row_number=True)
    within = f"file_row_number >= {piece.start} AND file_row_number < {piece.stop}"
    return f"(SELECT * EXCLUDE (file_row_number) FROM {relation} WHERE {within})"


def _rows_of(file: str) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(file).num_rows)
    except (OSError, pa.ArrowException) as error:
        what = f"A data file cannot be read: {Path(file).name}: {error}"
        raise Unavailable(what, where=file, hint="bring it back from a copy of the lake") from error
