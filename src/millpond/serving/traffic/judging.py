"""What follows from what was counted in a step: whether a release goes on, waits, or is taken back. Pure.

A share is judged by the score interval of Wilson (1927): a rule is broken when even the lower bound of the share, at
three standard errors, is over what is allowed. So one early error proves little, and a version that always fails is
found out within some requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Literal, NamedTuple

from millpond.definitions.release import (
    QUANTILES,
    LiveMetric,
    MaxDifference,
    MaxErrors,
    MaxLatency,
    Release,
    Rule,
)
from millpond.serving.traffic.statistics import Tally

#: Requests from which on errors are judged, answers from which on latency is, rows from which on differences are.
LEAST_REQUESTS, LEAST_ANSWERS, LEAST_ROWS = 10, 100, 50

#: Failures that break a rule at least, unless it allows none.
LEAST_FAILURES = 3

#: A ratio of latencies says nothing within this many seconds.
SLACK_SECONDS = 0.001

_STANDARD_ERRORS = 3.0

Action = Literal["advance", "hold", "rollback"]
Standing = Literal["holds", "waits", "broken"]


@dataclass(frozen=True)
class Measured:
    """A metric of a version over its answers whose label is known; `value` None where it is not defined on them."""

    value: float | None
    labels: int


class Finding(NamedTuple):
    """What a rule says: whether it "holds", "waits" for evidence or is "broken", and why, in words."""

    rule: str
    standing: Standing
    said: str


class Verdict(NamedTuple):
    """What follows, and the findings that it follows from."""

    action: Action
    findings: tuple[Finding, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """What decided, in words: the broken rules, else what is waited for, else all."""
        for standing in ("broken", "waits"):
            found = tuple(f"{each.rule}: {each.said}" for each in self.findings if each.standing == standing)
            if found:
                return found
        return tuple(f"{each.rule}: {each.said}" for each in self.findings)


class Evidence(NamedTuple):
    """What there is to judge a step by.

    Attributes:
        tried: What was counted of the version that is tried, in this step.
        live: What was counted of the live version, in this step.
        seconds: Since the step began.
        shadowing: Whether the version only shadows.
        metrics: Metric -> that of the version and of the live one, over the answers of this step.
        unloadable: Why a serving process cannot load the version; "" where all can.
    """

    tried: Tally
    live: Tally
    seconds: float
    shadowing: bool
    metrics: dict[str, tuple[Measured, Measured]]
    unloadable: str = ""


def judge(release: Release, evidence: Evidence) -> Verdict:
    """What follows for a release from what was counted in its present step.

    "rollback" as soon as a rule is broken; "advance" when the step's time is over, enough was answered and every rule
    holds; else "hold". A release without a time only advances when it is told to.
    """
    findings = [_finding(rule, evidence) for rule in release.rules]
    if evidence.unloadable:
        findings.insert(0, Finding("it can be loaded", "broken", evidence.unloadable))
    if any(each.standing == "broken" for each in findings):
        return Verdict("rollback", tuple(findings))
    findings += [_time(release, evidence), _requests(release, evidence)]
    held = any(each.standing == "waits" for each in findings)
    return Verdict("hold" if held else "advance", tuple(findings))


def least_share(part: int, whole: int, errors: float = _STANDARD_ERRORS) -> float:
    """The lower bound of a share of which `part` of `whole` were seen, at so many standard errors."""
    if not part:
        return 0.0
    share, square = part / whole, errors * errors
    spread = errors * sqrt(share * (1 - share) / whole + square / (4 * whole * whole))
    return max(0.0, (share + square / (2 * whole) - spread) / (1 + square / whole))


def _finding(rule: Rule, evidence: Evidence) -> Finding:
    if isinstance(rule, MaxErrors):
        return _errors(rule, evidence)
    if isinstance(rule, MaxLatency):
        return _latency(rule, evidence)
    if isinstance(rule, MaxDifference):
        return _difference(rule, evidence)
    return _metric(rule, evidence)


def _errors(rule: MaxErrors, evidence: Evidence) -> Finding:
    tried = evidence.tried
    said = f"{tried.failed:,} of {tried.judged:,} requests failed"
    if tried.errors:
        said += f" ({', '.join(f'{number:,} {kind}' for kind, number in sorted(tried.errors.items()))})"
    if _fails(rule, tried):
        if _fails(rule, evidence.live):
            return Finding(str(rule), "waits", f"{said}, but the live version fails as well")
        return Finding(str(rule), "broken", said)
    return Finding(str(rule), "holds" if tried.judged >= LEAST_REQUESTS else "waits", said)


def _fails(rule: MaxErrors, tally: Tally) -> bool:
    if tally.judged < LEAST_REQUESTS or tally.failed < (LEAST_FAILURES if rule.share else 1):
        return False
    return least_share(tally.failed, tally.judged) > rule.share


def _latency(rule: MaxLatency, evidence: Evidence) -> Finding:
    tried, live, share = evidence.tried.latency, evidence.live.latency, QUANTILES[rule.quantile]
    if tried.count < LEAST_ANSWERS:
        return Finding(str(rule), "waits", f"{tried.count:,} of {LEAST_ANSWERS:,} answers")
    found = f"{rule.quantile} is {_ms(tried.quantile(share))} over {tried.count:,} answers"
    if rule.ms is not None:
        bound = rule.ms / 1000
    else:
        assert rule.ratio is not None
        if live.count < LEAST_ANSWERS:
            what = f"the live version gave {live.count:,} of {LEAST_ANSWERS:,} answers to compare with"
            return Finding(str(rule), "waits", f"{found}; {what}")
        other = live.quantile(share) or 0.0
        bound = max(rule.ratio * other, other + SLACK_SECONDS)
        found += f", the live version's {_ms(other)}"
    slow = tried.above(bound)
    broken = slow >= LEAST_FAILURES and least_share(slow, tried.count) > 1 - share
    return Finding(str(rule), "broken" if broken else "holds", found)


def _difference(rule: MaxDifference, evidence: Evidence) -> Finding:
    rows = evidence.tried.compared
    beyond = rows.above(rule.by)
    said = f"{beyond:,} of {rows.count:,} rows compared are further apart"
    if beyond and rows.count >= LEAST_ROWS and (least_share(beyond, rows.count) > rule.share):
        return Finding(str(rule), "broken", said)
    return Finding(str(rule), "holds" if rows.count >= LEAST_ROWS else "waits", said)


def _metric(rule: LiveMetric, evidence: Evidence) -> Finding:
    nothing = Measured(None, 0)
    tried, live = evidence.metrics.get(rule.metric, (nothing, nothing))
    if tried.labels < rule.labels or tried.value is None:
        return Finding(str(rule), "waits", f"{tried.labels:,} of {rule.labels:,} labels are known")
    said = f"{tried.value:.4f} over {tried.labels:,} labels"
    if rule.not_worse_by is None:
        low = rule.at_least is not None and tried.value < rule.at_least
        high = rule.at_most is not None and tried.value > rule.at_most
        return Finding(str(rule), "broken" if low or high else "holds", said)
    if live.labels < rule.labels or live.value is None:
        return Finding(str(rule), "waits", f"{said}; {live.labels:,} of {rule.labels:,} of the live version's are")
    worse = live.value - tried.value if rule.higher_is_better else tried.value - live.value
    said += f", the live version's {live.value:.4f} over {live.labels:,}"
    return Finding(str(rule), "broken" if worse > rule.not_worse_by else "holds", said)


def _time(release: Release, evidence: Evidence) -> Finding:
    least = release.seconds(shadowing=evidence.shadowing)
    if least is None:
        return Finding("it is told to go on", "waits", "with `millpond deploy --advance`, or on the page of the model")
    standing: Standing = "holds" if evidence.seconds >= least else "waits"
    return Finding(
        f"{release.shadow if evidence.shadowing else release.every} in this step", standing, _passed(evidence)
    )


def _passed(evidence: Evidence) -> str:
    return f"{evidence.seconds:.0f} s have passed"


def _requests(release: Release, evidence: Evidence) -> Finding:
    standing: Standing = "holds" if evidence.tried.judged >= release.requests else "waits"
    return Finding(f"at least {release.requests:,} requests", standing, f"{evidence.tried.judged:,} so far")


def _ms(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{seconds * 1000:.3g} ms"
