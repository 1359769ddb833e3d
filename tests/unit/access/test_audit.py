import sqlite3
from pathlib import Path

import pytest

from millpond.access.store import AccessStore


@pytest.fixture
def database(store: AccessStore, tmp_path: Path) -> Path:
    for number in range(1, 6):
        store.audit.append("ann", "promote", f"late_arrival/{number}", f"it is better ({number})", {"from": number - 1})
    return tmp_path / "platform.db"


def tamper(database: Path, *statements: str) -> None:
    """As somebody with the file does: the triggers are no hindrance to them."""
    with sqlite3.connect(database) as raw:
        for event in ("update", "delete"):
            raw.execute(f"DROP TRIGGER audit_refuses_{event}")
        for statement in statements:
            raw.execute(statement)


def test_entries_are_read_newest_first(store: AccessStore, database: Path) -> None:
    entries = store.audit.entries(limit=2)
    assert [(e.sequence, e.object, e.why) for e in entries] == [
        (5, "late_arrival/5", "it is better (5)"),
        (4, "late_arrival/4", "it is better (4)"),
    ]
    assert entries[0].details == {"from": 4}
    assert entries[0].at.tzinfo is not None
    assert [e.sequence for e in store.audit.entries(before=3)] == [2, 1]


def test_an_untouched_log_is_intact(store: AccessStore, database: Path) -> None:
    verdict = store.audit.verify()
    assert (verdict.intact, verdict.entries) == (True, 5)
    assert verdict.head == store.audit.entries(limit=1)[0].hash


def test_an_empty_log_is_intact(store: AccessStore) -> None:
    assert store.audit.verify().intact


@pytest.mark.parametrize(
    ("statement", "broken_at"),
    [
        ("UPDATE audit SET why = 'it was asked for' WHERE sequence = 3", 3),
        ("UPDATE audit SET who = 'bob' WHERE sequence = 1", 1),
        ("UPDATE audit SET at = '2020-01-01 00:00:00.000000' WHERE sequence = 2", 2),
        ("UPDATE audit SET details = '{}' WHERE sequence = 5", 5),
        ("DELETE FROM audit WHERE sequence = 3", 3),
        ("DELETE FROM audit WHERE sequence = 1", 1),
        ("DELETE FROM audit WHERE sequence >= 4", 4),
        ("DELETE FROM audit", 1),
        (
            "INSERT INTO audit SELECT 6, at, who, action, object, why, details, hash, hash FROM audit WHERE sequence=5",
            6,
        ),
        ("DELETE FROM audit_head", 6),
    ],
)
def test_tampering_is_found_where_it_was_done(
    store: AccessStore, database: Path, statement: str, broken_at: int
) -> None:
    tamper(database, statement)
    verdict = store.audit.verify()
    assert not verdict.intact
    assert verdict.broken_at == broken_at
    assert verdict.problem


def test_an_entry_hashed_anew_breaks_the_next_one(store: AccessStore, database: Path) -> None:
    from millpond.access.audit import _chain

    third, second = store.audit.entries(limit=1, before=4)[0], store.audit.entries(limit=1, before=3)[0]
    values = {name: getattr(third, name) for name in ("sequence", "at", "who", "action", "object", "details")}
    forged = _chain({**values, "why": "forged"}, second.hash)
    tamper(database, f"UPDATE audit SET why = 'forged', hash = '{forged}' WHERE sequence = 3")
    assert store.audit.verify().broken_at == 4


def test_the_database_itself_refuses_changes(store: AccessStore, database: Path) -> None:
    with sqlite3.connect(database) as raw:
        for statement in ("UPDATE audit SET why = ''", "DELETE FROM audit"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                raw.execute(statement)
    assert store.audit.verify().intact


def test_entries_written_at_once_by_two_stores_make_one_chain(store: AccessStore, database: Path) -> None:
    import threading

    other = AccessStore.open(database)
    threads = [
        threading.Thread(target=lambda s=s, n=n: s.audit.append("ann", "note", str(n)))  # type: ignore[misc]
        for n in range(10)
        for s in (store, other)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    verdict = store.audit.verify()
    assert (verdict.intact, verdict.entries) == (True, 25)
