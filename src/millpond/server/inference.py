"""The inference app: the Open Inference Protocol, version 2, over HTTP.

It runs in the serving worker, behind a Unix socket that only the platform's user can open; the front that forwards to
it has established who asks, and says so in the header `x-millpond-user`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar
from urllib.parse import unquote

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from millpond import __version__
from millpond.core.errors import NotAuthenticated, NotFound, RequestError, Unavailable
from millpond.core.names import did_you_mean
from millpond.server.inference_body import read_body
from millpond.server.inference_errors import error_response, json_response
from millpond.server.inference_metrics import CONTENT_TYPE, InferenceMetrics
from millpond.serving.predictor import Predictor
from millpond.serving.protocol import MAX_ROWS, format_response, model_metadata, parse_request, server_metadata

logger = logging.getLogger(__name__)

#: The header in which the trusted front names the caller; percent-encoded UTF-8.
USER_HEADER = "x-millpond-user"

#: Lookups of models at the same time; each may wait for a model that is being loaded.
LOOKING_THREADS = 16


@dataclass(frozen=True)
class Limits:
    """What one caller may ask for.

    Attributes:
        body_bytes: Longest request body; a longer one is answered with 413 and never held.
        body_seconds: Seconds within which a body must have arrived; else 408.
        rows: Most rows in a request; else 413.
        threads: Requests of one model that are worked on at the same time. The model itself is called by one of them;
            the others read, write and share an fsync of the prediction log.
        waiting: Requests of one model that may be there at the same time; one more is answered with 503.
    """

    body_bytes: int = 16 << 20
    body_seconds: float = 30.0
    rows: int = MAX_ROWS
    threads: int = 4
    waiting: int = 64


class ModelDirectory(Protocol):
    """Knows which version answers for a model. Called from several threads at once; may block while it loads."""

    def names(self) -> Sequence[str]:
        """The models that have a version to serve, sorted. Quick."""
        ...

    def get(self, model: str, version: str | None = None) -> Predictor:
        """The predictor of a version, or of the one that serves.

        Raises:
            NotFound: There is no such model or version.
            Unavailable: It is there, and cannot answer now.
        """
        ...


T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]


class _SlowBody(Exception):
    """The body did not arrive in time."""


class _Lane:
    """The requests of one model, so that those of a slow one never stand in the way of another's."""

    def __init__(self, model: str, limits: Limits) -> None:
        self._model = model
        self._most = limits.waiting
        self._present = 0
        self._threads = anyio.CapacityLimiter(limits.threads)

    @contextmanager
    def place(self) -> Iterator[anyio.CapacityLimiter]:
        """A place among the model's requests, and the bound on their threads.

        Raises:
            Unavailable: All places are taken.
        """
        if self._present >= self._most:
            raise Unavailable(
                f"model {self._model!r} has {self._present} requests to answer already",
                where=f"model {self._model!r}",
                hint="ask again in a moment, or send more rows in one request",
            )
        self._present += 1
        try:
            yield self._threads
        finally:
            self._present -= 1


class _Service:
    """The handlers and what they share."""

    def __init__(self, models: ModelDirectory, limits: Limits) -> None:
        self._models = models
        self._limits = limits
        self._lanes: dict[str, _Lane] = {}
        self._looking: anyio.CapacityLimiter | None = None
        self.metrics = InferenceMetrics()

    def routes(self) -> list[Route]:
        routes = [
            Route("/v2", _guarded(self.server), methods=["GET"]),
            Route("/v2/health/live", _guarded(self.live), methods=["GET"]),
            Route("/v2/health/ready", _guarded(self.ready), methods=["GET"]),
            Route("/metrics", _guarded(self.show_metrics), methods=["GET"]),
        ]
        for base in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            routes += [
                Route(base, _guarded(self.model), methods=["GET"]),
                Route(f"{base}/ready", _guarded(self.model_ready), methods=["GET"]),
                Route(f"{base}/infer", _guarded(self.infer), methods=["POST"]),
            ]
        return routes

    async def server(self, _request: Request) -> Response:
        return json_response(server_metadata(__version__, extensions=()))

    async def live(self, _request: Request) -> Response:
        return json_response({"live": True})

    async def show_metrics(self, _request: Request) -> Response:
        return Response(self.metrics.render(), headers={"content-type": CONTENT_TYPE})

    async def ready(self, _request: Request) -> Response:
        """Ready when every model that has a version to serve can answer; also when there is none yet."""

        def waiting() -> list[str]:
            return [name for name in self._models.names() if not self._answers(name)]

        late = await self._look(waiting)
        return json_response({"ready": not late, **({"waiting": late} if late else {})}, 503 if late else 200)

    async def model(self, request: Request) -> Response:
        predictor = await self._look(lambda: self._find(request))
        return json_response(model_metadata(predictor.served))

    async def model_ready(self, request: Request) -> Response:
        name = request.path_params["model"]
        try:
            await self._look(lambda: self._find(request))
        except Unavailable as error:
            return json_response({"name": name, "ready": False, "error": error.what}, 503)
        return json_response({"name": name, "ready": True})

    async def infer(self, request: Request) -> Response:
        started = time.perf_counter()
        model = version = ""
        rows = 0
        try:
            user = _caller(request)
            predictor = await self._look(lambda: self._find(request))
            model, version = predictor.served.model, str(predictor.served.version)
            with self._lane(model).place() as threads:
                body = await self._body(request)
                content, rows = await anyio.to_thread.run_sync(self._answer, predictor, body, user, limiter=threads)
            response = Response(content, media_type="application/json")
        except ClientDisconnect:
            logger.info("a caller of %s went away before its request was complete", request.url.path)
            response = Response(status_code=400)
        except _SlowBody as error:
            response = error_response(RequestError(str(error), where=request.url.path, hint="send it again"), 408)
        except Exception as error:
            response = error_response(error)
        self.metrics.observe(model, version, response.status_code, rows, time.perf_counter() - started)
        return response

    async def _body(self, request: Request) -> bytes:
        seconds = self._limits.body_seconds
        try:
            return await read_body(request, limit=self._limits.body_bytes, seconds=seconds)
        except TimeoutError as error:
            raise _SlowBody(f"the body did not arrive within {seconds:g} seconds") from error

    def _answer(self, predictor: Predictor, body: bytes, user: str) -> tuple[bytes, int]:
        request = parse_request(body, predictor.served, max_rows=self._limits.rows)
        predictions = predictor.predict(request.rows, request.as_of, user)
        return format_response(request, predictor.served, predictions), len(predictions)

    def _find(self, request: Request) -> Predictor:
        model = request.path_params["model"]
        names = list(self._models.names())
        if model not in names:
            raise NotFound(
                f"there is no model {model!r} to ask",
                where="/v2/models",
                hint=did_you_mean(model, names, noun="models"),
            )
        return self._models.get(model, request.path_params.get("version"))

    def _answers(self, name: str) -> bool:
        try:
            self._models.get(name)
        except (Unavailable, NotFound):
            return False
        return True

    def _lane(self, model: str) -> _Lane:
        if model not in self._lanes:
            self._lanes[model] = _Lane(model, self._limits)
        return self._lanes[model]

    async def _look(self, call: Callable[[], T]) -> T:
        """Run what may load a model in a thread of its own kind, so that nobody who looks waits for predictions."""
        if self._looking is None:
            self._looking = anyio.CapacityLimiter(LOOKING_THREADS)
        return await anyio.to_thread.run_sync(call, limiter=self._looking)


def inference_app(models: ModelDirectory, *, limits: Limits | None = None) -> Starlette:
    """The inference app; `models` knows which version answers for a model."""
    service = _Service(models, limits or Limits())
    return Starlette(routes=service.routes(), exception_handlers={HTTPException: _no_such_route})


def _guarded(handler: Handler) -> Handler:
    """`handler` with every error told in the protocol's form; nothing reaches the caller as a traceback."""

    async def guarded(request: Request) -> Response:
        try:
            return await handler(request)
        except Exception as error:
            return error_response(error)

    return guarded


async def _no_such_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    what = f"{request.method} {request.url.path} is not answered here"
    hint = "see the Open Inference Protocol: POST /v2/models/{model}/infer"
    return json_response({"error": f"{what}; {hint}", "what": what, "where": "", "hint": hint}, status, headers)


def _caller(request: Request) -> str:
    user = unquote(request.headers.get(USER_HEADER, ""), errors="replace").strip()
    if not user:
        raise NotAuthenticated(
            "the request says not who asks", where=f"header {USER_HEADER}", hint="ask through the platform's own port"
        )
    return user
