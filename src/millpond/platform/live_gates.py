"""Gates on live traffic: judged on the prediction log, before a version may be promoted."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from millpond.core.errors import VersionRefused
from millpond.core.time import Duration
from millpond.definitions.gates import LiveGate, NoSkew
from millpond.definitions.models import Model
from millpond.monitoring.report import FeatureSkew, SkewReport
from millpond.platform import skew, versions
from millpond.platform.platform import Platform
from millpond.registry.ports import Version

if TYPE_CHECKING:
    from millpond.training.gates import GateResult


def judge_champion(platform: Platform, model: Model) -> dict[LiveGate, GateResult]:
    """Judge a model's gates on live traffic by what its champion was served, as far as the model uses the same.

    Measures skew where what is measured does not cover the champion's newest traffic and the current tables.
    """
    gates = [gate for gate in model.gates if isinstance(gate, LiveGate)]
    if not gates:
        return {}
    champion = versions.champion(platform, model.name)
    if champion is None:
        return {gate: _passed(gate, "no version serves yet, so there is no live traffic") for gate in gates}
    used = skew.meanings(model)
    return {gate: _judge(platform, gate, champion, used, f"the champion (version {champion.number})") for gate in gates}


def judge_own(platform: Platform, version: Version) -> tuple[GateResult, ...]:
    """Judge a version's gates on live traffic by what it was itself served; () where it has served nothing."""
    number, _ = skew.traffic(platform, version)
    if not number:
        return ()
    model = versions.load(platform, version).declared
    if model is None:
        return ()
    used = skew.meanings(model)
    gates = [gate for gate in model.gates if isinstance(gate, LiveGate)]
    return tuple(_judge(platform, gate, version, used, f"version {version.number}") for gate in gates)


def require(version: Version, results: Collection[GateResult]) -> None:
    """Stop a promotion that a gate on live traffic forbids.

    Raises:
        VersionRefused: A gate failed.
    """
    failed = [each for each in results if not each.passed]
    if failed:
        raise VersionRefused(
            f"{version} may not answer: " + "; ".join(each.reason for each in failed),
            where=", ".join(each.gate for each in failed),
            hint=f"see what differs: millpond skew {version.model} --version {version.number}; "
            "promote it nevertheless: --force",
        )


def _judge(platform: Platform, gate: NoSkew, version: Version, used: frozenset[str], who: str) -> GateResult:
    number, newest = skew.traffic(platform, version)
    if not number or newest is None:
        return _passed(gate, f"{who} has answered no prediction yet, so there is no live traffic")
    served = versions.load(platform, version).declared
    if served is None or not used & skew.meanings(served):
        return _passed(gate, f"no feature means the same as one of {who}, whose traffic says nothing of them")
    since = newest - Duration.parse(gate.over).delta
    report = skew.current_skew(platform, version, since)
    return _verdict(gate, [each for each in report.features if each.meaning in used], report, who)


def _verdict(gate: NoSkew, features: list[FeatureSkew], report: SkewReport, who: str) -> GateResult:
    from millpond.training.gates import GateResult

    worst = max(features, key=lambda each: (not _holds(gate, each), each.share))
    failing = [each for each in features if not _holds(gate, each)]
    compared = sum(each.compared for each in features)
    what = f"of {len(features)} features of {who} in {report.looked_at:,} predictions"
    if not failing:
        differ = sum(each.different + each.missing for each in features)
        few = "" if worst.compared >= gate.min_compared else f" (fewer than {gate.min_compared:,} of each)"
        reason = f"{differ:,} of {compared:,} values {what} differ{few}"
        return GateResult(str(gate), True, worst.share, gate.max_share, reason)
    named = ", ".join(
        f"{each.feature} ({each.different + each.missing:,} of {each.compared + each.missing:,})"
        for each in failing[:3]
    )
    more = f" and {len(failing) - 3} more" if len(failing) > 3 else ""
    reason = f"values {what} differ from what the lake gives for the same instants: {named}{more}"
    return GateResult(str(gate), False, worst.share, gate.max_share, reason)


def _counted(feature: FeatureSkew) -> str:
    return f"{feature.feature} ({feature.different + feature.missing:,} of {feature.compared + feature.missing:,})"


def _holds(gate: NoSkew, feature: FeatureSkew) -> bool:
    if feature.compared < gate.min_compared:
        return not (feature.different or feature.missing)
    return feature.share <= gate.max_share


def _passed(gate: NoSkew, reason: str) -> GateResult:
    from millpond.training.gates import GateResult

    return GateResult(str(gate), True, None, gate.max_share, reason)
