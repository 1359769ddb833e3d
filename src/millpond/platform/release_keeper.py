"""Keeps releases going: reads what serving processes count, judges it, and moves the releases on or back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from millpond.access.ports import ReleaseRecord
from millpond.core.errors import Conflict, MillpondError
from millpond.core.time import now
from millpond.definitions.release import LiveMetric, Release, release_from
from millpond.platform import release
from millpond.platform.deployments import publish
from millpond.platform.live_metric import live_metrics
from millpond.platform.platform import Platform
from millpond.platform.versions import champion
from millpond.serving.traffic.deployment import CANARY, LIVE, SHADOW
from millpond.serving.traffic.judging import Evidence, Measured, Verdict, judge
from millpond.serving.traffic.ladder import TRIED
from millpond.serving.traffic.statistics import merged, tallies_of

#: Who is in the audit log for moves that follow from rules.
KEEPER = "release keeper"

#: Seconds between two looks at labels, and between two looks at whether what is published is what is deployed.
METRICS_EVERY, PUBLISH_EVERY = 30.0, 5.0

#: Processes whose counts are kept apart; older ones that have ended are added up.
_MOST_PROCESSES = 16
_ENDED = "ended"

_log = logging.getLogger("millpond.serving")

Snapshots = Sequence[Mapping[str, Any]]


class ReleaseKeeper:
    """Moves releases by their rules. Of a project there should be one; two do no harm.

    All that it must remember is in the platform's database: after a kill it goes on with the step as it was, with what
    was counted.

    Args:
        platform: The project; used by the thread that calls `tick`.
        fetch: Gives the snapshots (`Statistics.snapshot`) of all serving processes that answer.
    """

    def __init__(self, platform: Platform, fetch: Callable[[], Snapshots]) -> None:
        self._platform = platform
        self._platform.user = KEEPER
        self._fetch = fetch
        self._published = float("-inf")
        self._metrics: dict[str, tuple[float, dict[int, dict[str, Measured]]]] = {}

    def tick(self) -> list[tuple[ReleaseRecord, Verdict]]:
        """Look once at every release; what was judged. To be called every half second or so."""
        under_way = self._platform.access.releases.all_active()
        if any(each.state not in TRIED for each in under_way):
            release.resume(self._platform)
        elif time.monotonic() - self._published > PUBLISH_EVERY:
            publish(self._platform)
            self._published = time.monotonic()
        tried = [each for each in under_way if each.state in TRIED]
        if not tried:
            return []
        steps = {f"{each.id}.{each.step}" for each in tried}
        self._metrics = {step: found for step, found in self._metrics.items() if step in steps}
        snapshots = self._fetch()
        return [(each, self._look(each, snapshots)) for each in tried]

    def _look(self, record: ReleaseRecord, snapshots: Snapshots) -> Verdict:
        plan = release_from(record.plan)
        counted = _counted(record, snapshots)
        verdict = judge(plan, self._evidence(record, plan, counted, snapshots))
        findings = [each._asdict() for each in verdict.findings]
        if counted != record.counted or findings != list(record.findings):
            self._platform.access.releases.note(record, counted, findings)
        if verdict.action != "hold":
            self._act(record, verdict)
        return verdict

    def _evidence(
        self, record: ReleaseRecord, plan: Release, counted: Mapping[str, Any], snapshots: Snapshots
    ) -> Evidence:
        shadowing = record.state == "shadowing"
        live = champion(self._platform, record.model)
        against = live.number if live else record.against
        parts = list(counted.values())
        return Evidence(
            tried=merged(parts, record.version, SHADOW if shadowing else CANARY),
            live=merged(parts, against or 0, LIVE),
            seconds=(now() - record.step_started_at).total_seconds(),
            shadowing=shadowing,
            metrics=self._live_metrics(record, plan, against),
            unloadable=_unloadable(record, snapshots),
        )

    def _live_metrics(
        self, record: ReleaseRecord, plan: Release, against: int | None
    ) -> dict[str, tuple[Measured, Measured]]:
        wanted = {each.metric for each in plan.rules if isinstance(each, LiveMetric)}
        if not wanted:
            return {}
        step = f"{record.id}.{record.step}"
        measured_at, found = self._metrics.get(step, (float("-inf"), {}))
        if time.monotonic() - measured_at > METRICS_EVERY:
            numbers = [record.version, *([against] if against is not None else [])]
            try:
                found = live_metrics(self._platform, record.model, numbers, record.step_started_at)
            except MillpondError as error:
                _log.warning("live metrics of %s wait: %s", record.model, error)
            self._metrics[step] = (time.monotonic(), found)
        nothing = Measured(None, 0)
        tried, live = found.get(record.version, {}), found.get(against or 0, {})
        return {name: (tried.get(name, nothing), live.get(name, nothing)) for name in wanted}

    def _act(self, record: ReleaseRecord, verdict: Verdict) -> None:
        move = release.rollback if verdict.action == "rollback" else release.advance
        said = [each._asdict() for each in verdict.findings]
        why = "; ".join(verdict.reasons)
        try:
            moved = move(self._platform, record.model, why=why, seen=record, details={"findings": said})
        except Conflict:  # somebody was first
            return
        _log.warning("version %s of %s: %s (%s)", record.version, record.model, moved.state, why)


def _counted(record: ReleaseRecord, snapshots: Snapshots) -> dict[str, Any]:
    """What was counted in a release's present step, by process: the newest of each, which replaces what it said before.

    A process that has ended counts with what it said last.
    """
    epoch = f"{record.id}.{record.step}"
    found = dict(record.counted)
    alive = set()
    for snapshot in snapshots:
        alive.add(snapshot["boot"])
        tallies = tallies_of(snapshot, record.model, epoch)
        if tallies:
            found[snapshot["boot"]] = tallies
    ended = [boot for boot in found if boot not in alive and boot != _ENDED]
    if len(found) <= _MOST_PROCESSES or not ended:
        return found
    parts = [found.pop(boot) for boot in ended]
    parts.append(found.pop(_ENDED, {}))
    names = sorted({name for part in parts for name in part})
    found[_ENDED] = {
        name: merged(parts, int(name.partition("/")[0]), name.partition("/")[2]).to_json() for name in names
    }
    return found


def _unloadable(record: ReleaseRecord, snapshots: Snapshots) -> str:
    return next(
        (
            str(each["reason"])
            for snapshot in snapshots
            for each in snapshot.get("failed", ())
            if (each["model"], each["version"]) == (record.model, record.version)
        ),
        "",
    )
