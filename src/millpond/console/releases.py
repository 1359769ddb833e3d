"""The moves of a release, from the page of its model."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from millpond.console import forms
from millpond.console.charts import metric_line
from millpond.console.rendering import page
from millpond.core.errors import MillpondError, NotFound, RequestError
from millpond.platform.read_models import Operations, Reader
from millpond.platform.release_models import ReleaseMove, ReleaseRequest

_MOVES: dict[str, ReleaseMove] = {"advance": "advance", "rollback": "rollback", "abort": "abort"}


@dataclass(frozen=True)
class ReleasePages:
    """Shows releases as they are now, begins them and moves them; each with a reason."""

    reader: Reader
    operations: Operations

    def routes(self) -> list[Route]:
        return [
            Route("/models/{model}/release", self.show, methods=["GET"]),
            Route("/models/{model}/release", self.move, methods=["POST"]),
            Route("/models/{model}/versions/{number:int}/release", self.begin, methods=["POST"]),
        ]

    def show(self, request: Request) -> Response:
        """The section of the model's page alone, which asks for it again while a release is under way."""
        if "hx-request" not in request.headers:
            return RedirectResponse(f"/models/{quote(request.path_params['model'])}", status_code=303)
        return page(request, "pieces/release.html", model=self.reader.model(request.path_params["model"]), problem="")

    async def move(self, request: Request) -> Response:
        return await run_in_threadpool(self._move, request, await _sent(request))

    async def begin(self, request: Request) -> Response:
        return await run_in_threadpool(self._begin, request, await _sent(request))

    def _move(self, request: Request, sent: dict[str, str]) -> Response:
        model = request.path_params["model"]
        try:
            move = _MOVES.get(sent.get("move", ""))
            if move is None:
                raise RequestError("Choose what to do with the release.")
            self.operations.move_release(model, move, _reason(sent), request.state.identity.name)
        except MillpondError as error:
            return self._refused(request, error)
        return RedirectResponse(f"/models/{quote(model)}#release", status_code=303)

    def _begin(self, request: Request, sent: dict[str, str]) -> Response:
        model, number = request.path_params["model"], request.path_params["number"]
        try:
            wanted = ReleaseRequest(version=number, why=_reason(sent), shadow="" if sent.get("shadow") else None)
            self.operations.start_release(model, wanted, request.state.identity.name)
        except MillpondError as error:
            if isinstance(error, NotFound):
                raise
            version, why = self.reader.version(model, number), sent.get("why", "").strip()
            return page(request, "version.html", 422, version=version, why=why, problem=forms.in_words(error))
        return RedirectResponse(f"/models/{quote(model)}#release", status_code=303)

    def _refused(self, request: Request, error: MillpondError) -> Response:
        model = self.reader.model(request.path_params["model"])
        values = {"form": forms.blank(model.request), "answer": None, "problem": forms.in_words(error)}
        chart = metric_line(model.versions, model.summary.metric)
        return page(request, "model.html", 422, model=model, chart=chart, **values)


async def _sent(request: Request) -> dict[str, str]:
    return dict(parse_qsl((await request.body()).decode("utf-8", "replace")))


def _reason(sent: dict[str, str]) -> str:
    why = sent.get("why", "").strip()
    if not why:
        raise RequestError("Say why: it goes into the audit log.")
    return why
