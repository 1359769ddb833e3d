"""`/api/v1`: what the console shows, and does, as JSON.

Predictions are the serving workers': `PREDICT` stands beside these calls, and is passed on to them.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from millpond.access.ports import AuditEntry, AuditReader, Identity, Verdict
from millpond.core.errors import RequestError
from millpond.monitoring.report import SkewReport
from millpond.platform import read_models as models
from millpond.platform.events import Acknowledged
from millpond.platform.feature_models import CatalogLine
from millpond.platform.release_models import ReleaseMove, ReleaseRequest, ReleaseView
from millpond.server.processes import ChildStatus

PREFIX = "/api/v1"
#: Passed on as the path of the same name below `/v2`.
PREDICT = f"{PREFIX}/models/{{model}}/predict"

_MOVES: dict[ReleaseMove, str] = {
    "advance": "Take the release of a model to its next step",
    "rollback": "Take back the release of a model, or make the champion before champion again",
    "abort": "End the release of a model; the live version answers everything",
}


class PromoteBody(BaseModel):
    """The version to make champion, and why."""

    model_config = ConfigDict(extra="forbid")
    version: int = Field(ge=1)
    why: str = Field(min_length=1, max_length=2000)


class ReleaseBody(BaseModel):
    """A version, and how it takes over from the live one; what is not said is as its model declares.

    `steps` are shares of the requests. An empty `every` or `shadow` waits to be told; a `shadow` of "no" is none.
    """

    model_config = ConfigDict(extra="forbid")
    version: int = Field(ge=1)
    why: str = Field(min_length=1, max_length=2000)
    steps: list[float] | None = Field(default=None, max_length=20)
    every: str | None = Field(default=None, max_length=100)
    shadow: str | None = Field(default=None, max_length=100)
    requests: int | None = Field(default=None, ge=1)


class WhyBody(BaseModel):
    """Why it is done."""

    model_config = ConfigDict(extra="forbid")
    why: str = Field(min_length=1, max_length=2000)


class PushBody(BaseModel):
    """Events of one table: column -> value, instants as ISO 8601 text with an offset."""

    model_config = ConfigDict(extra="forbid")
    events: list[dict[str, Any]] = Field(min_length=1, max_length=100_000)


class SkewBody(BaseModel):
    """What to measure. `version` is the champion where it is not said; `all` looks at all predictions, not a sample.

    `since` and `until` bound when predictions were answered.
    """

    model_config = ConfigDict(extra="forbid")
    version: int | None = Field(default=None, ge=1)
    sample: int = Field(default=10_000, ge=1)
    all: bool = False
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class WhoAmI:
    """Who the request is known as."""

    name: str
    kind: str
    by: Literal["token", "session"]


@dataclass(frozen=True)
class Status:
    """How the parts of the platform are."""

    version: str
    serving: Literal["ready", "starting"]
    mlflow: Literal["ready", "starting", "failed"]
    children: tuple[ChildStatus, ...]


@dataclass(frozen=True)
class Call:
    """One route, as it is served and as it is described.

    Attributes:
        method: "GET" or "POST".
        path: Below the prefix; parameters as "{name}" or "{number:int}".
        summary: One line for the description.
        returns: The type that is answered.
        run: Blocks; takes the identity, the path's and query's parameters, and the body.
        body: What a POST carries.
        query: Query parameters: name -> type, all optional.
    """

    method: Literal["GET", "POST"]
    path: str
    summary: str
    returns: Any
    run: Callable[[Ask], Any]
    body: type[BaseModel] | None = None
    query: Mapping[str, type] | None = None


@dataclass(frozen=True)
class Ask:
    """What a call is given."""

    request: Request
    identity: Identity
    path: Mapping[str, Any]
    query: Mapping[str, Any]
    body: Any


def calls(
    reader: models.Reader, operations: models.Operations, audit: AuditReader, status: Callable[[], Status]
) -> tuple[Call, ...]:
    """Everything the API does."""

    def promote(ask: Ask) -> models.Promotion:
        return operations.promote(ask.path["model"], ask.body.version, ask.body.why, ask.identity.name)

    def start_release(ask: Ask) -> ReleaseView:
        body = ask.body
        wanted = ReleaseRequest(
            version=body.version,
            why=body.why,
            steps=None if body.steps is None else tuple(body.steps),
            every=body.every,
            shadow=body.shadow,
            requests=body.requests,
        )
        return operations.start_release(ask.path["model"], wanted, ask.identity.name)

    def moving(move: ReleaseMove) -> Callable[[Ask], ReleaseView]:
        return lambda ask: operations.move_release(ask.path["model"], move, ask.body.why, ask.identity.name)

    def push(ask: Ask) -> Acknowledged:
        return operations.push(ask.path["table"], ask.body.events, ask.identity.name)

    def measure_skew(ask: Ask) -> SkewReport:
        body = ask.body
        wanted = models.SkewRequest(
            version=body.version,
            sample=None if body.all else body.sample,
            since=_aware(body.since, "since"),
            until=_aware(body.until, "until"),
        )
        return operations.measure_skew(ask.path["model"], wanted, ask.identity.name)

    def whoami(ask: Ask) -> WhoAmI:
        return WhoAmI(ask.identity.name, ask.identity.kind, ask.request.state.credential)

    return (
        Call("GET", "/whoami", "Who the request is known as", WhoAmI, whoami),
        Call("GET", "/status", "How the parts of the platform are", Status, lambda _: status()),
        Call("GET", "/overview", "The project at a glance", models.Overview, lambda _: reader.overview()),
        Call("GET", "/tables/{table}", "A table", models.TablePage, lambda ask: reader.table(ask.path["table"])),
        Call(
            "POST",
            "/tables/{table}/events",
            "Push events: durable, and in the next lookup, when it answers",
            Acknowledged,
            push,
            body=PushBody,
        ),
        Call(
            "GET",
            "/features",
            "The features whose line has every word of `search`; tag:WORD and owner:WORD look there alone",
            Sequence[CatalogLine],
            lambda ask: reader.features(ask.query.get("search", "")),
            query={"search": str},
        ),
        Call(
            "GET",
            "/features/{view}",
            "A feature view",
            models.FeatureViewPage,
            lambda ask: reader.feature_view(ask.path["view"]),
        ),
        Call("GET", "/models/{model}", "A model", models.ModelPage, lambda ask: reader.model(ask.path["model"])),
        Call(
            "GET",
            "/models/{model}/versions/{number:int}",
            "A version of a model",
            models.VersionPage,
            lambda ask: reader.version(ask.path["model"], ask.path["number"]),
        ),
        Call(
            "POST",
            "/models/{model}/promote",
            "Make a version the champion",
            models.Promotion,
            promote,
            body=PromoteBody,
        ),
        Call(
            "GET",
            "/models/{model}/releases",
            "The releases of a model, newest first, with what its rules said",
            Sequence[ReleaseView],
            lambda ask: reader.releases(ask.path["model"]),
        ),
        Call(
            "POST",
            "/models/{model}/releases",
            "Begin to release a version: in the shadow of the live one, or for a share of the requests",
            ReleaseView,
            start_release,
            body=ReleaseBody,
        ),
        *(
            Call("POST", f"/models/{{model}}/releases/{move}", said, ReleaseView, moving(move), body=WhyBody)
            for move, said in _MOVES.items()
        ),
        Call(
            "GET",
            "/models/{model}/skew",
            "The newest measurement of skew, of a version or of any",
            SkewReport,
            lambda ask: reader.skew(ask.path["model"], ask.query.get("version")),
            query={"version": int},
        ),
        Call(
            "POST",
            "/models/{model}/skew",
            "Recompute served feature values from the lake, and compare",
            SkewReport,
            measure_skew,
            body=SkewBody,
        ),
        Call(
            "GET",
            "/predictions",
            "The newest predictions, newest first",
            Sequence[models.PredictionLine],
            lambda ask: reader.predictions(ask.query.get("model"), ask.query.get("limit", 50)),
            query={"model": str, "limit": int},
        ),
        Call(
            "GET",
            "/predictions/{id}",
            "Everything behind one prediction",
            models.Receipt,
            lambda ask: reader.receipt(ask.path["id"]),
        ),
        Call(
            "GET",
            "/audit",
            "The newest entries of the audit log, newest first",
            Sequence[AuditEntry],
            lambda ask: audit.entries(ask.query.get("limit", 100), ask.query.get("before")),
            query={"limit": int, "before": int},
        ),
        Call("GET", "/audit/verify", "Whether the audit log is as it was written", Verdict, lambda _: audit.verify()),
    )


def routes(served: Sequence[Call]) -> list[Route]:
    """The calls as routes; a call runs in a thread."""
    return [Route(PREFIX + call.path, _endpoint(call), methods=[call.method]) for call in served]


def _endpoint(call: Call) -> Callable[[Request], Awaitable[Response]]:
    answer: TypeAdapter[Any] = TypeAdapter(call.returns)

    async def endpoint(request: Request) -> Response:
        body = _parse(call.body, await request.body()) if call.body else None
        ask = Ask(request, request.state.identity, request.path_params, _query(call, request), body)

        def work() -> bytes:
            return answer.dump_json(call.run(ask), fallback=str)

        return Response(await run_in_threadpool(work), media_type="application/json")

    return endpoint


def _query(call: Call, request: Request) -> dict[str, Any]:
    known, values = call.query or {}, {}
    for name, text in request.query_params.items():
        if name not in known:
            hint = "allowed: " + ", ".join(known) if known else "it takes none"
            raise RequestError(f"There is no query parameter {name!r}.", where=request.url.path, hint=hint)
        try:
            values[name] = known[name](text)
        except ValueError as error:
            raise RequestError(f"{name} is {text!r}, not a whole number.", where=request.url.path) from error
        if known[name] is int and not 1 <= values[name] <= 10_000_000:
            raise RequestError(f"{name} is {text}, not between 1 and 10,000,000.", where=request.url.path)
    if "limit" in values:
        values["limit"] = min(values["limit"], 1000)
    return values


def _parse(kind: type[BaseModel], body: bytes) -> BaseModel:
    try:
        document = json.loads(body)
    except ValueError as error:
        raise RequestError(f"The body is not JSON: {error}.", hint="send a JSON object") from error
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        fields = ", ".join(kind.model_fields)
        raise RequestError(f"{first['msg']}.", where=where or "body", hint=f"fields: {fields}") from error


def _aware(value: datetime | None, name: str) -> datetime | None:
    if value is not None and value.tzinfo is None:
        raise RequestError(f"{name} names no time zone.", where=name, hint='add "Z" or an offset such as "+01:00"')
    return value.astimezone(UTC) if value is not None else None
