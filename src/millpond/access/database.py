"""Opening the platform database: SQLite in WAL mode, at the newest schema."""

from __future__ import annotations

import threading
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text  # noqa: TID253
from sqlalchemy.exc import OperationalError  # noqa: TID253

from millpond.core.errors import SettingsError, Unavailable

#: The newest revision in `migrations/versions`.
HEAD = "0004"

_BUSY_SECONDS = 15
_MIGRATIONS = Path(__file__).parent / "migrations"
_migrating = threading.Lock()  # Alembic keeps its context in module globals


def open_database(path: Path) -> Engine:
    """Open the database, made if it is not there, and bring its schema to `HEAD`.

    Safe in several processes at once: a migration runs in one write transaction, so it is done whole or not at all,
    and the others wait for it.

    Raises:
        SettingsError: The file is no database, or was written by a newer Millpond.
        Unavailable: It stayed locked by another process.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False})
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    try:
        _use_wal(engine)
        if _revision(engine) != HEAD:
            _upgrade(engine, path)
    except OperationalError as error:
        engine.dispose()
        if "locked" not in str(error):
            raise SettingsError(f"The platform database cannot be opened: {error.orig}", where=str(path)) from error
        raise Unavailable("The platform database is locked by another process.", where=str(path)) from error
    except Exception as error:
        engine.dispose()
        if isinstance(error, SettingsError):
            raise
        hint = "move the file away to start with a new one; identities, tokens and the audit log are in it"
        raise SettingsError(f"The platform database cannot be read: {error}", where=str(path), hint=hint) from error
    return engine


def reading(engine: Engine) -> AbstractContextManager[Connection]:
    """A transaction that only reads; never waits for a writer."""
    return engine.begin()


def writing(engine: Engine) -> AbstractContextManager[Connection]:
    """A transaction that takes the write lock at its beginning, so that what it reads stays true until it commits."""
    return engine.execution_options(writes=True).begin()


def _configure(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun by `_begin`, not guessed by the driver
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _use_wal(engine: Engine) -> None:
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        connection = engine.raw_connection()
        try:
            connection.cursor().execute("PRAGMA journal_mode = WAL")
            return
        except Exception as error:
            # Two processes that switch a new file at once: SQLite fails one without waiting.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        finally:
            connection.close()


def _revision(engine: Engine) -> str | None:
    with reading(engine) as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def _upgrade(engine: Engine, path: Path) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    found = _revision(engine)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        hint = "install the Millpond that wrote it, or a newer one"
        what = f"The platform database has schema {found}, which this Millpond does not know."
        raise SettingsError(what, where=str(path), hint=hint)
    with _migrating, writing(engine) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
