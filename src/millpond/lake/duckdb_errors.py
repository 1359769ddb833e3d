"""What DuckDB says, in the user's terms."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from millpond.core.errors import DataError, MillpondError, NotFound, Unavailable
from millpond.core.names import did_you_mean
from millpond.lake.schema import column_hint, excerpt

_NO_COLUMN = re.compile(r'[Cc]olumn "([^"]+)" (?:was )?not found|does not have a column named "([^"]+)"')
_NOT_RESOLVED = re.compile(r"with name `(?:.*`\.`)?([^`]+)` cannot be resolved")
_CANDIDATES = re.compile(r"Candidate bindings: (.+)")
_NO_TABLE = re.compile(r"Table with name (.+?) does not exist")
_NO_FILE = re.compile(r'No files found that match the pattern "([^"]+)"')
_DAMAGED = re.compile(r"(?:No magic bytes found at end of file|too small to be a Parquet file|footer.*file) '([^']+)'")
_LINE = re.compile(r"LINE (\d+):")


@contextmanager
def translated(sql: str) -> Iterator[None]:
    """Raise errors of DuckDB as Millpond's; the beginning of `sql` is said where nothing better is known."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        raise translate(error, excerpt(sql)) from error


def translate(error: Exception, where: str, lines_before: int = 0, tables: Collection[str] = ()) -> MillpondError:
    """A Millpond error for an error of DuckDB.

    Args:
        error: What DuckDB raised, or what Arrow made of it.
        where: The place in the user's files.
        lines_before: Lines of the statement before the user's own.
        tables: Relations that the user's query may name.
    """
    import duckdb

    text = str(error)
    line = _LINE.search(text)
    if line is not None and int(line.group(1)) > lines_before:
        where = f"{where}, line {int(line.group(1)) - lines_before} of the query" if lines_before else where
    if (column := _NO_COLUMN.search(text)) is not None:
        name = column.group(1) or column.group(2)
        candidates = _CANDIDATES.search(text)
        known = re.findall(r'"([^"]+)"', candidates.group(1)) if candidates else []
        hint = column_hint(name, known) if known else "see the columns of the table"
        return DataError(f'There is no column "{name}"', where=where, hint=hint)
    if (table := _NO_TABLE.search(text)) is not None:
        name = table.group(1)
        hint = "name it among the inputs" + (f"; {did_you_mean(name, tables, noun='tables')}" if tables else "")
        return DataError(f'There is no table "{name}" here', where=where, hint=hint)
    if isinstance(error, duckdb.OutOfMemoryException) or "Out of Memory Error" in text:
        hint = "raise the memory limit, or free space in the directory for temporary files"
        return Unavailable(f"The query needs more memory than it may use: {_first(text)}", where=where, hint=hint)
    if (gone := _NO_FILE.search(text)) is not None:
        hint = "the snapshot has expired: read a newer one; or the file was removed: restore it from a copy"
        return NotFound("Files of the snapshot are gone", where=gone.group(1), hint=hint)
    if (damaged := _DAMAGED.search(text)) is not None:
        return DataError("The file is not whole", where=damaged.group(1), hint="restore it from a copy")
    if isinstance(error, duckdb.IOException):
        return Unavailable(f"A file cannot be read or written: {_first(text)}", where=where)
    return DataError(f"The query failed: {_first(text)}", where=where)


def explain_expression(error: Exception, known: Sequence[str]) -> tuple[str, str]:
    """What is wrong with an expression of the user's over columns, and a hint.

    Args:
        error: What evaluating it raised.
        known: The columns that there are.
    """
    behind: BaseException | None = error
    while behind is not None:
        column = _NO_COLUMN.search(str(behind)) or _NOT_RESOLVED.search(str(behind))
        if column is not None:
            name = next(filter(None, column.groups()))
            return f'there is no column "{name}"', column_hint(name, list(known))
        behind = behind.__cause__ or behind.__context__
    return _first(str(error)), "the columns are " + ", ".join(known)


def _first(text: str) -> str:
    """The first line of a message, without the name of the error's class."""
    first = text.strip().splitlines()[0] if text.strip() else "no reason was given"
    return re.sub(r"^(?:[A-Z]\w+ )+Error: ", "", first)
