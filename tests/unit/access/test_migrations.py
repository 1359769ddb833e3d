import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from millpond.access.database import HEAD, open_database, writing
from millpond.access.schema import metadata
from millpond.access.store import AccessStore
from millpond.core.errors import SettingsError

OPEN = """
import sys
from pathlib import Path
from millpond.access.store import AccessStore
sys.stdin.readline()
store = AccessStore.open(Path(sys.argv[1]))
store.audit.append("ann", "open", sys.argv[2])
print("ready")
"""


def test_from_nothing_to_the_newest_schema(tmp_path: Path) -> None:
    engine = open_database(tmp_path / "new" / "platform.db")
    with sqlite3.connect(tmp_path / "new" / "platform.db") as raw:
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert raw.execute("SELECT version_num FROM alembic_version").fetchone() == (HEAD,)
    engine.dispose()


def test_the_migrations_make_what_the_code_expects(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    engine = open_database(tmp_path / "platform.db")
    with engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_head_is_the_newest_migration() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    import millpond.access.migrations as migrations

    config = Config()
    config.set_main_option("script_location", next(iter(migrations.__path__)))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


@pytest.mark.slow
def test_processes_that_open_a_new_database_at_once_all_get_it(tmp_path: Path) -> None:
    path = tmp_path / "platform.db"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, str(path), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        said, complained = process.communicate(timeout=60)
        assert said == "ready\n", complained
    store = AccessStore.open(path)
    verdict = store.audit.verify()
    assert (verdict.intact, verdict.entries) == (True, 4)


def test_a_migration_that_is_cut_off_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "platform.db"
    sqlite3.connect(path).execute("CREATE TABLE sessions (x)")  # in the way of the migration's fourth table
    with pytest.raises(SettingsError):
        open_database(path)
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall() == [("sessions",)]


def test_a_database_of_a_newer_millpond_is_refused(tmp_path: Path) -> None:
    engine = open_database(tmp_path / "platform.db")
    with writing(engine) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()
    with pytest.raises(SettingsError, match="9999") as refused:
        open_database(tmp_path / "platform.db")
    assert "newer" in refused.value.hint


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "platform.db"
    path.write_text("not a database, but long enough to be looked at" * 50)
    with pytest.raises(SettingsError) as refused:
        open_database(path)
    assert refused.value.where == str(path)
    assert path.read_text().startswith("not a database")
