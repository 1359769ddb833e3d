import sqlite3
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from millpond.access.store import CODE_LIFE, AccessStore
from millpond.core.errors import Conflict, NotFound, RequestError
from millpond.core.time import now


def test_identities_are_unique_and_named_plainly(store: AccessStore) -> None:
    store.create_identity("nightly-job", "service")
    assert [(i.name, i.kind) for i in store.identities()] == [("ann", "user"), ("nightly-job", "service")]
    assert store.identity("ann").created_at.utcoffset() == timedelta(0)
    with pytest.raises(Conflict, match="exists already"):
        store.create_identity("ann")
    for wrong in ("", " ann", "an\nn", "ann\r\nx-millpond-user: root", "ä", "a" * 101, ".ann"):
        with pytest.raises(RequestError):
            store.create_identity(wrong)
    with pytest.raises(NotFound):
        store.identity("bob")


def test_a_token_is_known_until_it_is_revoked(store: AccessStore) -> None:
    issued = store.issue_token("ann", "laptop")
    assert issued.secret.startswith("mp_")
    assert issued.secret.startswith(issued.token.prefix)
    assert issued.secret not in repr(issued)
    assert store.authenticate_token(issued.secret) == store.identity("ann")
    for wrong in ("", "mp_", issued.secret[:-1], issued.secret + "x", issued.secret.upper(), "mp_" + "a" * 100_000):
        assert store.authenticate_token(wrong) is None
    store.revoke_token(issued.token.id)
    store.revoke_token(issued.token.id)
    assert store.authenticate_token(issued.secret) is None
    assert [token.revoked_at is not None for token in store.tokens("ann")] == [True]
    with pytest.raises(NotFound):
        store.revoke_token(99)
    with pytest.raises(NotFound):
        store.issue_token("bob")


def test_the_last_use_is_noted_to_the_hour(store: AccessStore) -> None:
    issued = store.issue_token("ann")
    assert store.tokens()[0].last_used_at is None
    store.authenticate_token(issued.secret)
    used = store.tokens()[0].last_used_at
    assert used is not None
    assert (used.minute, used.second, used.microsecond) == (0, 0, 0)
    assert now() - timedelta(hours=1) <= used <= now()


def test_no_secret_is_stored(store: AccessStore, tmp_path: Path) -> None:
    secrets = [store.issue_token("ann").secret, store.issue_login_code("ann"), store.open_session("ann")]
    store.close()
    raw = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    for secret in secrets:
        assert secret.encode() not in raw


def test_a_login_code_works_once(store: AccessStore) -> None:
    code = store.issue_login_code("ann")
    redeemed = store.redeem_login_code(code)
    assert redeemed is not None
    identity, session = redeemed
    assert identity.name == "ann"
    assert store.authenticate_session(session) == identity
    assert store.redeem_login_code(code) is None
    assert store.redeem_login_code("made up") is None


def test_a_login_code_expires_after_ten_minutes(store: AccessStore) -> None:
    late = store.issue_login_code("ann", at=now() - CODE_LIFE - timedelta(seconds=1))
    in_time = store.issue_login_code("ann", at=now() - CODE_LIFE + timedelta(seconds=30))
    assert store.redeem_login_code(late) is None
    assert store.redeem_login_code(in_time) is not None


def test_of_many_who_redeem_a_code_at_once_one_gets_in(store: AccessStore) -> None:
    code = store.issue_login_code("ann")
    got: list[object] = []
    threads = [threading.Thread(target=lambda: got.append(store.redeem_login_code(code))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8
    assert sum(each is not None for each in got) == 1


def test_sessions_end(store: AccessStore, tmp_path: Path) -> None:
    first, second, third = (store.open_session("ann") for _ in range(3))
    store.revoke_session(first)
    assert store.authenticate_session(first) is None
    with sqlite3.connect(tmp_path / "platform.db") as raw:
        raw.execute("UPDATE sessions SET expires_at = '2020-01-01 00:00:00.000000' WHERE revoked_at IS NULL")
    assert store.authenticate_session(second) is None
    fourth = store.open_session("ann")
    assert store.authenticate_session(third) is None
    assert store.authenticate_session(fourth) is not None
    assert store.revoke_sessions("ann") == 1
    assert store.authenticate_session(fourth) is None


def test_a_token_is_no_session_and_a_code_is_neither(store: AccessStore) -> None:
    token, code, session = store.issue_token("ann").secret, store.issue_login_code("ann"), store.open_session("ann")
    assert [store.authenticate_token(each) for each in (code, session)] == [None, None]
    assert [store.authenticate_session(each) for each in (token, code)] == [None, None]
    assert [store.redeem_login_code(each) for each in (token, session)] == [None, None]
