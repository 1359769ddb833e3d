"""The page of a model's skew: the newest measurement, and a button that measures."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from millpond.console import forms
from millpond.console.rendering import page
from millpond.core.errors import MillpondError, NotFound
from millpond.platform.read_models import Operations, Reader, SkewRequest


@dataclass(frozen=True)
class SkewPages:
    """Shows and measures skew; `?version=N` chooses a version, else the newest measurement of any is shown."""

    reader: Reader
    operations: Operations

    def routes(self) -> list[Route]:
        return [
            Route("/models/{model}/skew", self.show, methods=["GET"]),
            Route("/models/{model}/skew", self.measure, methods=["POST"]),
        ]

    def show(self, request: Request) -> Response:
        return self._page(request, _number(request.query_params.get("version", "")))

    async def measure(self, request: Request) -> Response:
        """Measure a version (default: the champion), a sample or all, and show what was found."""
        sent = dict(parse_qsl((await request.body()).decode("utf-8", "replace")))
        return await run_in_threadpool(self._measure, request, sent)

    def _measure(self, request: Request, sent: dict[str, str]) -> Response:
        model, version = request.path_params["model"], _number(sent.get("version", ""))
        wanted = SkewRequest(version=version, sample=None) if sent.get("all") else SkewRequest(version=version)
        try:
            found = self.operations.measure_skew(model, wanted, request.state.identity.name)
        except MillpondError as error:
            return self._page(request, version, forms.in_words(error), 422)
        return RedirectResponse(f"/models/{quote(model)}/skew?version={found.version}", status_code=303)

    def _page(self, request: Request, version: int | None, problem: str = "", status: int = 200) -> Response:
        model = self.reader.model(request.path_params["model"])
        try:
            report = self.reader.skew(model.summary.name, version)
        except NotFound:
            report = None
        return page(request, "skew.html", status, model=model, report=report, version=version, problem=problem)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
