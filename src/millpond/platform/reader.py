"""Implements the ports of `read_models` for one project; safe across threads."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from millpond.core.errors import Unavailable
from millpond.definitions.project import Definitions
from millpond.monitoring.report import SkewReport
from millpond.platform import catalog, lake_pages, logged, model_pages, receipts, release_pages, skew
from millpond.platform.feature_models import CatalogLine
from millpond.platform.platform import Platform
from millpond.platform.read_models import (
    DeploymentState,
    FeatureViewPage,
    ModelPage,
    Overview,
    PredictionLine,
    Receipt,
    TablePage,
    VersionPage,
)
from millpond.platform.release_models import ReleaseView
from millpond.platform.workers import ask_worker
from millpond.settings.project import Settings


class PlatformReader:
    """Reads a project, with a `Platform` of its own for each thread.

    The definitions are those of the time when the reader was made: a running server shows what it was started with.
    """

    def __init__(self, settings: Settings, definitions: Definitions, workers: Sequence[Path]) -> None:
        self._settings = settings
        self._definitions = definitions
        self._workers = workers
        self._local = threading.local()

    @property
    def _platform(self) -> Platform:
        found: Platform | None = getattr(self._local, "platform", None)
        if found is None:
            found = self._local.platform = Platform(self._settings)
            found.definitions = self._definitions
        return found

    def _state(self, model: str, version: int) -> DeploymentState:
        """How the serving worker says that a version is; "starting" where it does not answer within a second."""
        try:
            answer = ask_worker(
                self._workers, "GET", f"/v2/models/{model}/versions/{version}/ready", timeout=1.0, patience=0.0
            )
        except Unavailable:
            return "starting"
        return "live" if answer.is_success else "failed"

    def overview(self) -> Overview:
        return lake_pages.overview(self._platform, self._state)

    def table(self, name: str) -> TablePage:
        return lake_pages.table_page(self._platform, name)

    def features(self, search: str = "") -> Sequence[CatalogLine]:
        return catalog.features(self._platform, search)

    def feature_view(self, name: str) -> FeatureViewPage:
        return catalog.feature_view(self._platform, name)

    def model(self, name: str) -> ModelPage:
        return model_pages.model_page(self._platform, name, self._state)

    def version(self, model: str, number: int) -> VersionPage:
        return model_pages.version_page(self._platform, model, number)

    def report(self, model: str, number: int) -> Path:
        return model_pages.report(self._platform, model, number)

    def receipt(self, prediction_id: str) -> Receipt:
        return receipts.trace(self._platform, prediction_id)

    def predictions(self, model: str | None = None, limit: int = 50) -> Sequence[PredictionLine]:
        return logged.newest(self._platform, model, limit)

    def skew(self, model: str, version: int | None = None) -> SkewReport:
        return skew.newest_skew(self._platform, model, version)

    def releases(self, model: str) -> Sequence[ReleaseView]:
        return release_pages.releases(self._platform, model)
