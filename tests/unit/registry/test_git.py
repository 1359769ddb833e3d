from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from millpond.registry.git import DIFF_LIMIT_BYTES, code_state
from millpond.registry.ports import CodeState


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-c", "protocol.file.allow=always", *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "a project"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "flights.py").write_text("a = 1\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    return folder


def test_clean(repository: Path) -> None:
    assert code_state(repository) == CodeState(git(repository, "rev-parse", "HEAD"), "main", dirty=False, diff="")


def test_a_diff_rebuilds_the_files(repository: Path, tmp_path: Path) -> None:
    folder = repository / "nested"
    folder.mkdir()
    (repository / "flights.py").write_text("a = 2\n")
    (folder / "neu ä.py").write_text("b = 1\n\nc = 2")
    (folder / "empty.py").write_text("")
    (folder / "windows.py").write_bytes(b"d = 1\r\n")
    state = code_state(folder)
    assert state.dirty
    copy = tmp_path / "copy"
    git(tmp_path, "clone", "-q", str(repository), str(copy))
    patch = tmp_path / "patch"
    patch.write_bytes(state.diff.encode())
    git(copy, "apply", str(patch))
    for name in ("flights.py", "nested/neu ä.py", "nested/empty.py", "nested/windows.py"):
        assert (copy / name).read_bytes() == (repository / name).read_bytes(), name


def test_staged_changes_count(repository: Path) -> None:
    (repository / "flights.py").write_text("a = 3\n")
    git(repository, "add", ".")
    state = code_state(repository)
    assert state.dirty
    assert "+a = 3" in state.diff


def test_before_the_first_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "trunk")
    assert code_state(tmp_path) == CodeState(None, "trunk", dirty=False, diff="")
    (tmp_path / "staged.py").write_text("s = 1\n")
    git(tmp_path, "add", ".")
    (tmp_path / "new.py").write_text("n = 1\n")
    state = code_state(tmp_path)
    assert (state.commit, state.branch, state.dirty) == (None, "trunk", True)
    assert "+s = 1" in state.diff
    assert "+n = 1" in state.diff


def test_detached(repository: Path) -> None:
    git(repository, "checkout", "-q", "--detach")
    assert code_state(repository).branch is None
    assert code_state(repository).commit


def test_no_repository_no_folder_no_git(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = CodeState(None, None, dirty=False, diff="")
    plain = tmp_path / "plain"
    plain.mkdir()
    assert code_state(plain) == nothing
    assert code_state(tmp_path / "absent") == nothing
    assert code_state(repository / ".git") == nothing
    monkeypatch.setenv("PATH", str(plain))
    assert code_state(repository) == nothing


def test_what_is_no_text_is_named(repository: Path) -> None:
    (repository / "weights.bin").write_bytes(b"\x00\x01\x02")
    (repository / "latin.txt").write_bytes(b"caf\xe9\n")
    (repository / "link").symlink_to("/etc/hostname")
    os.mkfifo(repository / "pipe")
    with (repository / "huge.csv").open("wb") as file:
        file.truncate(3 << 30)
    state = code_state(repository)
    assert state.dirty
    for name in ("weights.bin", "latin.txt", "link", "huge.csv"):
        assert f"{name}' left out" in state.diff
    assert "3,221,225,472 bytes" in state.diff


def test_a_changed_binary_file_is_named(repository: Path) -> None:
    (repository / "b.bin").write_bytes(b"\x00" * 100)
    git(repository, "add", ".")
    assert "Binary files /dev/null and b/b.bin differ" in code_state(repository).diff


def test_a_huge_diff_is_cut_and_says_so(repository: Path) -> None:
    (repository / "flights.py").write_text("ä = 1\n" * 400_000)
    (repository / "new.py").write_text("n = 1\n")
    state = code_state(repository)
    assert state.dirty
    assert len(state.diff.encode()) <= DIFF_LIMIT_BYTES
    assert state.diff.splitlines()[-1].startswith("# millpond: the diff is cut here")


def test_untracked_files_fill_what_is_left(repository: Path) -> None:
    for number in range(4):
        (repository / f"n{number}.py").write_text("x = 1\n" * 50_000)
    state = code_state(repository)
    assert len(state.diff.encode()) <= DIFF_LIMIT_BYTES
    assert "diff --git a/n0.py b/n0.py" in state.diff
    assert "left out" in state.diff.splitlines()[-1]


def test_ignored_files_and_own_state_do_not_count(repository: Path) -> None:
    (repository / ".gitignore").write_text("*.log\n")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "two")
    (repository / "a.log").write_text("x")
    (repository / ".millpond").mkdir()
    (repository / ".millpond" / "mlflow.db").write_text("x")
    (repository / "sub" / ".millpond").mkdir(parents=True)
    (repository / "sub" / ".millpond" / "mlflow.db").write_text("x")
    assert not code_state(repository).dirty


def test_a_submodule(repository: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    git(tmp_path, "clone", "-q", str(repository), str(other))
    git(repository, "submodule", "--quiet", "add", str(other), "lib")
    git(repository, "commit", "-qm", "lib")
    assert not code_state(repository).dirty
    (repository / "lib" / "flights.py").write_text("a = 9\n")
    assert code_state(repository).dirty


def test_the_users_settings_do_not_change_the_form(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(repository, "config", "diff.noprefix", "true")
    git(repository, "config", "color.ui", "always")
    git(repository, "config", "diff.external", "/bin/false")
    (repository / "flights.py").write_text("a = 2\n")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert code_state(repository).diff.startswith("diff --git a/flights.py b/flights.py\n")
