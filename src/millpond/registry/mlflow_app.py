"""MLflow's tracking server as an ASGI application inside our own process.

MLflow reads its configuration from the environment, at import and again at each request; this module is the only place
that sets it. The variables stay set for as long as the process lives: start children with `child_environment()`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from millpond.core.errors import Conflict
from millpond.registry import mlflow_library
from millpond.registry.mlflow_connection import SCHEME, prepare, tracking_uri

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

# The assistant may run shell commands on this machine for anyone who reaches it from loopback, and behind our server
# everybody does.
_BLOCKED = re.compile(r"/mlflow/+assistant(/|$)", re.IGNORECASE)

_PRIVATE_PREFIX = "_MLFLOW_SERVER_"
_SERVER_VARIABLES = (
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION",
    "MLFLOW_SERVER_ALLOWED_HOSTS",
    "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS",
)
_SCHEMES = ("http", "https")
_LOOPBACK_HOSTS = ("localhost", "localhost:*", "127.0.0.1", "127.0.0.1:*", "[::1]", "[[]::1]:*")

_opened: tuple[Path, Path] | None = None
_opening = Lock()


def mlflow_application(database: Path, artifacts: Path, *, hosts: Sequence[str] = ()) -> ASGIApp:
    """MLflow's user interface and REST API, for requests whose path no longer has the prefix it is mounted under.

    Takes some seconds, for the imports: call it beside the event loop. It answers whoever reaches it, so identity must
    be established in front of it. Uploads and downloads of artifacts are streamed.

    Args:
        database: As for `MLflowStore`; made where it does not exist.
        artifacts: As for `MLflowStore`.
        hosts: Host headers, and origins of pages, to accept besides the loopback's with any port; "*" stands for any
            text.

    Raises:
        Conflict: This process already serves another database; MLflow can serve one.
    """
    global _opened  # noqa: PLW0603
    database, artifacts = database.absolute(), artifacts.absolute()
    with _opening:
        if _opened not in (None, (database, artifacts)):
            raise Conflict(
                f"this process already serves MLflow for {_opened and _opened[0]}",
                where=str(database),
                hint="start another process for another project",
            )
        mlflow_library.load()
        prepare(database)
        os.environ.update(_environment(database, artifacts, hosts))
        _opened = (database, artifacts)
        return _guarded(_application(tracking_uri(database)))


def _environment(database: Path, artifacts: Path, hosts: Sequence[str]) -> dict[str, str]:
    return {
        "_MLFLOW_SERVER_FILE_STORE": tracking_uri(database),
        "_MLFLOW_SERVER_ARTIFACT_ROOT": f"{SCHEME}:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": artifacts.as_uri(),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join((*_LOOPBACK_HOSTS, *hosts)),
        # Pages of these hosts may write, which pages of the loopback may anyway.
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(f"{scheme}://{host}" for host in hosts for scheme in _SCHEMES),
    }


def _application(uri: str) -> ASGIApp:
    """Which of MLflow's applications is served: the plain one, which lets everyone in front of it do everything.

    MLflow's application with permissions (`mlflow.server.auth`) takes its place here once there are roles.
    """
    with mlflow_library.quiet():
        from mlflow.server.fastapi_app import app
        from mlflow.server.handlers import initialize_backend_stores

        initialize_backend_stores(uri, uri, f"{SCHEME}:/")
    application: ASGIApp = app
    return application


def _guarded(app: ASGIApp) -> ASGIApp:
    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        elif scope["type"] == "http" and _BLOCKED.search(scope["path"]):
            await _answer(send, 403, b"MLflow's assistant is switched off here.\n")
        elif scope["type"] == "http":
            await app(scope, receive, send)

    return guarded


def without_prefix(app: ASGIApp, prefix: str) -> ASGIApp:
    """`app` behind `prefix` (such as "/mlflow"), which it never sees: neither as path nor as `root_path`.

    The bare prefix is redirected to itself with a slash; other paths answer 404.
    """

    async def stripped(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if path == prefix:
            return await _answer(send, 307, b"", location=f"{prefix}/".encode())
        if not path.startswith(prefix + "/"):
            return await _answer(send, 404, b"Not found\n")
        inner = {**scope, "path": path[len(prefix) :], "root_path": ""}
        inner["raw_path"] = scope.get("raw_path", path.encode())[len(prefix) :]
        return await app(inner, receive, send)

    return stripped


async def _answer(send: Send, status: int, body: bytes, location: bytes | None = None) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    if location:
        headers.append((b"location", location))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def child_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """`environment` (this process's by default) without what only MLflow's server in this process may read."""
    source = os.environ if environment is None else environment
    return {
        name: value
        for name, value in source.items()
        if not name.startswith(_PRIVATE_PREFIX) and name not in _SERVER_VARIABLES
    }
