"""The narrow ports through which all of this comes, and through which the few things are done.

They are safe across threads and may block; an answer is one consistent look at what was committed when it was asked
for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from millpond.monitoring.report import SkewReport
from millpond.platform.feature_models import CatalogLine
from millpond.platform.read_models.features import FeatureViewPage, FeatureViewSummary
from millpond.platform.read_models.models import DeploymentSummary, ModelPage, ModelSummary, VersionPage
from millpond.platform.read_models.predictions import Answer, PredictionLine, Receipt
from millpond.platform.read_models.references import Edge
from millpond.platform.read_models.tables import TablePage, TableSummary
from millpond.platform.release_models import ReleaseMove, ReleaseRequest, ReleaseView

if TYPE_CHECKING:
    from millpond.platform.events import Acknowledged


@dataclass(frozen=True)
class Overview:
    """The project at a glance, in the order of the walk. Millpond's own tables are left out."""

    project: str
    tables: tuple[TableSummary, ...]
    views: tuple[FeatureViewSummary, ...]
    models: tuple[ModelSummary, ...]
    deployments: tuple[DeploymentSummary, ...]
    edges: tuple[Edge, ...]


@dataclass(frozen=True)
class Promotion:
    """A promotion that was done; `previous` is the version that served before, or None."""

    model: str
    version: int
    previous: int | None
    by: str
    why: str


@dataclass(frozen=True)
class SkewRequest:
    """What is to be measured; see `platform.skew.measure_skew`."""

    version: int | None = None
    sample: int | None = 10_000
    since: datetime | None = None
    until: datetime | None = None


class LakeReader(Protocol):
    """Tables and feature views. Names that do not exist raise NotFound, with a close match as hint."""

    def overview(self) -> Overview: ...

    def table(self, name: str) -> TablePage: ...

    def features(self, search: str = "") -> Sequence[CatalogLine]:
        """The features whose line has every word of `search`; "tag:WORD" and "owner:WORD" look there alone."""
        ...

    def feature_view(self, name: str) -> FeatureViewPage: ...


class ModelReader(Protocol):
    """Models and versions. What does not exist raises NotFound."""

    def model(self, name: str) -> ModelPage: ...

    def version(self, model: str, number: int) -> VersionPage: ...

    def report(self, model: str, number: int) -> Path:
        """The version's report: one self-contained HTML file."""
        ...


class PredictionReader(Protocol):
    """Predictions, durable ones that have not yet reached the lake included."""

    def receipt(self, prediction_id: str) -> Receipt:
        """Raises NotFound."""
        ...

    def predictions(self, model: str | None = None, limit: int = 50) -> Sequence[PredictionLine]:
        """The newest, newest first."""
        ...


class SkewReader(Protocol):
    """Measured skew."""

    def skew(self, model: str, version: int | None = None) -> SkewReport:
        """The newest measurement of a model, or of one of its versions; raises NotFound where there is none."""
        ...


class ReleaseReader(Protocol):
    """Releases."""

    def releases(self, model: str) -> Sequence[ReleaseView]:
        """The releases of a model, newest first; raises NotFound where there is no such model."""
        ...


class Reader(LakeReader, ModelReader, PredictionReader, SkewReader, ReleaseReader, Protocol):
    """Everything that is shown."""


class Operations(Protocol):
    """What is done through the faces. Who did it goes into the audit log, or with the prediction."""

    def predict(
        self, model: str, rows: Sequence[Mapping[str, Any]], as_of: datetime | None, user: str
    ) -> Sequence[Answer]:
        """Answer rows through the serving worker, one answer a row, in order.

        Args:
            model: Its name; the champion answers, or for a share of the requests the version that is being released.
            rows: Each maps request column -> plain JSON value; an instant is ISO 8601 text or an aware datetime.
            as_of: Instant at which features are looked up where a row does not say; None means now.
            user: Who asks.

        Raises:
            RequestError: A column is unknown, missing, or of a wrong type; `where` names it as "row 0, origin".
            NotFound: No such model, or no version of it serves.
            Unavailable: The serving worker does not answer.
        """
        ...

    def promote(self, model: str, version: int, why: str, user: str) -> Promotion:
        """Make a version the champion; audited.

        Raises:
            NotFound: No such model or version.
            RequestError: `why` is blank.
        """
        ...

    def start_release(self, model: str, wanted: ReleaseRequest, user: str) -> ReleaseView:
        """Begin to release a version; audited. See `platform.release.start`, with its errors.

        Raises:
            RequestError: `why` is blank, or the version cannot be released so.
        """
        ...

    def move_release(self, model: str, move: ReleaseMove, why: str, user: str) -> ReleaseView:
        """Advance, take back or abort the release of a model; audited. See `platform.release`, with its errors.

        "rollback" without a release under way makes the champion before the present one champion again.

        Raises:
            RequestError: `why` is blank.
        """
        ...

    def push(self, table: str, rows: Sequence[Mapping[str, Any]], user: str) -> Acknowledged:
        """Push events into a table; see `millpond.platform.events.push`, with its errors."""
        ...

    def measure_skew(self, model: str, wanted: SkewRequest, user: str) -> SkewReport:
        """Recompute served feature values from the lake, compare, and keep the measurement.

        Raises:
            NotFound: No such model or version, or no prediction of it is logged in the window.
            RequestError: The sample or the window is empty, or the model takes no features.
        """
        ...
