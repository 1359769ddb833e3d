import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from millpond.access.store import AccessStore

CODE = ("a" * 40, True)

APPLY = """
import sys
from pathlib import Path
from millpond.access.store import AccessStore
store = AccessStore.open(Path(sys.argv[1]))
sys.stdin.readline()
for step in range(20):
    meanings = {("view", "v"): {"over": int(sys.argv[2]) * 100 + step}}
    store.definitions.apply(sys.argv[2], meanings, lambda: (None, False))
"""


def put(store: AccessStore, over: int | None, name: str = "v") -> list[int | None]:
    made = store.definitions.apply("ann", {("view", name): None if over is None else {"over": over}}, lambda: CODE)
    return [each.number for each in made]


def test_every_new_meaning_is_the_next_version(store: AccessStore) -> None:
    assert [put(store, 1), put(store, 1), put(store, 2), put(store, 3), put(store, 3)] == [[1], [], [2], [3], []]
    found = store.definitions.everything()
    assert [(each.number, each.meaning, each.who, each.code_commit) for each in found] == [
        (1, {"over": 1}, "ann", "a" * 40),
        (2, {"over": 2}, "ann", "a" * 40),
        (3, {"over": 3}, "ann", "a" * 40),
    ]
    assert all(each.code_dirty and each.at.tzinfo is not None for each in found)


def test_a_meaning_that_comes_back_is_the_version_that_it_was(store: AccessStore) -> None:
    assert [put(store, 1), put(store, 2), put(store, 1), put(store, 3)] == [[1], [2], [1], [3]]
    assert store.definitions.in_force()["view", "v"].number == 3


def test_what_is_no_longer_declared_is_not_in_force_and_stays_on_record(store: AccessStore) -> None:
    assert [put(store, 1), put(store, None), put(store, None)] == [[1], [None], []]
    assert store.definitions.in_force() == {}
    assert [each.number for each in store.definitions.everything()] == [1, None]
    assert [put(store, 2), put(store, 1)] == [[2], [1]]


def test_the_code_is_asked_for_only_where_something_is_new(store: AccessStore) -> None:
    asked = []

    def code() -> tuple[str | None, bool]:
        asked.append(1)
        return None, False

    for _ in range(3):
        store.definitions.apply("ann", {("view", "v"): {"a": 1}, ("table", "v"): {"a": 1}}, code)
    assert len(asked) == 1
    assert set(store.definitions.in_force()) == {("view", "v"), ("table", "v")}


def test_what_was_applied_cannot_be_changed(store: AccessStore, tmp_path: Path) -> None:
    put(store, 1)
    with sqlite3.connect(tmp_path / "platform.db") as raw:
        for statement in ("UPDATE applied_definitions SET number = 7", "DELETE FROM applied_definitions"):
            with pytest.raises(sqlite3.IntegrityError, match="stays on record"):
                raw.execute(statement)


@pytest.mark.slow
def test_processes_at_once_never_give_one_number_to_two_meanings(store: AccessStore, tmp_path: Path) -> None:
    path = str(tmp_path / "platform.db")
    processes = [
        subprocess.Popen([sys.executable, "-c", APPLY, path, str(number)], stdin=subprocess.PIPE, text=True)
        for number in range(1, 4)
    ]
    for process in processes:
        process.communicate("go\n", timeout=60)
        assert process.returncode == 0
    found = store.definitions.everything()
    assert sorted({each.number for each in found if each.number}) == list(range(1, 61))
    meanings = {each.number: each.meaning for each in found}
    assert all(meanings[each.number] == each.meaning for each in found)


def test_a_database_from_before_is_brought_up_to_date(tmp_path: Path) -> None:
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine

    import millpond.access.migrations as migrations

    config = Config()
    config.set_main_option("script_location", next(iter(migrations.__path__)))
    engine = create_engine(f"sqlite:///{tmp_path / 'old.db'}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    opened = AccessStore.open(tmp_path / "old.db")
    opened.create_identity("ann")
    assert put(opened, 1) == [1]
    opened.close()
