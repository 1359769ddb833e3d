"""Files of the lake that are gone or damaged, in the user's terms."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from millpond.core.errors import MillpondError, Unavailable

_RESTORE = "restore that from a copy of the project's state; nothing was written"


@contextmanager
def whole_catalog(database: Path) -> Iterator[None]:
    """Raise what SQLite says about a damaged catalog as `Unavailable`; that it is busy is left to who retries."""
    from sqlalchemy.exc import DatabaseError, OperationalError

    try:
        yield
    except OperationalError:
        raise
    except (sqlite3.DatabaseError, DatabaseError) as error:
        reason = str(error.orig if isinstance(error, DatabaseError) else error)
        raise Unavailable(
            f"The catalog of the lake is damaged: {reason}", where=str(database), hint=_RESTORE
        ) from error


@contextmanager
def whole_metadata(table: str, folder: Path) -> Iterator[None]:
    """Raise that a table's metadata files are gone or unreadable as `Unavailable`."""
    from pyiceberg.exceptions import ValidationError

    try:
        yield
    except MillpondError:
        raise
    # A cut file fails as whatever the reader of its format happens to meet first.
    except (OSError, ValueError, EOFError, LookupError, TypeError, AttributeError, ValidationError) as error:
        state = "missing" if isinstance(error, FileNotFoundError) else "damaged"
        where = getattr(error, "filename", None) or str(folder)
        raise Unavailable(f'A metadata file of table "{table}" is {state}', where=where, hint=_RESTORE) from error
