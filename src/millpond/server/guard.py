"""The door of the server: who a request comes from, and what every answer says to the browser."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from millpond.access.ports import Authenticator, Identity
from millpond.core.errors import AccessDenied, MillpondError, NotAuthenticated, PayloadTooLarge
from millpond.server.credentials import OPEN_ROUTES, USER_HEADER, presented_token
from millpond.server.errors import headers_of, status_of

Credential = Literal["token", "session"]

#: The console's own style sheet, script and icon, which the login page needs.
OPEN_PREFIX = "/static/"

#: Bodies of these are streamed on to a part that has a limit of its own.
_STREAMED = re.compile(r"/v2/|/mlflow/|/api/v1/models/[^/]+/predict$")
_MACHINE_PATHS = ("/api/", "/v2/", "/metrics", "/mlflow/api/", "/mlflow/ajax-api/")
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_OWN_HEADERS = "x-millpond-"

PAGE_POLICY = "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
SECURITY_HEADERS = {
    "content-security-policy": PAGE_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Guard:
    """ASGI middleware that lets a request in, or answers it itself.

    A request is known by an access token (`Authorization: Bearer`, or the password of `Basic`, as MLflow's clients
    send it) or by the session cookie. What a cookie does must come from one of our own pages. Headers in Millpond's
    own name are taken off whatever the client sent, and `x-millpond-user` put in their place.

    Attributes:
        app: What is guarded.
        access: Tells who holds a token or a session.
        cookie: Name of the session cookie.
        body_limit: Largest body in bytes of requests that are not streamed on.
    """

    app: ASGIApp
    access: Authenticator
    cookie: str
    body_limit: int = 4 << 20

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            await receive()
            return await send({"type": "websocket.close", "code": 1008})
        send = _with_security_headers(send)
        try:
            identity, credential = await self._identify(scope)
        except MillpondError as error:
            return await refusal(scope, error)(scope, receive, send)
        inner = _for_identity(scope, identity, credential)
        if _STREAMED.match(scope["path"]):
            return await self.app(inner, receive, send)
        if _content_length(scope) > self.body_limit:
            return await refusal(scope, _too_large(self.body_limit))(scope, receive, send)
        return await self.app(inner, _limited(receive, self.body_limit), send)

    async def _identify(self, scope: Scope) -> tuple[Identity | None, Credential | None]:
        if is_open(scope["path"]):
            return None, None
        headers = Headers(scope=scope)
        token = presented_token(headers.get("authorization", ""))
        if token is not None:
            identity = await run_in_threadpool(self.access.authenticate_token, token)
            if identity is None:
                raise NotAuthenticated(
                    "The access token is not valid: it is unknown, or was revoked.",
                    hint="the project's token lies in .millpond/token; make another with `millpond token create NAME`",
                )
            return identity, "token"
        session = cookie_parser(headers.get("cookie", "")).get(self.cookie)
        identity = await run_in_threadpool(self.access.authenticate_session, session) if session else None
        if identity is None:
            hint = "send the header `Authorization: Bearer mp_...`; the project's token lies in .millpond/token"
            raise NotAuthenticated("This needs an identity, and the request carries none that is valid.", hint=hint)
        if scope["method"] not in _SAFE_METHODS and not is_own_page(scope):
            what = "The request comes from another site's page, and was not carried out."
            raise AccessDenied(what, hint="programs send an access token instead of the browser's cookie")
        return identity, "session"


def is_open(path: str) -> bool:
    """Whether a path answers without an identity."""
    return path in OPEN_ROUTES or path.startswith(OPEN_PREFIX)


def is_own_page(scope: Scope) -> bool:
    """Whether the browser says that a page of this very server, or the user's own hand, made the request.

    Both `Sec-Fetch-Site` and `Origin` are believed only to refuse; at least one must be there. Another port of the
    same host is another site's page.
    """
    headers = Headers(scope=scope)
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is None and origin is None:
        return False
    if site not in (None, "same-origin", "none"):
        return False
    return origin is None or urlsplit(origin)[:2] == (scope["scheme"], headers.get("host", ""))


def refusal(scope: Scope, error: MillpondError) -> Response:
    """The answer to a request that is not let in: a way to the login page for browsers, JSON for programs."""
    headers = Headers(scope=scope)
    if isinstance(error, NotAuthenticated) and not scope["path"].startswith(_MACHINE_PATHS):
        wanted = scope["path"] + ("?" + scope["query_string"].decode("latin-1") if scope["query_string"] else "")
        if "hx-request" in headers:
            return Response(status_code=401, headers={"hx-redirect": "/login"})
        if scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            return RedirectResponse("/login" + (f"?next={quote(wanted)}" if wanted != "/" else ""), status_code=303)
    return JSONResponse(error.to_dict(), status_of(error), headers_of(error))


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The body is larger than {limit:,} bytes.", hint="send fewer rows at a time")


def _content_length(scope: Scope) -> int:
    text = Headers(scope=scope).get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else 0


def _for_identity(scope: Scope, identity: Identity | None, credential: Credential | None) -> Scope:
    # WSGI applications read "x_millpond_user" as the same header.
    headers = [
        (name, value)
        for name, value in scope["headers"]
        if not name.decode("latin-1").lower().replace("_", "-").startswith(_OWN_HEADERS)
    ]
    if identity is not None:
        headers.append((USER_HEADER.encode(), identity.name.encode()))
    state = {**scope.get("state", {}), "identity": identity, "credential": credential}
    return {**scope, "headers": headers, "state": state}


def _limited(receive: Receive, limit: int) -> Receive:
    seen = 0

    async def limited() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise _too_large(limit)
        return message

    return limited


def _with_security_headers(send: Send) -> Send:
    async def secured(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return secured
