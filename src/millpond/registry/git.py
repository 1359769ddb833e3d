"""The state of a project's code, as git knows it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from millpond.registry.ports import CodeState

DIFF_LIMIT_BYTES = 1_000_000
_NOTE_BYTES = 300
_TIMEOUT_SECONDS = 30
_NO_REPOSITORY = CodeState(commit=None, branch=None, dirty=False, diff="")

# Whatever the user configured, the diff has one form, runs no helper program and takes no lock.
_GIT = ("git", "-c", "core.quotePath=false", "-c", "core.fsmonitor=false", "-c", "diff.noprefix=false")
_DIFF = ("diff", "--no-ext-diff", "--no-textconv", "--no-color", "--submodule=short", "--ignore-submodules=none")
# Millpond's own state is data, not code, also where nobody told git to ignore it.
_PATHS = ("--", ":/", ":(top,exclude,glob)**/.millpond/**")


def code_state(path: Path) -> CodeState:
    """The commit, branch and uncommitted changes of the repository around `path`.

    The whole repository counts, also where `path` is a folder inside it. The diff can be applied with `git apply`
    unless it was cut at 1 MB or has binary files, which it only names; a line that starts with "# millpond:" says so.
    `dirty` covers the whole repository whatever the diff had to leave out.

    Never raises: without git, outside a repository, or when git fails or takes longer than 30 s, everything that could
    not be found out is None or empty.
    """
    try:
        return _read(path)
    except (OSError, subprocess.SubprocessError):
        return _NO_REPOSITORY


def _read(path: Path) -> CodeState:
    top = _ask(path, "rev-parse", "--show-toplevel")
    if not top:
        return _NO_REPOSITORY
    root = Path(top)
    commit = _ask(root, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    branch = _ask(root, "symbolic-ref", "--quiet", "--short", "HEAD")
    try:
        base = commit or _ask(root, "hash-object", "-t", "tree", os.devnull)
        diff = _tracked_changes(root, base or "HEAD")
        untracked = _untracked(root)
    except (OSError, subprocess.SubprocessError):
        return CodeState(commit, branch, dirty=True, diff=_note("git could not compare the files with the commit"))
    return CodeState(commit, branch, dirty=bool(diff or untracked), diff=_with_additions(diff, root, untracked))


def _run(where: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*_GIT, *arguments], cwd=where, env=_environment(), capture_output=True, timeout=_TIMEOUT_SECONDS, check=False
    )


def _environment() -> dict[str, str]:
    # A git hook or rebase exports GIT_DIR and its kin, which would point at another repository than `path`.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return kept | {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}


def _ask(where: Path, *arguments: str) -> str | None:
    done = _run(where, *arguments)
    return os.fsdecode(done.stdout).rstrip("\n") or None if done.returncode == 0 else None


def _tracked_changes(root: Path, base: str) -> bytes:
    """`git diff base`, at most a little over the limit of it: a huge diff is not held in memory."""
    with tempfile.TemporaryFile() as out:
        subprocess.run(
            [*_GIT, *_DIFF, base, *_PATHS],
            cwd=root,
            env=_environment(),
            stdout=out,
            stderr=subprocess.DEVNULL,
            timeout=_TIMEOUT_SECONDS,
            check=True,
        )
        out.seek(0)
        return out.read(DIFF_LIMIT_BYTES + 1)


def _untracked(root: Path) -> list[str]:
    done = _run(root, "ls-files", "--others", "--exclude-standard", "-z", *_PATHS)
    done.check_returncode()
    return sorted(os.fsdecode(name) for name in done.stdout.split(b"\0") if name)


def _with_additions(diff: bytes, root: Path, untracked: list[str]) -> str:
    """`diff`, and the untracked files as additions, within the limit."""
    room = DIFF_LIMIT_BYTES - _NOTE_BYTES
    if len(diff) > room:
        note = _note(f"the diff is cut here, at {DIFF_LIMIT_BYTES:,} bytes; {len(untracked)} untracked files left out")
        return diff[:room].decode(errors="replace").rstrip("�") + "\n" + note
    parts, used = [diff.decode(errors="replace")], len(diff.decode(errors="replace").encode())
    for index, name in enumerate(untracked):
        addition = _addition(root / name, name, room - used)
        size = len(addition.encode(errors="replace"))
        if used + size > room:
            parts.append(_note(f"{len(untracked) - index} untracked files left out, the diff is full"))
            break
        parts.append(addition)
        used += size
    return "".join(parts)


def _addition(file: Path, name: str, room: int) -> str:
    """An untracked file as the patch that adds it, or a note where it is binary, too large or unreadable."""
    try:
        if file.is_symlink():
            return _note(f"untracked symbolic link {name!r} left out")
        if not file.is_file():
            return _note(f"untracked {name!r} left out: not a regular file")
        size = file.stat().st_size
        if size > room:
            return _note(f"untracked file {name!r} left out: {size:,} bytes")
        content = file.read_bytes()
    except OSError as error:
        return _note(f"untracked file {name!r} left out: {error.strerror}")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        return _note(f"untracked file {name!r} left out: binary, {len(content):,} bytes")
    mode = "100755" if os.access(file, os.X_OK) else "100644"
    head = f"diff --git a/{name} b/{name}\nnew file mode {mode}\n"
    if not text:
        return head
    lines = text.split("\n")
    ending = "" if lines[-1] == "" else "\n\\ No newline at end of file\n"
    if not ending:
        lines.pop()
    body = "\n".join("+" + line for line in lines)
    return f"{head}--- /dev/null\n+++ b/{name}\n@@ -0,0 +1,{len(lines)} @@\n{body}{ending or chr(10)}"


def _note(text: str) -> str:
    return f"# millpond: {text.encode(errors='replace').decode()}\n"
