import stat
import threading
from pathlib import Path

import pytest

from millpond.access.local import local_admin, read_token
from millpond.access.store import AccessStore
from millpond.core.errors import AccessDenied


def test_the_administrator_is_made_once(tmp_path: Path) -> None:
    state = tmp_path / ".millpond"
    admin = local_admin(state)
    assert local_admin(state) == admin
    token = state / "token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert token.read_text().strip() == admin.token
    assert admin.token not in repr(admin)
    store = AccessStore.open(state / "platform.db")
    identity = store.authenticate_token(admin.token)
    assert identity is not None
    assert identity.name == "admin"
    assert len(store.tokens()) == 1
    assert [e.action for e in store.audit.entries()] == ["issue token", "create identity"]
    assert {file.name for file in state.iterdir() if file.name.startswith(".")} == set()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_token_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    local_admin(tmp_path)
    token = tmp_path / "token"
    token.chmod(mode)
    with pytest.raises(AccessDenied) as refused:
        local_admin(tmp_path)
    assert refused.value.hint == f"chmod 600 {token}"
    token.chmod(0o600)
    local_admin(tmp_path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    local_admin(tmp_path)
    (tmp_path / "token").rename(tmp_path / "elsewhere")
    (tmp_path / "token").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AccessDenied):
        read_token(tmp_path / "token")


def test_a_revoked_token_is_said_so_and_replaced_when_its_file_goes(tmp_path: Path) -> None:
    first = local_admin(tmp_path)
    store = AccessStore.open(tmp_path / "platform.db")
    store.revoke_token(store.tokens()[0].id)
    with pytest.raises(AccessDenied, match="revoked") as refused:
        local_admin(tmp_path)
    assert "delete the file" in refused.value.hint
    (tmp_path / "token").unlink()
    second = local_admin(tmp_path)
    assert second.token != first.token
    assert store.authenticate_token(first.token) is None
    assert store.authenticate_token(second.token) is not None


def test_a_token_file_older_than_the_database_is_replaced(tmp_path: Path) -> None:
    first = local_admin(tmp_path)
    for file in tmp_path.glob("platform.db*"):
        file.unlink()
    second = local_admin(tmp_path)
    assert second.token != first.token
    assert (tmp_path / "token").read_text().strip() == second.token


def test_a_process_killed_before_the_file_was_there_does_no_harm(tmp_path: Path) -> None:
    store = AccessStore.open(tmp_path / "platform.db")
    store.create_identity("admin")
    store.issue_token("admin")  # and killed here
    admin = local_admin(tmp_path)
    assert store.authenticate_token(admin.token) is not None


def test_two_starts_at_once_agree_on_one_token(tmp_path: Path) -> None:
    AccessStore.open(tmp_path / "platform.db").close()
    tokens: list[str] = []
    threads = [threading.Thread(target=lambda: tokens.append(local_admin(tmp_path).token)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokens) == 6
    assert set(tokens) == {(tmp_path / "token").read_text().strip()}
    store = AccessStore.open(tmp_path / "platform.db")
    assert sum(token.revoked_at is None for token in store.tokens()) == 1


def test_there_is_no_token_before_the_first_start(tmp_path: Path) -> None:
    assert read_token(tmp_path / "token") is None
