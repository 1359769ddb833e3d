"""Where the platform listens: its one port, and the Unix sockets of its parts."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from millpond.core.errors import AccessDenied, Conflict, SettingsError, Unavailable
from millpond.core.fingerprints import fingerprint

_LONGEST_PATH = 100  # the system's limit is 104 to 108 bytes


#: Connections that may wait to be accepted.
BACKLOG = 2048


def listen(host: str, port: int, setting: str = "--port") -> socket.socket:
    """A listening socket; port 0 takes a free one. `setting` is where another port is chosen.

    Raises:
        Conflict: The port is in use.
        SettingsError: It cannot be listened on for another reason.
    """
    # The protocol must be named: asyncio sets TCP_NODELAY only then, and without it each answer waits 40 ms.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            what = f"Port {port} of {host} is in use by another program."
            raise Conflict(what, hint=f"stop that program, or choose another port with {setting}") from error
        raise SettingsError(f"The server cannot listen on {host}:{port}: {error.strerror}.") from error
    return listener


def part_socket(run: Path, name: str) -> Path:
    """Where a part of the platform listens: in the project's run directory, which only its owner can enter.

    Where that path is longer than the system allows, in a directory of one's own below the system's temporary one;
    the same for every process of the project.

    Raises:
        AccessDenied: That directory belongs to somebody else.
    """
    run.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = run.resolve() / f"{name}.sock"
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        return path
    directory = Path(tempfile.gettempdir()) / f"millpond-{os.getuid()}-{fingerprint(str(run.resolve()))}"
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise AccessDenied("The directory for sockets belongs to, or is open to, others.", where=str(directory))
    return directory / f"{name}.sock"


@contextmanager
def part_listener(path: Path) -> Iterator[socket.socket]:
    """A listening Unix socket, of mode 0600 from the moment it exists; removed at the end.

    A socket that a dead process left behind is replaced.

    Raises:
        Unavailable: A process is answering on that socket already, or the path cannot be bound.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _refuse_live_socket(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise Unavailable(
            f"the socket cannot be made: {error.strerror or error}", where=str(path), hint="choose a shorter path"
        ) from error
    finally:
        os.umask(mask)
    ours = path.stat().st_ino
    try:
        yield listener
    finally:
        listener.close()
        # While the last answers were given, a successor may have put its own socket there.
        with suppress(FileNotFoundError):
            if path.stat().st_ino == ours:
                path.unlink()


def _refuse_live_socket(path: Path) -> None:
    if not path.exists():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            return
    raise Unavailable("a server is answering on this socket already", where=str(path), hint="stop it first")
