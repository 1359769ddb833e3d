"""The application behind the one port: every route, and the guard in front of all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import anyio.from_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from millpond.access.store import AccessStore
from millpond.console import STATIC
from millpond.console.pages import Console
from millpond.console.rendering import error_page
from millpond.core.errors import MillpondError, NotFound, RequestError, Unavailable
from millpond.core.fingerprints import fingerprint
from millpond.platform.read_models import Operations, Reader
from millpond.server import api
from millpond.server.errors import headers_of, status_of
from millpond.server.forward import Forward
from millpond.server.guard import SECURITY_HEADERS, Guard
from millpond.server.inference_metrics import merge_workers
from millpond.server.late import LateApp
from millpond.server.login import Login
from millpond.server.metrics import Measured, ServerMetrics
from millpond.server.openapi import description, inference_description
from millpond.server.processes import ChildStatus

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


@dataclass(frozen=True)
class Services:
    """What the server puts a face on.

    Attributes:
        access: Identities, secrets, audit log.
        reader: What is shown.
        operations: What is done.
        workers: Unix sockets of the serving workers.
        version: Millpond's version.
        cookie: Name of the session cookie, from `session_cookie`.
    """

    access: AccessStore
    reader: Reader
    operations: Operations
    workers: Sequence[Path]
    version: str
    cookie: str = "millpond_session"


def session_cookie(state: Path) -> str:
    """Name of a project's session cookie: its own, as browsers share cookies between the ports of a host."""
    return f"millpond_{fingerprint(str(state.resolve()))[:8]}"


@dataclass(frozen=True)
class Parts:
    """The running parts behind the server: made by `create_app`, or by who starts children and loads MLflow."""

    serving: Forward
    mlflow: LateApp
    children: Callable[[], Sequence[ChildStatus]] = field(default=tuple)
    metrics: ServerMetrics = field(default_factory=ServerMetrics)


def parts(services: Services, children: Callable[[], Sequence[ChildStatus]] = tuple) -> Parts:
    """The parts of a server, none of them running yet."""
    waiting = _waiting_page
    return Parts(
        Forward(tuple(services.workers), "The serving worker"), LateApp("MLflow", "/mlflow", waiting), children
    )


def create_app(services: Services, running: Parts) -> Starlette:
    """The application. Its guard asks for an identity on every route that `guard.is_open` does not name."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await running.serving.close()

    handlers: dict[Any, Any] = {MillpondError: _on_error, HTTPException: _on_http_error, Exception: _on_crash}
    return Starlette(
        routes=_routes(services, running),
        middleware=[
            Middleware(Measured, metrics=running.metrics),
            Middleware(Guard, access=services.access, cookie=services.cookie),
        ],
        exception_handlers=handlers,
        lifespan=lifespan,
    )


def _routes(services: Services, running: Parts) -> list[BaseRoute]:
    async def health(_request: Request) -> Response:
        """That the server answers, and which parts are there: nothing of the project."""
        return JSONResponse({"status": "ok", "serving": await _serving(running), "mlflow": running.mlflow.state})

    async def metrics(_request: Request) -> Response:
        told = await running.serving.fetch_all("/metrics")
        text = running.metrics.render(running.children(), bool(told))
        text += merge_workers({str(number): each for number, each in told.items()})
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    def status() -> api.Status:
        serving = anyio.from_thread.run(_serving, running)
        return api.Status(services.version, serving, running.mlflow.state, tuple(running.children()))

    served = api.calls(services.reader, services.operations, services.access.audit, status)
    documents = {api.PREFIX: description(served, services.version), "/v2": inference_description(services.version)}

    def described(prefix: str) -> Route:
        return Route(f"{prefix}/openapi.json", lambda _request: JSONResponse(documents[prefix]), methods=["GET"])

    console = Console(services.reader, services.operations, services.access.audit, lambda: running.mlflow.state)
    return [
        Route("/healthz", health, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
        *Login(services.access, services.cookie).routes(),
        Mount("/static", StaticFiles(directory=STATIC), name="static"),
        *(described(prefix) for prefix in documents),
        *api.routes(served),
        Route(api.PREDICT, _Endpoint(_Moved(running.serving, api.PREFIX, "/v2")), methods=["POST"]),
        Route("/v2", _Endpoint(running.serving), methods=_METHODS),
        Route("/v2/{path:path}", _Endpoint(running.serving), methods=_METHODS),
        Route("/mlflow", _Endpoint(running.mlflow), methods=_METHODS),
        Route("/mlflow/{path:path}", _Endpoint(running.mlflow), methods=_METHODS),
        *console.routes(),
    ]


class _Endpoint:
    """Makes a route of an ASGI application (a route takes a function for one that makes a response)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)


@dataclass(frozen=True)
class _Moved:
    """An ASGI application that is asked below another prefix of the path."""

    app: ASGIApp
    here: str
    there: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        moved = {
            "path": self.there + scope["path"].removeprefix(self.here),
            "raw_path": self.there.encode() + raw.removeprefix(self.here.encode()),
        }
        await self.app({**scope, **moved}, receive, send)


async def _serving(running: Parts) -> Literal["ready", "starting"]:
    return "ready" if await running.serving.fetch("/v2/health/ready", timeout=1.0) is not None else "starting"


def _waiting_page(error: Unavailable, again: int | None) -> ASGIApp:
    async def respond(scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope)
        await error_page(request, 503, error, refresh=again)(scope, receive, send)

    return respond


def _wants_page(request: Request) -> bool:
    machine = request.url.path.startswith(("/api/", "/v2", "/metrics", "/mlflow"))
    return not machine and ("text/html" in request.headers.get("accept", "") or "hx-request" in request.headers)


def _answer(request: Request, error: MillpondError, status: int, headers: dict[str, str]) -> Response:
    page = error_page(request, status, error) if _wants_page(request) else None
    response: Response = page or JSONResponse(error.to_dict(), status)
    response.headers.update(headers)
    return response


def _on_error(request: Request, error: MillpondError) -> Response:
    return _answer(request, error, status_of(error), headers_of(error))


def _on_http_error(request: Request, error: HTTPException) -> Response:
    kind = {404: NotFound, 405: RequestError}.get(error.status_code, RequestError)
    what = {
        404: f"There is nothing at {request.url.path}.",
        405: f"{request.method} is not possible here.",
    }.get(error.status_code, error.detail)
    return _answer(request, kind(what), error.status_code, dict(error.headers or {}))


def _on_crash(request: Request, _error: Exception) -> Response:
    hint = "the details are in .millpond/logs/server.log"
    error = MillpondError("Something went wrong in the server; it was not your request.", hint=hint)
    return _answer(request, error, 500, SECURITY_HEADERS)
