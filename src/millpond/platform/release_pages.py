"""Releases as the faces show them, and as they ask for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from millpond.access.ports import ReleaseRecord
from millpond.core.errors import RequestError
from millpond.definitions.release import Release, release_from
from millpond.platform.platform import Platform
from millpond.platform.release import declared_release
from millpond.platform.release_models import ReleaseRequest, ReleaseView, RuleFinding, VariantCounts
from millpond.serving.traffic.statistics import Tally, merged


def releases(platform: Platform, model: str, limit: int = 20) -> tuple[ReleaseView, ...]:
    """The releases of a model, newest first.

    Raises:
        NotFound: There is no such model.
    """
    if model not in platform.store.models():
        platform.definitions.model(model)
    return tuple(view(each) for each in platform.access.releases.of(model, limit))


def view(record: ReleaseRecord) -> ReleaseView:
    """A release as it is shown."""
    plan = release_from(record.plan)
    at_once = record.kind != "release"
    return ReleaseView(
        id=record.id,
        model=record.model,
        version=record.version,
        against=record.against,
        kind=record.kind,
        state=record.state,
        active=record.active,
        step=record.step,
        share=record.share,
        shares=() if at_once else plan.shares,
        every=plan.every,
        shadow=plan.shadow if isinstance(plan.shadow, str) else None,
        shadows=plan.shadows and not at_once,
        requests=plan.requests,
        rules=() if at_once else tuple(str(each) for each in plan.rules),
        who=record.who,
        why=record.why,
        started_at=record.started_at,
        step_started_at=record.step_started_at,
        ended_at=record.ended_at,
        findings=tuple(RuleFinding(each["rule"], each["standing"], each["said"]) for each in record.findings),
        variants=tuple(_variants(record)),
    )


def plan_from(platform: Platform, model: str, wanted: ReleaseRequest) -> Release | None:
    """How a version is to take over; None where nothing is asked for and nothing is declared.

    Raises:
        RequestError: What is asked for cannot be.
    """
    declared = declared_release(platform, model)
    if (wanted.steps, wanted.every, wanted.shadow, wanted.requests) == (None, None, None, None):
        return declared
    plan = declared or Release()
    if wanted.steps is not None:
        plan = replace(plan, steps=wanted.steps)
    elif declared is None and wanted.shadow is not None:
        plan = replace(plan, steps=(), every=None)
    if wanted.every is not None:
        plan = replace(plan, every=wanted.every or None)
    if wanted.shadow is not None:
        plan = replace(plan, shadow=None if wanted.shadow == "no" else wanted.shadow or True)
    if wanted.requests is not None:
        plan = replace(plan, requests=wanted.requests)
    _require_sound(platform, model, plan)
    return plan


def _require_sound(platform: Platform, model: str, plan: Release) -> None:
    task = platform.definitions.models[model].task.kind if model in platform.definitions.models else "other"
    # Rules come from the definitions, which were validated; the defaults hold for every task.
    for problem in replace(plan, rules=()).problems(f'Model "{model}"', task):
        argument = problem.field.partition(": ")[2]
        raise RequestError(f"The release's {argument}: {problem.found}", where=argument, hint=problem.hint)


def _variants(record: ReleaseRecord) -> Sequence[VariantCounts]:
    parts = list(record.counted.values())
    names = sorted({name for part in parts for name in part}, key=lambda name: (not name.endswith("/live"), name))
    return [_counts(int(name.partition("/")[0]), name.partition("/")[2], parts) for name in names]


def _counts(version: int, variant: str, parts: Sequence[Mapping[str, Any]]) -> VariantCounts:
    tally: Tally = merged(parts, version, variant)
    median, most = tally.latency.quantile(0.5), tally.latency.quantile(0.99)
    return VariantCounts(
        version=version,
        variant=variant,
        requests=tally.requests,
        rows=tally.rows,
        failed=tally.failed,
        refused=tally.refused,
        errors=", ".join(f"{number:,} {kind}" for kind, number in sorted(tally.errors.items())),
        p50_ms=None if median is None else median * 1000,
        p99_ms=None if most is None else most * 1000,
        compared=tally.compared.count,
        mean_difference=tally.compared.mean,
        greatest_difference=tally.greatest if tally.compared.count else None,
        flips=tally.flips,
    )
