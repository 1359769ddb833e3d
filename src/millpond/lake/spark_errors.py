"""What Spark says, in the user's terms: never a stack trace of Java's."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from millpond.core.errors import DataError, MillpondError, NotFound, SettingsError, Unavailable
from millpond.core.names import did_you_mean
from millpond.lake.schema import column_hint, excerpt

_CONDITION = re.compile(r"\[([A-Z][A-Z0-9_]*(?:\.[A-Z0-9_]+)*)\] ?")
_STATE = re.compile(r"\s*SQLSTATE: \w+.*", re.DOTALL)
_ADVICE = re.compile(r"""\s(?:If necessary|Use [`'"]?try_|To (?:return|tolerate)|Correct the value as per).*$""")
_RAISED = re.compile(r"^(?:[\w.]+\.)?(\w+(?:Error|Exception)): (.+)$", re.MULTILINE)
_LINE = re.compile(r"\(line (\d+), pos|; line (\d+) pos")
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
    line = _LINE.search(text)
    number = int(next(filter(None, line.groups()))) if line is not None else 0
    if lines_before and number > lines_before:
        where = f"{where}, line {number - lines_before} of the query"
    if (failed := _of_python(text, where)) is not None:
        return failed
    condition, said = _said(text)
    if condition == "ARITHMETIC_OVERFLOW":
        return DataError(f"A number does not fit its type: {said}", where=where, hint="cast to a wider type first")
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


def _of_python(text: str, where: str) -> MillpondError | None:
    """What went wrong in the Python of an executor, where that is what failed."""
    if "No module named 'millpond" in text or "PYTHON_VERSION_MISMATCH" in text:
        return SettingsError(
            "Spark's executors cannot run Millpond: another Python, or Millpond is not installed there",
            where=where,
            hint="install millpond[spark] in the executors' Python, of the driver's version; spark.pyspark.python in"
            " the profile's section spark says which Python that is",
        )
    raised = _RAISED.findall(text) if "Traceback (most recent call last)" in text else []
    if not raised:
        return None
    kind, what = raised[-1]
    if kind in ("OSError", "PermissionError", "FileNotFoundError"):
        return Unavailable(
            f"A file cannot be written by Spark's executors: {what}",
            where=where,
            hint="they need the lake under the same path as this process, and room in it",
        )
    return DataError(f"The query failed: {what}", where=where)


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
