"""How a new version of a model takes over: its shadow, its steps, and the rules that it must keep meanwhile.

The rules are judged by `serving.traffic.judging`, on what the serving processes count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from millpond.core.names import did_you_mean
from millpond.core.time import Duration
from millpond.definitions.gates import METRICS
from millpond.definitions.place import Place, Problem, caller

#: Quantiles of latency by name.
QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}


@dataclass(frozen=True)
class MaxErrors:
    """At most this share of the requests may fail by the version's fault; malformed requests do not count."""

    kind: ClassVar[str] = "max_errors"
    share: float
    declared_at: Place = field(default_factory=caller, repr=False, compare=False)

    def __str__(self) -> str:
        return f"errors <= {self.share:.4g} of the requests"

    def problems(self, subject: str, task: str) -> Iterator[Problem]:  # noqa: ARG002 - as every rule
        if not _number(self.share) or not 0 <= self.share < 1:
            yield _problem(self, subject, "share", f"is {self.share!r}", "a share: at least 0, and less than 1")


@dataclass(frozen=True)
class MaxLatency:
    """A quantile of the latency stays under `ms`, or under `ratio` times that of the live version."""

    kind: ClassVar[str] = "max_latency"
    quantile: str
    ms: float | None = None
    ratio: float | None = None
    declared_at: Place = field(default_factory=caller, repr=False, compare=False)

    def __str__(self) -> str:
        bound = f"{self.ms:.4g} ms" if self.ms is not None else f"{self.ratio:.4g} times that of the live version"
        return f"{self.quantile} latency <= {bound}"

    def problems(self, subject: str, task: str) -> Iterator[Problem]:  # noqa: ARG002
        if self.quantile not in QUANTILES:
            hint = did_you_mean(str(self.quantile), QUANTILES, noun="quantiles")
            yield _problem(self, subject, "quantile", f"is {self.quantile!r}", hint)
        if (self.ms is None) == (self.ratio is None):
            found = "neither is given" if self.ms is None else "both are given"
            yield _problem(self, subject, "ms, ratio", found, "give one of them")
        if self.ms is not None and (not _number(self.ms) or self.ms <= 0):
            yield _problem(self, subject, "ms", f"is {self.ms!r}", "milliseconds: more than 0")
        if self.ratio is not None and (not _number(self.ratio) or self.ratio < 1):
            yield _problem(self, subject, "ratio", f"is {self.ratio!r}", "at least 1")


@dataclass(frozen=True)
class MaxDifference:
    """At most `share` of the rows may get an output further than `by` from the live version's."""

    kind: ClassVar[str] = "max_difference"
    by: float
    share: float = 0.0
    declared_at: Place = field(default_factory=caller, repr=False, compare=False)

    def __str__(self) -> str:
        return f"output within {self.by:.4g} of the live version's, but for {self.share:.4g} of the rows"

    def problems(self, subject: str, task: str) -> Iterator[Problem]:  # noqa: ARG002
        if not _number(self.by) or self.by < 0:
            yield _problem(self, subject, "by", f"is {self.by!r}", "in the output's own unit: at least 0")
        if not _number(self.share) or not 0 <= self.share < 1:
            yield _problem(self, subject, "share", f"is {self.share!r}", "a share: at least 0, and less than 1")


@dataclass(frozen=True)
class LiveMetric:
    """A metric over the answers whose label has become known since the step began."""

    kind: ClassVar[str] = "live_metric"
    metric: str
    at_least: float | None = None
    at_most: float | None = None
    not_worse_by: float | None = None
    labels: int = 200
    declared_at: Place = field(default_factory=caller, repr=False, compare=False)

    def __str__(self) -> str:
        if self.at_least is not None:
            bound = f">= {self.at_least:.4g}"
        elif self.at_most is not None:
            bound = f"<= {self.at_most:.4g}"
        else:
            bound = f"not worse than the live version's by more than {self.not_worse_by:.4g}"
        return f"live {self.metric} {bound}, over {self.labels:,} labels"

    @property
    def higher_is_better(self) -> bool:
        return next(better[self.metric] for better in METRICS.values() if self.metric in better)

    def problems(self, subject: str, task: str) -> Iterator[Problem]:
        known = METRICS.get(task, {})
        if self.metric not in known:
            hint = did_you_mean(self.metric, known, noun="metrics")
            yield _problem(self, subject, "metric", f"is {self.metric!r}", hint)
        bounds = {"at_least": self.at_least, "at_most": self.at_most, "not_worse_by": self.not_worse_by}
        given = {name: bound for name, bound in bounds.items() if bound is not None}
        if len(given) != 1:
            found = f"{' and '.join(given)} are given" if given else "there is no bound"
            yield _problem(self, subject, "bound", found, f"give one of {', '.join(bounds)}")
        for name, bound in given.items():
            if not _number(bound) or (name == "not_worse_by" and bound < 0):
                yield _problem(self, subject, name, f"is {bound!r}", "a number in the metric's own unit")
        if not isinstance(self.labels, int) or self.labels < 1:
            yield _problem(self, subject, "labels", f"is {self.labels!r}", "a number of labels: at least 1")


Rule = MaxErrors | MaxLatency | MaxDifference | LiveMetric
_KINDS: dict[str, type[Rule]] = {each.kind: each for each in (MaxErrors, MaxLatency, MaxDifference, LiveMetric)}

#: What holds where no rule is declared.
DEFAULT_RULES: tuple[Rule, ...] = (MaxErrors(0.01), MaxLatency("p99", ratio=2.0))


@dataclass(frozen=True)
class Release:
    """How a version takes over from the live one.

    It first shadows the live version, where `shadow` is given: every request is mirrored to it after the answer was
    sent, and what it would have answered is compared and kept. Then it answers a share of the requests, by steps; an
    entity that is in at 5 % stays in at 25 %. A step ends when its time is over, it has answered enough requests, and
    every rule could be judged and holds; after the last one the version is promoted. As soon as a rule is broken, with
    evidence enough, the version is rolled back. Every move is in the audit log.

    Args:
        steps: Shares of the requests, ascending. Reaching 1.0, which may be left out, is the promotion.
        every: Least time that the shadow and each step take; None waits to be told, and only rolls back by itself.
        shadow: How long the version shadows first, such as "30m"; True until it is told to go on; None not at all.
        rules: What must hold: `mp.max_errors`, `mp.max_latency`, `mp.max_difference`, `mp.live_metric`.
        requests: Least number of requests that the version answers in a step before it goes on.
    """

    steps: Sequence[float] = (0.05, 0.25, 1.0)
    every: str | None = "10m"
    shadow: str | bool | None = None
    rules: Sequence[Rule] = DEFAULT_RULES
    requests: int = 100
    declared_at: Place = field(default_factory=caller, repr=False, compare=False)

    @property
    def shares(self) -> tuple[float, ...]:
        """The shares of the steps before the promotion."""
        return tuple(float(each) for each in self.steps if each < 1)

    @property
    def shadows(self) -> bool:
        return bool(self.shadow)

    @property
    def compares(self) -> bool:
        """Whether a rule needs the outputs of both versions for the same rows."""
        return any(isinstance(each, MaxDifference) for each in self.rules)

    def seconds(self, *, shadowing: bool) -> float | None:
        """Least time of the shadow, or of a step; None where it waits to be told."""
        text = self.shadow if shadowing else self.every
        return Duration.parse(text).microseconds / 1e6 if isinstance(text, str) else None

    def describe(self) -> dict[str, Any]:
        """As plain JSON; `release_from` reads it back."""
        return {
            "steps": [float(each) for each in self.steps],
            "every": self.every,
            "shadow": self.shadow,
            "rules": [_described(each) for each in self.rules],
            "requests": self.requests,
        }

    def problems(self, subject: str, task: str) -> Iterator[Problem]:
        def problem(argument: str, found: str, hint: str = "") -> Problem:
            return Problem(self.declared_at, subject, f"release: {argument}", found, hint)

        if not all(_number(each) and 0 < each <= 1 for each in self.steps):
            yield problem("steps", f"are {list(self.steps)!r}", "shares of the requests: above 0, at most 1")
        elif list(self.steps) != sorted(set(self.steps)):
            yield problem("steps", f"are {list(self.steps)!r}", "in ascending order, each once")
        elif not self.shares and not self.shadow:
            yield problem("steps", "leave nothing to try", "name a share below 1, or shadow first")
        for name, text in (("every", self.every), ("shadow", self.shadow)):
            if text is None or (name == "shadow" and isinstance(text, bool)):
                continue
            try:
                Duration.parse(text)  # type: ignore[arg-type]
            except (ValueError, TypeError) as error:
                yield problem(name, str(error))
        if not isinstance(self.requests, int) or self.requests < 1:
            yield problem("requests", f"is {self.requests!r}", "a number of requests: at least 1")
        for rule in self.rules:
            if isinstance(rule, Rule):
                yield from rule.problems(subject, task)
            else:
                hint = ", ".join(f"mp.{name}(...)" for name in _KINDS)
                yield problem("rules", f"hold {rule!r}", hint)


def release_from(described: Mapping[str, Any]) -> Release:
    """What `Release.describe` described."""
    rules = tuple(
        _KINDS[each["rule"]](**{name: value for name, value in each.items() if name != "rule"})
        for each in described["rules"]
    )
    return Release(
        steps=tuple(described["steps"]),
        every=described["every"],
        shadow=described["shadow"],
        rules=rules,
        requests=described["requests"],
    )


def max_errors(share: float = 0.01) -> MaxErrors:
    """At most this share of the requests may fail by the version's fault; a malformed request never counts.

    Broken once it is sure (a 99.9 % bound) that more fail, which takes about ten requests where all do; a single early
    error does not break it, unless `share` is 0. While the live version fails as well, it holds the release instead.
    """
    return MaxErrors(share)


def max_latency(quantile: str = "p99", *, ms: float | None = None, ratio: float | None = None) -> MaxLatency:
    """A quantile of the latency stays under a bound; judged from 100 answers on.

    Args:
        quantile: "p50", "p90", "p95", "p99" or "p999".
        ms: Milliseconds in the serving process.
        ratio: Times the live version's quantile in the same step, and at least a millisecond more.
    """
    return MaxLatency(quantile, ms, ratio)


def max_difference(by: float, share: float = 0.0) -> MaxDifference:
    """At most `share` of the rows may get an output further than `by` from the live version's.

    Both versions are asked for the same rows, one of them after the answer was sent. Judged from 50 rows on, at a
    resolution of 2 % of `by`.

    Args:
        by: Greatest difference, in the output's own unit: a probability, or the label's.
        share: Of the rows that were compared.
    """
    return MaxDifference(by, share)


def live_metric(
    metric: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    not_worse_by: float | None = None,
    labels: int = 200,
) -> LiveMetric:
    """A metric of the model's task, over the version's answers of this step whose label is known by now.

    Holds the release until there are `labels` of them (of the live version too, where it is compared).

    Args:
        metric: Such as "roc_auc".
        at_least: Least value.
        at_most: Greatest value.
        not_worse_by: How much worse than the live version's it may be.
        labels: Number of answers with a label from which on it is judged.
    """
    return LiveMetric(metric, at_least, at_most, not_worse_by, labels)


def _described(rule: Rule) -> dict[str, Any]:
    return {"rule": rule.kind, **{name: value for name, value in asdict(rule).items() if name != "declared_at"}}


def _problem(rule: Rule, subject: str, argument: str, found: str, hint: str) -> Problem:
    return Problem(rule.declared_at, subject, f"release: {rule.kind}: {argument}", found, hint)


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value  # noqa: PLR0124
