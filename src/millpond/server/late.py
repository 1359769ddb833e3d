"""An application that takes long to load, under a prefix of the server that answers at once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from millpond.core.errors import Unavailable
from millpond.server.errors import headers_of, status_of

_log = logging.getLogger("millpond.server")

#: For applications with pages of their own: nothing from, and nothing to, another host.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'self'"
)
#: Not for the application: it is told who asks by a header of ours, and needs no credential.
_KEPT_BACK = frozenset({b"authorization", b"cookie"})


class LateApp:
    """Serves an ASGI application with the prefix taken off its paths, once it is loaded; before that, 503.

    The application's lifespan is not run.

    Args:
        name: What it is called in messages, such as "MLflow".
        prefix: Such as "/mlflow".
        waiting: The page for a browser while the application is not there, given the error that says so, and seconds
            until it should be asked for again (None: it will not come).
    """

    def __init__(
        self, name: str, prefix: str, waiting: Callable[[Unavailable, int | None], ASGIApp] | None = None
    ) -> None:
        self.name = name
        self.prefix = prefix
        self._waiting = waiting
        self._app: ASGIApp | None = None
        self._failure = ""

    @property
    def state(self) -> Literal["starting", "ready", "failed"]:
        if self._app is not None:
            return "ready"
        return "failed" if self._failure else "starting"

    def load(self, loader: Callable[[], ASGIApp]) -> None:
        """Load the application; blocks, for a thread of its own. A failure is logged, and told to who asks for it."""
        try:
            self._app = loader()
        except Exception as error:
            _log.exception("%s could not be loaded", self.name)
            self._failure = str(error) or type(error).__name__

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if path == self.prefix:
            return await RedirectResponse(self.prefix + "/", status_code=307)(scope, receive, send)
        if self._app is None:
            return await self._not_there(scope)(scope, receive, send)
        raw: bytes = scope.get("raw_path") or path.encode()
        inner = {
            **scope,
            "path": path[len(self.prefix) :],
            "raw_path": raw[len(self.prefix) :],
            "root_path": "",
            "headers": [pair for pair in scope["headers"] if pair[0] not in _KEPT_BACK],
        }
        return await self._app(inner, receive, _with_own_policy(send))

    def _not_there(self, scope: Scope) -> ASGIApp:
        if self._failure:
            hint = "see .millpond/logs/server.log, and start the platform again"
            error = Unavailable(f"{self.name} could not be loaded: {self._failure}", hint=hint)
        else:
            error = Unavailable(f"{self.name} is starting; this takes up to half a minute.", hint="try again")
        if self._waiting is not None and "text/html" in Headers(scope=scope).get("accept", ""):
            return self._waiting(error, None if self._failure else 2)
        return JSONResponse(error.to_dict(), status_of(error), headers_of(error))


def _with_own_policy(send: Send) -> Send:
    """Replace what the guard would say of pages: these have inline scripts, and may be kept by the browser."""

    async def secured(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [pair for pair in message.get("headers", []) if pair[0].lower() != b"content-security-policy"]
            headers.append((b"content-security-policy", _POLICY.encode()))
            if not any(name.lower() == b"cache-control" for name, _ in headers):
                headers.append((b"cache-control", b"private, no-cache"))
            message = {**message, "headers": headers}
        await send(message)

    return secured
