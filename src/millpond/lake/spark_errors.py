"""What Spark says, in the user's terms: never a stack trace of Java's."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from millpond.core.errors import DataError, MillpondError, NotFound, Unavailable
from millpond.core.names import did_you_mean
from millpond.lake.schema import column_hint, excerpt

_CONDITION = re.compile(r"\[([A-Z][A-Z0-9_]*(?:\.[A-Z0-9_]+)*)\] ?")
_STATE = re.compile(r"\s*SQLSTATE: \w+.*", re.DOTALL)
_NAME = re.compile(r"with name (\S+) cannot be resolved|field name (\S+)", re.IGNORECASE)
_ADVICE = re.compile(r"""\s(?:If necessary|Use [`'"]?try_|To (?:return|tolerate)|Correct the value as per).*$""")
_LINE = re.compile(r"\(line (\d+), pos")
_FILE = re.compile(r"(?:file:)?(/\S+\.parquet)")
_TABLE = re.compile(r"table or view (\S+) cannot be found", re.IGNORECASE)
_LOST = ("Connection refused", "Answer from Java side is empty", "Error while sending", "SparkContext was shut down")


@contextmanager
def translated(sql: str) -> Iterator[None]:
    """Raise errors of Spark as Millpond's; the beginning of `sql` is said where nothing better is known."""
    try:
        yield
    except Exception as error:
        if not of_spark(error):
            raise
        raise translate(error, excerpt(sql)) from error


def of_spark(error: BaseException) -> bool:
    """Whether Spark raised it, or the bridge to it."""
    return type(error).__module__.split(".")[0] in ("pyspark", "py4j", "grpc")


def translate(error: Exception, where: str, lines_before: int = 0, tables: Collection[str] = ()) -> MillpondError:
    """A Millpond error for an error of Spark.

    Args:
        error: What Spark raised.
        where: The place in the user's files.
        lines_before: Lines of the statement before the user's own.
        tables: Relations that the user's query may name.
    """
    text = str(error)
    line = _LINE.search(text) or re.search(r"== SQL \(line (\d+), position", text)
    if lines_before and line is not None and int(line.group(1)) > lines_before:
        where = f"{where}, line {int(line.group(1)) - lines_before} of the query"
    condition, said = _said(text)
    if condition.startswith("UNRESOLVED_COLUMN"):
        found = re.search(r"with name (.+?) cannot be resolved", said)
        name = _last_part(found.group(1)) if found else "?"
        known = [_last_part(each) for each in re.findall(r"`[^\[\],]+`", said.partition("one of the following")[2])]
        hint = column_hint(name, known) if known else "see the columns of the table"
        return DataError(f'There is no column "{name}"', where=where, hint=hint)
    if condition == "TABLE_OR_VIEW_NOT_FOUND":
        found = _TABLE.search(said)
        name = _last_part(found.group(1)) if found else "?"
        hint = "name it among the inputs" + (f"; {did_you_mean(name, tables, noun='tables')}" if tables else "")
        return DataError(f'There is no table "{name}" here', where=where, hint=hint)
    if "FILE_NOT_EXIST" in condition or condition == "PATH_NOT_FOUND":
        hint = "the snapshot has expired: read a newer one; or the file was removed: restore it from a copy"
        gone = _FILE.search(text)
        return NotFound("Files of the snapshot are gone", where=gone.group(1) if gone else where, hint=hint)
    if "is not a Parquet file" in text or "CANNOT_READ_FILE_FOOTER" in text:
        damaged = _FILE.search(text)
        return DataError(
            "The file is not whole", where=damaged.group(1) if damaged else where, hint="restore it from a copy"
        )
    if "OutOfMemoryError" in text or condition.startswith("UNABLE_TO_ACQUIRE_MEMORY"):
        hint = 'give it more, such as conf = {"spark.driver.memory" = "4g"} in the profile\'s section spark'
        return Unavailable("The query needs more memory than Spark may use", where=where, hint=hint)
    if any(each in text for each in _LOST) or type(error).__module__.startswith("grpc"):
        return Unavailable("Spark does not answer any more", where=where, hint="run it again; see Spark's log")
    return DataError(f"The query failed: {said}", where=where)


def _said(text: str) -> tuple[str, str]:
    """The condition that Spark names, and what it says of it in one line, without the trace."""
    found = _CONDITION.search(text)
    if found is None:
        first = text.strip().splitlines()[0] if text.strip() else "no reason was given"
        return "", re.sub(r"^(?:[\w.$]+(?:Exception|Error): )+", "", first)
    said = _STATE.sub("", text[found.end() :]).strip() or "no reason was given"
    return found.group(1), _ADVICE.sub("", " ".join(said.splitlines()[0].split()))


def _last_part(name: str) -> str:
    """The last part of a name of several: `weather`.`temp` is temp."""
    return name.strip().strip("`").split("`.`")[-1]
