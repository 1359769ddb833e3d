"""The administrator of a project on one's own machine, and the file that holds the token."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from millpond.access.store import AccessStore
from millpond.core.errors import AccessDenied, Conflict, NotFound
from millpond.core.ids import new_id

DATABASE = "platform.db"
TOKEN_FILE = "token"  # noqa: S105


@dataclass(frozen=True)
class LocalAdmin:
    """The local administrator.

    Attributes:
        name: The identity's name.
        token: The access token, as kept in the token file.
    """

    name: str
    token: str = field(repr=False)


def local_admin(state: Path, name: str = "admin") -> LocalAdmin:
    """The administrator identity of the project whose state directory is `state`; made once, with its token.

    The token lies in `state/token`, which only its owner can read (mode 0600); it appears whole or not at all.
    Idempotent, and safe in several processes at once. A token file from before the platform database was deleted is
    replaced.

    Raises:
        AccessDenied: Others may read the token file, or its token was revoked.
    """
    store = AccessStore.open(state / DATABASE)
    try:
        return _local_admin(store, state / TOKEN_FILE, name)
    finally:
        store.close()


def read_token(file: Path) -> str | None:
    """The token in a token file, or None where there is no file.

    Raises:
        AccessDenied: The file may be read by others, or is not a regular file of one's own.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AccessDenied(f"The token file cannot be read: {error.strerror}.", where=str(file)) from error
    with os.fdopen(descriptor, encoding="ascii", errors="replace") as opened:
        mode = os.fstat(descriptor).st_mode
        if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
            what = f"The token file may be read by others (mode {stat.S_IMODE(mode):04o})."
            raise AccessDenied(what, where=str(file), hint=f"chmod 600 {file}")
        if not stat.S_ISREG(mode):
            raise AccessDenied("The token file is not a regular file.", where=str(file))
        return opened.read(1024).strip()


def _local_admin(store: AccessStore, file: Path, name: str) -> LocalAdmin:
    with suppress(Conflict):
        store.create_identity(name)
        store.audit.append(name, "create identity", name, "first start of the platform")
    kept = read_token(file)
    if kept is not None and _is_known(store, kept, file):
        return LocalAdmin(name, kept)
    issued = store.issue_token(name, label="local administrator")
    written = _write(file, issued.secret, replace=kept is not None)
    if written:
        store.audit.append(name, "issue token", issued.token.prefix, "first start of the platform")
        return LocalAdmin(name, issued.secret)
    store.revoke_token(issued.token.id)  # another process was first
    first = read_token(file)
    if first is None:
        raise NotFound("The token file vanished while it was being made.", where=str(file), hint="try again")
    return LocalAdmin(name, first)


def _is_known(store: AccessStore, secret: str, file: Path) -> bool:
    token = store.find_token(secret)
    if token is None:
        return False
    if token.revoked_at is not None:
        hint = "delete the file; the next start makes a new token"
        raise AccessDenied("The token in the token file was revoked.", where=str(file), hint=hint)
    return True


def _write(file: Path, secret: str, *, replace: bool) -> bool:
    """Put the secret in place; False where another process has done so first."""
    draft = file.with_name(f".{new_id('token')}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as opened:
            opened.write(secret + "\n")
            opened.flush()
            os.fsync(descriptor)
        if replace:
            draft.replace(file)
            return True
        os.link(draft, file)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    return True
