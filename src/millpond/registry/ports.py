"""What the other rooms need from a model store; and the nouns they speak in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class CodeState:
    """The project's code when a version was trained.

    Attributes:
        commit: Full git commit id, or None outside a repository or before the first commit.
        branch: Branch name, or None.
        dirty: Whether tracked files differed from the commit, or untracked ones lay beside them.
        diff: `git diff HEAD` with untracked files as additions; empty when not dirty; at most 1 MB.
    """

    commit: str | None
    branch: str | None
    dirty: bool
    diff: str


@dataclass(frozen=True)
class Lineage:
    """What a version was made of.

    Attributes:
        training_set: Name of the training-set table in the lake.
        training_set_snapshot: Its snapshot id.
        sources: Source table -> snapshot id, of every table the training set was computed from.
        definitions: What the model, its views and tables meant, as plain data (`Model.describe()` and so on).
        fingerprint: Of everything that the result depends on; an equal one means nothing needs to be trained.
        code: State of the project's code.
        packages: Installed distributions, name -> exact version.
        python: Such as "3.11.7".
        platform: Operating system and processor.
    """

    training_set: str
    training_set_snapshot: int
    sources: Mapping[str, int]
    definitions: Mapping[str, Any]
    fingerprint: str
    code: CodeState
    packages: Mapping[str, str]
    python: str
    platform: str


@dataclass(frozen=True)
class Candidate:
    """A trained model on its way to become a version.

    Attributes:
        model: The model's name.
        task: "classification", "regression", or "other" for a model with outputs of its own.
        estimator: The fitted scikit-learn pipeline: a frame of the raw model inputs in, `predict_proba` or
            `predict` out.
        inputs: Raw model inputs, in order: name -> "float64", "int64", "bool", "string".
        threshold: Probability from which the answer is yes; None for regression.
        metrics: Flat: "test.roc_auc", "validation.roc_auc", "baseline.test.roc_auc".
        params: Parameters of the estimator and of the walk.
        input_example: Up to 20 rows of the inputs.
        expected: The estimator's output on `input_example`: probability of yes, or the number; float64.
        spec: What serving needs beside the estimator, as plain JSON (inputs, views, request columns).
        files: Further artifacts, path inside the version -> content: the report, plots' data, the project's code.
        lineage: What it was made of.
        trained_by: Who trained it.
        tags: Further tags.
        source: A directory with an MLflow model that is taken over as it is; None writes `estimator`. Then
            `input_example` is what the model takes, and `expected` may be empty where its answers are no numbers.
    """

    model: str
    task: str
    estimator: Any
    inputs: Mapping[str, str]
    threshold: float | None
    metrics: Mapping[str, float]
    params: Mapping[str, Any]
    input_example: pd.DataFrame
    expected: Sequence[float]
    spec: Mapping[str, Any]
    files: Mapping[str, bytes]
    lineage: Lineage
    trained_by: str
    tags: Mapping[str, str] = field(default_factory=dict)
    source: Path | None = None


@dataclass(frozen=True)
class Version:
    """An immutable registered version of a model.

    Attributes:
        model: The model's name.
        number: 1, 2, 3 ...
        run_id: The MLflow run that made it.
        created_at: UTC.
        created_by: Who trained it.
        aliases: Such as ("champion",), sorted.
        metrics: As in `Candidate`.
        fingerprint: As in `Lineage`.
        location: Artifact URI of its files.
        tags: Further tags.
    """

    model: str
    number: int
    run_id: str
    created_at: datetime
    created_by: str
    aliases: tuple[str, ...]
    metrics: Mapping[str, float]
    fingerprint: str
    location: str
    tags: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.model}/{self.number}"


class ModelStore(Protocol):
    """Keeps versions. Safe across threads and processes."""

    def register(self, candidate: Candidate) -> Version:
        """Log a run, log the model in MLflow's format, load it in a clean process and compare its predictions of
        the input example with the expected ones, and only then register the version.

        Raises:
            VersionRefused: The clean process could not load it, or predicted something else. The run stays, marked
                as failed, with the reason; no version exists.
        """
        ...

    def models(self) -> list[str]: ...

    def versions(self, model: str) -> list[Version]:
        """Oldest first; empty for a model without versions."""
        ...

    def version(self, model: str, which: int | str) -> Version:
        """By number, or by alias.

        Raises:
            NotFound: There is none.
        """
        ...

    def set_alias(self, model: str, alias: str, number: int) -> None:
        """Move an alias; atomic."""
        ...

    def lineage(self, version: Version) -> Lineage: ...

    def spec(self, version: Version) -> dict[str, Any]:
        """The `spec` of the candidate."""
        ...

    def params(self, version: Version) -> dict[str, str]:
        """Parameters of the estimator and of the walk, as text."""
        ...

    def page(self, version: Version) -> str | None:
        """Path of the run's page below the server's address, or None where the run is gone."""
        ...

    def directory(self, version: Version) -> Path:
        """A local directory with the MLflow model (`MLmodel` in it) and, below `millpond/`, the version's files."""
        ...

    def report(self, version: Version) -> Path:
        """The version's HTML report."""
        ...
