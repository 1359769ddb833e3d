"""The pages of the console, as routes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Route

from millpond.access.ports import AuditReader
from millpond.console import forms
from millpond.console.charts import metric_line
from millpond.console.releases import ReleasePages
from millpond.console.rendering import page
from millpond.console.skew import SkewPages
from millpond.core.errors import MillpondError, NotFound, RequestError, Unavailable
from millpond.platform.read_models import Answer, ModelPage, Operations, Reader

#: A report may run its own scripts, in an origin of its own: it reaches neither the network nor our pages.
_REPORT_POLICY = (
    "sandbox allow-scripts allow-popups; default-src 'none'; img-src data: blob:; font-src data:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; frame-ancestors 'self'"
)
_AUDIT_ENTRIES = 100


@dataclass(frozen=True)
class Console:
    """The pages. Whoever puts a guard before them sets `request.state.identity`.

    Attributes:
        reader: What is shown.
        operations: What is done.
        audit: The audit log.
        mlflow: State of the MLflow application: "starting", "ready" or "failed".
    """

    reader: Reader
    operations: Operations
    audit: AuditReader
    mlflow: Callable[[], str]

    def routes(self) -> list[Route]:
        return [
            Route("/", self.overview, methods=["GET"]),
            Route("/tables/{table}", self.table, methods=["GET"]),
            Route("/features", self.features, methods=["GET"]),
            Route("/features/{view}", self.feature_view, methods=["GET"]),
            Route("/models/{model}", self.model, methods=["GET"]),
            Route("/models/{model}/predict", self.predict, methods=["POST"]),
            Route("/models/{model}/versions/{number:int}", self.version, methods=["GET"]),
            Route("/models/{model}/versions/{number:int}/report", self.report, methods=["GET"]),
            Route("/models/{model}/versions/{number:int}/promote", self.promote, methods=["POST"]),
            *SkewPages(self.reader, self.operations).routes(),
            *ReleasePages(self.reader, self.operations).routes(),
            Route("/predictions", self.predictions, methods=["GET"]),
            Route("/predictions/{id}", self.receipt, methods=["GET"]),
            Route("/audit", self.audit_log, methods=["GET"]),
        ]

    def overview(self, request: Request) -> Response:
        """The project at a glance; asked again by the page itself while a deployment is starting."""
        overview = self.reader.overview()
        template = "pieces/walk.html" if "hx-request" in request.headers else "overview.html"
        return page(request, template, overview=overview, mlflow=self.mlflow())

    def table(self, request: Request) -> Response:
        return page(request, "table.html", table=self.reader.table(request.path_params["table"]))

    def features(self, request: Request) -> Response:
        """The feature catalog; the list alone where htmx asked, as when somebody types into the search."""
        search = request.query_params.get("search", "").strip()
        template = "pieces/features.html" if "hx-request" in request.headers else "features.html"
        return page(request, template, features=self.reader.features(search), search=search)

    def feature_view(self, request: Request) -> Response:
        return page(request, "feature_view.html", view=self.reader.feature_view(request.path_params["view"]))

    def model(self, request: Request) -> Response:
        model = self.reader.model(request.path_params["model"])
        return self._model_page(request, model, forms.blank(model.request))

    async def predict(self, request: Request) -> Response:
        """The prediction form, answered; alone where htmx asked, else on the model's page."""
        sent = dict(parse_qsl((await request.body()).decode("utf-8", "replace"), keep_blank_values=True))
        return await run_in_threadpool(self._predict, request, sent)

    def version(self, request: Request) -> Response:
        return page(request, "version.html", version=self._version(request), why="", problem="")

    def report(self, request: Request) -> Response:
        file = self.reader.report(request.path_params["model"], request.path_params["number"])
        return FileResponse(file, media_type="text/html", headers={"content-security-policy": _REPORT_POLICY})

    async def promote(self, request: Request) -> Response:
        sent = dict(parse_qsl((await request.body()).decode("utf-8", "replace")))
        return await run_in_threadpool(self._promote, request, sent.get("why", "").strip())

    def predictions(self, request: Request) -> Response:
        model = request.query_params.get("model") or None
        lines = self.reader.predictions(model, 100)
        models = [summary.name for summary in self.reader.overview().models]
        return page(request, "predictions.html", predictions=lines, model=model, models=models)

    def receipt(self, request: Request) -> Response:
        return page(request, "receipt.html", receipt=self.reader.receipt(request.path_params["id"]))

    def audit_log(self, request: Request) -> Response:
        text = request.query_params.get("before", "")
        before = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
        entries = self.audit.entries(_AUDIT_ENTRIES, before)
        older = entries[-1].sequence if entries and entries[-1].sequence > 1 else None
        return page(request, "audit.html", entries=entries, older=older, verdict=self.audit.verify())

    def _model_page(
        self,
        request: Request,
        model: ModelPage,
        form: forms.Filled,
        answer: Answer | None = None,
        status: int = 200,
    ) -> Response:
        template = "pieces/predict.html" if "hx-request" in request.headers else "model.html"
        chart = metric_line(model.versions, model.summary.metric)
        return page(request, template, status, model=model, form=form, answer=answer, chart=chart, problem="")

    def _predict(self, request: Request, sent: dict[str, str]) -> Response:
        model = self.reader.model(request.path_params["model"])
        form = forms.fill(model.request, sent)
        if not form.sound:
            return self._model_page(request, model, form, status=422)
        try:
            name = request.state.identity.name
            answers: Sequence[Answer] = self.operations.predict(model.summary.name, [form.row], form.as_of, name)
        except (RequestError, NotFound, Unavailable) as error:
            status = 503 if isinstance(error, Unavailable) else 422
            return self._model_page(request, model, forms.refused(form, error), status=status)
        return self._model_page(request, model, form, answers[0])

    def _promote(self, request: Request, why: str) -> Response:
        model, number = request.path_params["model"], request.path_params["number"]
        try:
            if not why:
                raise RequestError("Say why: it goes into the audit log.")
            self.operations.promote(model, number, why, request.state.identity.name)
        except MillpondError as error:
            if isinstance(error, NotFound):
                raise
            said = forms.in_words(error)
            return page(request, "version.html", 422, version=self._version(request), why=why, problem=said)
        return RedirectResponse(f"/models/{model}/versions/{number}", status_code=303)

    def _version(self, request: Request) -> Any:
        return self.reader.version(request.path_params["model"], request.path_params["number"])
