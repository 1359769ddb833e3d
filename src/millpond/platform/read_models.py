"""What the faces show, and the few things they do: plain data, and the narrow ports through which it comes.

Command line, server, console and notebooks share these. Every value is plain Python: text, numbers, booleans, aware
instants in UTC, tuples and mappings of those. Ports are safe across threads and may block; an answer is one consistent
look at what was committed when it was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from millpond.platform.events import Acknowledged

from millpond.monitoring.report import SkewReport
from millpond.platform.feature_models import (
    CatalogLine,
    FeatureLine,
    Freshness,
    LineageStep,
    StatisticsBasis,
    ViewUse,
    ViewVersion,
)
from millpond.platform.release_models import ReleaseMove, ReleaseRequest, ReleaseView
from millpond.platform.tiers import Tier

CheckState = Literal["none", "passed", "warning", "failed"]
DeploymentState = Literal["live", "starting", "failed"]
Kind = Literal["table", "view", "model", "deployment"]

# --- tables -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CheckView:
    """The latest result of one check on a table.

    Attributes:
        name: Such as "not_null(origin)".
        severity: "block" or "warn".
        passed: Whether it holds.
        violations: Rows that break it; 0 or 1 for a check on the table as a whole.
        rows: Rows looked at.
        examples: Keys of up to 5 offending rows, as text.
        checked_at: UTC.
    """

    name: str
    severity: str
    passed: bool
    violations: int
    rows: int
    examples: tuple[str, ...]
    checked_at: datetime


@dataclass(frozen=True)
class TableSummary:
    """A table in one line.

    Attributes:
        name: The table's name.
        description: As declared.
        rows: Rows at the current snapshot; None before the first.
        snapshot_id: The current snapshot; None before the first.
        changed_at: When it was committed; UTC.
        checks: "none" where none is declared or none has run, "failed" where a blocking one failed, "warning" where
            another did.
        inputs: Tables that it is derived from; empty for an ingested one.
    """

    name: str
    description: str
    rows: int | None
    snapshot_id: int | None
    changed_at: datetime | None
    checks: CheckState
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class ColumnView:
    """A column of a table.

    Attributes:
        name: Its present name.
        type: As users name types: "int", "float", "string", "instant" ...
        role: "key", "time", "known", or "".
    """

    name: str
    type: str
    role: str = ""


@dataclass(frozen=True)
class SnapshotView:
    """One committed state of a table; `note` says what the writer did, such as "ingested flights.csv"."""

    id: int
    committed_at: datetime
    operation: str
    rows: int
    note: str = ""


@dataclass(frozen=True)
class TablePage:
    """All about a table.

    Attributes:
        summary: As in the overview.
        columns: At the current snapshot, in order.
        snapshots: Newest first, at most 50.
        checks: Latest results, failed ones first.
        sample: Up to 20 rows of the current snapshot, values in the order of `columns`.
        read_by: Feature views, models and tables that read it.
    """

    summary: TableSummary
    columns: tuple[ColumnView, ...]
    snapshots: tuple[SnapshotView, ...]
    checks: tuple[CheckView, ...]
    sample: tuple[tuple[Any, ...], ...]
    read_by: tuple[Reference, ...] = ()


# --- features ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reference:
    """Something that has a page."""

    kind: Kind
    name: str


@dataclass(frozen=True)
class FeatureViewSummary:
    """A feature view in one line; `every` is its refresh interval, None when live; `models` are those that use it."""

    name: str
    description: str
    entity: str
    entity_keys: tuple[str, ...]
    source: str
    every: str | None
    features: tuple[str, ...]
    models: tuple[str, ...]


@dataclass(frozen=True)
class FeatureViewPage:
    """All about a feature view.

    Attributes:
        summary: As in the overview.
        features: In order of declaration.
        time: The column that says when a row happened.
        known: The column that says when it became known.
        owner: As declared.
        tags: As declared.
        freshness: How new its values can be.
        basis: What the features' statistics were computed over; None where no training set holds the view.
        lineage: The tables that it is computed from, inputs first; the last is its source.
        versions: The meanings that it has had, newest first.
        uses: Model versions that were trained with it, newest first, and the champions of all models.
        pending: How what is declared differs from what was applied last, in words.
    """

    summary: FeatureViewSummary
    features: tuple[FeatureLine, ...]
    time: str | None
    known: str | None
    owner: str = ""
    tags: tuple[str, ...] = ()
    freshness: Freshness = field(default_factory=Freshness)
    basis: StatisticsBasis | None = None
    lineage: tuple[LineageStep, ...] = ()
    versions: tuple[ViewVersion, ...] = ()
    uses: tuple[ViewUse, ...] = ()
    pending: tuple[str, ...] = ()


# --- models and versions ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GateView:
    """What a gate said of a version; `text` such as "roc_auc >= 0.7", `found` the value that was judged."""

    text: str
    passed: bool
    found: str = ""


@dataclass(frozen=True)
class VersionSummary:
    """A version in one line.

    Attributes:
        model: The model's name.
        number: 1, 2, 3 ...
        created_at: UTC.
        created_by: Who trained it.
        aliases: Such as ("champion",).
        metrics: Of the test part, by plain name: "roc_auc".
        gates: What they said when it was trained.
        training_seconds: Wall time of training; None where not recorded.
    """

    model: str
    number: int
    created_at: datetime
    created_by: str
    aliases: tuple[str, ...]
    metrics: Mapping[str, float]
    gates: tuple[GateView, ...]
    training_seconds: float | None

    @property
    def gates_passed(self) -> bool:
        return all(gate.passed for gate in self.gates)


@dataclass(frozen=True)
class ModelSummary:
    """A model in one line.

    Attributes:
        name: The model's name.
        description: As declared.
        task: "classification" or "regression".
        label: What is predicted, as declared; "" where the project does not declare the model.
        examples: Table of the examples; likewise.
        views: Feature views among the inputs.
        metric: The metric it is chiefly judged by, such as "roc_auc"; likewise.
        higher_is_better: Of that metric.
        versions: How many there are.
        champion: The version that serves, or None.
        latest: The newest version, or None.
    """

    name: str
    description: str
    task: str
    label: str
    examples: str
    views: tuple[str, ...]
    metric: str
    higher_is_better: bool
    versions: int
    champion: VersionSummary | None
    latest: VersionSummary | None


@dataclass(frozen=True)
class RequestField:
    """A column that a prediction request carries.

    Attributes:
        name: The column's name.
        type: "bool", "int64", "float64", "string" or "instant".
        required: Whether it must be given.
        role: "key", "input" or "request".
        example: A value that occurs in the examples, of the field's type; None where there is none.
        choices: Frequent values of a string column, for suggestion; any other is allowed too.
        description: As declared; possibly empty.
    """

    name: str
    type: str
    required: bool
    role: str
    example: Any = None
    choices: tuple[str, ...] = ()
    description: str = ""


@dataclass(frozen=True)
class ModelPage:
    """All about a model; `request` is empty while no version serves, `versions` and `releases` are newest first."""

    summary: ModelSummary
    versions: tuple[VersionSummary, ...]
    request: tuple[RequestField, ...]
    deployment: DeploymentSummary | None = None
    releases: tuple[ReleaseView, ...] = ()


@dataclass(frozen=True)
class MetricLine:
    """A metric of a version on one part of the data, beside those it is compared with.

    Attributes:
        part: "test", "validation" or "train".
        name: Such as "roc_auc".
        value: In the metric's own unit.
        baseline: The trivial predictor's, on the same rows; None where not computed.
        champion: That of the champion at the time of training, on the same rows; None where there was none.
        higher_is_better: Of the metric.
    """

    part: str
    name: str
    value: float
    baseline: float | None
    champion: float | None
    higher_is_better: bool


@dataclass(frozen=True)
class SnapshotRef:
    """A snapshot that something was computed from; `rows` None where it is not recorded."""

    table: str
    snapshot_id: int
    committed_at: datetime | None = None
    rows: int | None = None


@dataclass(frozen=True)
class VersionLineage:
    """What a version was made of.

    Attributes:
        training_set: The training set's snapshot; None of a version that was registered, not trained.
        sources: Snapshots that the training set was computed from.
        code_commit: Full git commit id, or None.
        code_dirty: Whether there were uncommitted changes (kept with the version).
        code_branch: Branch name, or None.
        python: Such as "3.11.7".
        packages: Number of installed distributions that are recorded.
        fingerprint: Of everything that the result depends on.
        run_id: The MLflow run.
    """

    training_set: SnapshotRef | None
    sources: tuple[SnapshotRef, ...]
    code_commit: str | None
    code_dirty: bool
    code_branch: str | None
    python: str
    packages: int
    fingerprint: str
    run_id: str


@dataclass(frozen=True)
class VersionPage:
    """All about a version.

    Attributes:
        summary: As in lists.
        metrics: The test part first.
        params: Parameters of the estimator and of the walk, as text.
        inputs: Raw model inputs, name -> type.
        lineage: What it was made of.
        mlflow_path: Page of its run below the server's address, such as "/mlflow/#/experiments/1/runs/ab12".
        has_report: Whether `ModelReader.report` has one.
        tier: Which runtime serves it, and why.
        log: What the prediction log keeps of its answers, in words.
        log_since: When that was taken over; UTC; None where it holds since the version was made.
    """

    summary: VersionSummary
    metrics: tuple[MetricLine, ...]
    params: Mapping[str, str]
    inputs: Mapping[str, str]
    lineage: VersionLineage
    mlflow_path: str | None
    has_report: bool
    tier: Tier
    log: str = "all requests"
    log_since: datetime | None = None


# --- deployments and predictions --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DeploymentSummary:
    """Which version answers for a model.

    Attributes:
        model: The model's name.
        version: The version that answers.
        state: "live" when the serving worker has loaded it.
        since: When it was promoted; UTC; None where not recorded.
        by: Who promoted it; None where not recorded.
        predictions: Number of logged predictions of the model; None where not counted.
        path: Where it answers below the server's address: "/v2/models/late_arrival/infer".
    """

    model: str
    version: int
    state: DeploymentState
    since: datetime | None
    by: str | None
    predictions: int | None
    path: str


@dataclass(frozen=True)
class PredictionLine:
    """A prediction in one line; `answer` is None for regression, `outputs` as of `Receipt`."""

    id: str
    model: str
    version: int
    predicted_at: datetime
    requested_by: str
    answer: bool | None
    output: float
    outputs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FeatureValue:
    """The value of one model input behind a prediction.

    Attributes:
        name: Such as "airport_traffic__mean_delay_1h", or a request column.
        value: As the model saw it; None for null.
        visible_since: When it became what it was: the newest instant at which a row behind it became visible; UTC;
            None where it came with the request, or no row was visible.
        rows: Number of source rows behind it; None where it came with the request.
        examples: Keys of up to 5 of those rows, as text.
        table: The table they came from, or None.
        snapshot_id: The snapshot of it, or None.
        recomputed: Whether the value came out equal when it was computed again from that snapshot (floating values
            to a relative 1e-9); None where it came with the request, where the snapshot is gone, or where no
            input was logged to compare with, as of a batch.
    """

    name: str
    value: Any
    visible_since: datetime | None = None
    rows: int | None = None
    examples: tuple[str, ...] = ()
    table: str | None = None
    snapshot_id: int | None = None
    recomputed: bool | None = None


@dataclass(frozen=True)
class Receipt:
    """Everything behind one prediction.

    Attributes:
        id: The prediction's id.
        model: The model's name.
        version: The version that answered.
        task: "classification" or "regression"; "other" of a model that was registered.
        output: Probability of yes, or the number; the first number of `outputs`, NaN where none is one.
        answer: Yes or no at `threshold`; None for regression.
        threshold: Probability from which the answer is yes; None for regression.
        predicted_at: When it was answered; UTC.
        as_of: The instant at which features were looked up; UTC.
        requested_by: The identity that asked.
        latency_ms: Milliseconds in the serving worker.
        request: What the request carried.
        inputs: The model's inputs with where they came from, in the model's order.
        snapshots: The snapshots that features were read from.
        code_commit: Commit of the project's code that the version was trained with, or None.
        code_dirty: Whether there were uncommitted changes (kept with the version).
        run_id: The MLflow run that trained the version.
        trained_by: Who trained the version.
        trained_at: UTC.
        redacted: Columns of the request and inputs that the log does not keep.
        outputs: All outputs by name, of a model that was registered; empty where `output` is all.
    """

    id: str
    model: str
    version: int
    task: str
    output: float
    answer: bool | None
    threshold: float | None
    predicted_at: datetime
    as_of: datetime
    requested_by: str
    latency_ms: float
    request: Mapping[str, Any]
    inputs: tuple[FeatureValue, ...]
    snapshots: tuple[SnapshotRef, ...]
    code_commit: str | None
    code_dirty: bool
    run_id: str
    trained_by: str
    trained_at: datetime
    redacted: tuple[str, ...] = ()
    outputs: Mapping[str, Any] = field(default_factory=dict)


# --- the whole --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Edge:
    """What flows into what: table -> table or view or model, view -> model, model -> deployment."""

    source: Reference
    target: Reference


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
class Answer:
    """One answered row; `receipt` is the page of its receipt, `variant` is "live", or "canary" during a release.

    `outputs` has all outputs by name, of a model that was registered; `output` is then the first of them.
    """

    prediction_id: str
    model: str
    version: int
    output: Any
    answer: bool | None
    threshold: float | None
    as_of: datetime
    variant: str = "live"
    warnings: tuple[str, ...] = field(default=())
    outputs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def receipt(self) -> str:
        return f"/predictions/{self.prediction_id}"


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
