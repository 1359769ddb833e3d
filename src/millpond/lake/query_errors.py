"""What an engine says of a query, in the user's terms, whichever engine it is."""

from __future__ import annotations

from collections.abc import Collection

from millpond.core.errors import MillpondError
from millpond.lake import duckdb_errors, spark_errors


def of_engine(error: BaseException) -> bool:
    """Whether an engine raised it."""
    import duckdb

    return isinstance(error, duckdb.Error) or spark_errors.of_spark(error)


def translate(error: Exception, where: str, lines_before: int = 0, tables: Collection[str] = ()) -> MillpondError:
    """A Millpond error for an error of an engine.

    Args:
        error: What the engine raised.
        where: The place in the user's files.
        lines_before: Lines of the statement before the user's own.
        tables: Relations that the user's query may name.
    """
    if spark_errors.of_spark(error):
        return spark_errors.translate(error, where, lines_before, tables)
    return duckdb_errors.translate(error, where, lines_before, tables)
