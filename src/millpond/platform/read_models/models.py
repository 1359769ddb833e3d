"""What is shown of models, their versions, and which of them answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from millpond.platform.read_models.tables import SnapshotRef
from millpond.platform.release_models import ReleaseView
from millpond.platform.tiers import Tier

DeploymentState = Literal["live", "starting", "failed"]


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
