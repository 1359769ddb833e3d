"""Running the inference app: one uvicorn server on a Unix socket that only its owner can open, or on loopback."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

from starlette.types import ASGIApp

from millpond.core.errors import Unavailable

#: Seconds that answers under way are given when the server is told to stop.
GRACE_SECONDS = 10

#: Connections that may wait to be accepted.
BACKLOG = 1024


def serve_socket(app: ASGIApp, path: Path) -> None:
    """Serve on a Unix socket until SIGTERM or SIGINT; blocks. The socket has mode 0600 from the moment it exists.

    A socket that a dead server left behind is replaced.

    Raises:
        Unavailable: A server is answering on that socket already, or the path cannot be bound.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _refuse_live_socket(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # uvicorn opens its own sockets to everybody (mode 0666), so the listener is made here.
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
        _serve(app, listener)
    finally:
        # While the last answers were given, a successor may have put its own socket there.
        with suppress(FileNotFoundError):
            if path.stat().st_ino == ours:
                path.unlink()


def serve_port(app: ASGIApp, port: int, *, host: str = "127.0.0.1") -> None:
    """Serve on a TCP port until SIGTERM or SIGINT; blocks.

    Raises:
        Unavailable: The port is in use.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol must be named: asyncio sets TCP_NODELAY only then, and without it each answer waits 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        # Two sockets may be bound to one port while neither listens.
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        what = f"port {port} cannot be used: {error.strerror or error}"
        raise Unavailable(what, where=f"{host}:{port}", hint="stop what uses it, or choose another port") from error
    _serve(app, listener)


def _serve(app: ASGIApp, listener: socket.socket) -> None:
    import uvicorn

    config = uvicorn.Config(
        app,
        http="httptools",
        lifespan="off",
        access_log=False,
        log_config=None,
        backlog=BACKLOG,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    uvicorn.Server(config).run(sockets=[listener])


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
