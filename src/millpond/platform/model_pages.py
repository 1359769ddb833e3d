"""Pages about models, versions and deployments."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from millpond.core.errors import NotFound
from millpond.definitions.expressions import is_expression, readable
from millpond.definitions.gates import METRICS
from millpond.definitions.models import Model
from millpond.platform import logged
from millpond.platform.log_policies import policies, told
from millpond.platform.platform import Platform
from millpond.platform.read_models import (
    DeploymentState,
    DeploymentSummary,
    GateView,
    MetricLine,
    ModelPage,
    ModelSummary,
    RequestField,
    SnapshotRef,
    VersionLineage,
    VersionPage,
    VersionSummary,
)
from millpond.platform.release_pages import releases
from millpond.platform.tiers import tier_of
from millpond.platform.versions import CHAMPION
from millpond.registry.ports import Lineage, Version

#: Says how a version is in the serving worker.
StateOf = Callable[[str, int], DeploymentState]

_CHIEF_METRIC = {"classification": "roc_auc", "regression": "rmse"}
_PARTS = ("test", "validation", "train")
_MOST_CHOICES = 30
_RELEASES = 10


def summary(platform: Platform, model: Model) -> ModelSummary:
    """A declared model in one line."""
    versions = platform.store.versions(model.name)
    champion = next((each for each in versions if CHAMPION in each.aliases), None)
    label, metric = model.task.label, _CHIEF_METRIC[model.task.kind]
    return ModelSummary(
        name=model.name,
        description=model.description,
        task=model.task.kind,
        label=readable(label) if is_expression(label) else str(label),
        examples=model.examples.name,
        views=tuple(view.name for view in model.views),
        metric=metric,
        higher_is_better=METRICS[model.task.kind][metric],
        versions=len(versions),
        champion=_line(platform, champion) if champion else None,
        latest=_line(platform, versions[-1]) if versions else None,
    )


def registered_summary(platform: Platform, name: str) -> ModelSummary:
    """A model that the project does not declare, in one line."""
    versions = platform.store.versions(name)
    champion = next((each for each in versions if CHAMPION in each.aliases), None)
    return ModelSummary(
        name=name,
        description="Not declared in this project.",
        task=platform.store.spec(versions[-1])["task"],
        label="",
        examples="",
        views=(),
        metric="",
        higher_is_better=True,
        versions=len(versions),
        champion=_line(platform, champion) if champion else None,
        latest=_line(platform, versions[-1]),
    )


def undeclared(platform: Platform) -> list[str]:
    """Models that have versions, and that the project does not declare; sorted."""
    return sorted(set(platform.store.models()) - set(platform.definitions.models))


def model_page(platform: Platform, name: str, state: StateOf) -> ModelPage:
    """All about a model."""
    versions = platform.store.versions(name)
    model = None if versions and name not in platform.definitions.models else platform.definitions.model(name)
    champion = next((each for each in versions if CHAMPION in each.aliases), None)
    deployed = next((each for each in deployments(platform, state) if each.model == name), None)
    request = _request(platform, champion, model) if champion else ()
    lines = tuple(_line(platform, each) for each in reversed(versions))
    head = registered_summary(platform, name) if model is None else summary(platform, model)
    return ModelPage(head, lines, request, deployed, releases(platform, name, _RELEASES))


def version_page(platform: Platform, model: str, number: int) -> VersionPage:
    """All about a version."""
    version = platform.store.version(model, number)
    lineage, spec = platform.store.lineage(version), platform.store.spec(version)
    kept = policies(platform, version)
    return VersionPage(
        summary=_line(platform, version),
        metrics=tuple(_metrics(version, spec["task"])),
        params=platform.store.params(version),
        inputs=spec["inputs"],
        lineage=_lineage(platform, version, lineage),
        mlflow_path=platform.store.page(version),
        has_report=_has_report(platform, version),
        tier=tier_of(platform, version),
        log=told(kept.present),
        log_since=kept.since,
    )


def report(platform: Platform, model: str, number: int) -> Path:
    """A version's report; raises NotFound."""
    return platform.store.report(platform.store.version(model, number))


def _has_report(platform: Platform, version: Version) -> bool:
    try:
        return platform.store.report(version).is_file()
    except NotFound:
        return False


def deployments(platform: Platform, state: StateOf) -> list[DeploymentSummary]:
    """Which version answers for each model that has a champion; `state` asks the serving worker."""
    numbers = logged.counts(platform)
    entries = reversed(platform.access.audit.entries(10_000))
    moves = {each.object: each for each in entries if each.action in ("promote", "rollback")}
    found = []
    for name in platform.store.models():
        champion = next((each for each in platform.store.versions(name) if CHAMPION in each.aliases), None)
        if champion is not None:
            move = moves.get(str(champion))
            found.append(
                DeploymentSummary(
                    model=name,
                    version=champion.number,
                    state=state(name, champion.number),
                    since=move.at if move else None,
                    by=move.who if move else None,
                    predictions=numbers.get(name, 0),
                    path=f"/v2/models/{name}/infer",
                )
            )
    return found


def _line(platform: Platform, version: Version) -> VersionSummary:
    tested = {name[5:]: value for name, value in version.metrics.items() if name.startswith("test.")}
    seconds = version.tags.get("training_seconds")
    return VersionSummary(
        model=version.model,
        number=version.number,
        created_at=version.created_at,
        created_by=version.created_by,
        aliases=version.aliases,
        metrics=tested,
        gates=tuple(_gates(platform.store.directory(version))),
        training_seconds=float(seconds) if seconds else None,
    )


def _gates(directory: Path) -> list[GateView]:
    path = directory / "millpond" / "gates.json"
    if not path.is_file():
        return []
    judged = json.loads(path.read_text(encoding="utf-8"))
    return [GateView(each["gate"], each["passed"], each["reason"]) for each in judged]


def _metrics(version: Version, task: str) -> list[MetricLine]:
    better = METRICS.get(task, {})
    flat = version.metrics
    return [
        MetricLine(
            part=part,
            name=name,
            value=flat[f"{part}.{name}"],
            baseline=flat.get(f"baseline.{part}.{name}"),
            champion=flat.get(f"champion.{part}.{name}"),
            higher_is_better=better[name],
        )
        for part in _PARTS
        for name in better
        if f"{part}.{name}" in flat
    ]


def _lineage(platform: Platform, version: Version, lineage: Lineage) -> VersionLineage:
    return VersionLineage(
        training_set=_reference(platform, lineage.training_set, lineage.training_set_snapshot)
        if lineage.training_set
        else None,
        sources=tuple(_reference(platform, table, number) for table, number in lineage.sources.items()),
        code_commit=lineage.code.commit,
        code_dirty=lineage.code.dirty,
        code_branch=lineage.code.branch,
        python=lineage.python,
        packages=len(lineage.packages),
        fingerprint=lineage.fingerprint,
        run_id=version.run_id,
    )


def _reference(platform: Platform, table: str, number: int) -> SnapshotRef:
    try:
        snapshot = platform.lake.snapshot(table, number)
    except NotFound:
        return SnapshotRef(table, number)
    return SnapshotRef(table, number, snapshot.committed_at, snapshot.rows)


def _request(platform: Platform, champion: Version, model: Model | None) -> tuple[RequestField, ...]:
    """The champion's request columns, each with a value of a recent example and the frequent texts."""
    columns: Sequence[Mapping[str, Any]] = platform.store.spec(champion)["columns"]
    names = [column["name"] for column in columns]
    examples, choices = _values(platform, model, names) if model is not None else ({}, {})
    return tuple(
        RequestField(
            name=column["name"],
            type=column["type"],
            required=column["required"],
            role=column["role"],
            example=examples.get(column["name"]),
            choices=choices.get(column["name"], ()) if column["type"] == "string" else (),
        )
        for column in columns
    )


def _values(
    platform: Platform, model: Model, names: Sequence[str]
) -> tuple[dict[str, Any], dict[str, tuple[str, ...]]]:
    if not platform.lake.exists(model.examples.name) or not names:
        return {}, {}
    snapshot = platform.lake.snapshot(model.examples.name)
    there = [column for column in snapshot.columns if column.name in names]
    order = f'ORDER BY "{model.time}" DESC NULLS LAST' if model.time else ""
    present = " AND ".join(f'"{column.name}" IS NOT NULL' for column in there)
    with platform.engine() as engine:
        relation = engine.scan(snapshot)
        listed = ", ".join(f'"{column.name}"' for column in there)
        newest = engine.rows(f"SELECT {listed} FROM {relation} WHERE {present} {order} LIMIT 1")
        choices = {
            column.name: tuple(
                row[0]
                for row in engine.rows(
                    f'SELECT "{column.name}" FROM {relation} WHERE "{column.name}" IS NOT NULL '
                    f"GROUP BY ALL ORDER BY count(*) DESC, 1 LIMIT {_MOST_CHOICES}"
                )
            )
            for column in there
            if column.type == "string"
        }
    examples = dict(zip((column.name for column in there), newest[0], strict=True)) if newest else {}
    return {name: _utc(value) for name, value in examples.items()}, choices


def _utc(value: Any) -> Any:
    return value.astimezone(UTC) if isinstance(value, datetime) and value.tzinfo else value
