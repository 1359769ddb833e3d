"""What a serving process counts of its answers, by model, version and variant, and how it is read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite, isnan
from typing import Any

from millpond.core.errors import AccessDenied, DataError, NotFound, RequestError
from millpond.core.ids import new_id
from millpond.serving.traffic.histogram import Histogram

#: What is the caller's doing; every other error is the version's.
_REFUSED = (RequestError, NotFound, AccessDenied, DataError)

#: A difference between outputs that cannot be subtracted.
UNLIKE = float("inf")


class Tally:
    """What is counted of one variant of a version. Not safe across threads.

    Attributes:
        requests: Requests that were put to it, also refused and failed ones.
        rows: Rows that it answered.
        refused: Requests that were the caller's fault, which say nothing of the version.
        errors: Failures of the version, by the error's name.
        latency: Seconds from a request's arrival to its answer, of answered requests.
        compared: Absolute differences of outputs from the live version's, a row.
        greatest: The greatest finite one.
        flips: Rows whose yes-or-no answer was another than the live version's.
    """

    __slots__ = ("compared", "errors", "flips", "greatest", "latency", "refused", "requests", "rows")

    def __init__(self) -> None:
        self.requests = 0
        self.rows = 0
        self.refused = 0
        self.errors: dict[str, int] = {}
        self.latency = Histogram()
        self.compared = Histogram()
        self.greatest = 0.0
        self.flips = 0

    @property
    def failed(self) -> int:
        """Requests that failed by the version's fault."""
        return sum(self.errors.values())

    @property
    def judged(self) -> int:
        """Requests that say something of the version."""
        return self.requests - self.refused

    def answered(self, rows: int, seconds: float) -> None:
        """Count an answer."""
        self.requests += 1
        self.rows += rows
        self.latency.add(seconds)

    def not_answered(self, error: Exception) -> None:
        """Count a request that ended in an error."""
        self.requests += 1
        if isinstance(error, _REFUSED):
            self.refused += 1
        else:
            kind = type(error).__name__
            self.errors[kind] = self.errors.get(kind, 0) + 1

    def compare(self, difference: float, *, flipped: bool = False) -> None:
        """Count a row that both versions were asked for."""
        self.compared.add(difference)
        if isfinite(difference) and difference > self.greatest:
            self.greatest = difference
        if flipped:
            self.flips += 1

    def merge(self, other: Tally) -> None:
        """Count what the other has counted, too."""
        self.requests += other.requests
        self.rows += other.rows
        self.refused += other.refused
        for kind, number in other.errors.items():
            self.errors[kind] = self.errors.get(kind, 0) + number
        self.latency.merge(other.latency)
        self.compared.merge(other.compared)
        self.greatest = max(self.greatest, other.greatest)
        self.flips += other.flips

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "requests": self.requests,
            "rows": self.rows,
            "refused": self.refused,
            "errors": dict(self.errors),
            "latency": self.latency.to_json(),
            "compared": self.compared.to_json(),
            "greatest": self.greatest,
            "flips": self.flips,
        }

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Tally:
        """What `to_json` said."""
        found = cls()
        found.requests, found.rows, found.refused = int(said["requests"]), int(said["rows"]), int(said["refused"])
        found.errors = {str(kind): int(number) for kind, number in said["errors"].items()}
        found.latency, found.compared = Histogram.from_json(said["latency"]), Histogram.from_json(said["compared"])
        found.greatest, found.flips = float(said["greatest"]), int(said["flips"])
        return found


Key = tuple[str, int, str]


class Statistics:
    """The tallies of one serving process, since it started. Not safe across threads.

    What belongs to different steps of a release is counted apart, under the deployment's `epoch`: so a reader needs no
    differences, and takes the newest snapshot of every process (told apart by `boot`) for what that process counted.

    Attributes:
        boot: Names this process' counting; another after every start.
    """

    def __init__(self) -> None:
        self.boot = new_id("boot")
        self._tallies: dict[Key, Tally] = {}
        self._epochs: dict[str, str] = {}
        self._before: dict[Key, Tally] = {}

    def enter(self, model: str, epoch: str) -> None:
        """Count what is counted of a model from now on under `epoch`, the deployment's; idempotent."""
        if self._epochs.get(model, "") == epoch:
            return
        self._epochs[model] = epoch
        for key in [each for each in self._tallies if each[0] == model]:
            self._before.setdefault(key, Tally()).merge(self._tallies.pop(key))

    def of(self, model: str, version: int, variant: str) -> Tally:
        """The present tally of a variant, to count in; another one after `enter`."""
        key = (model, version, variant)
        found = self._tallies.get(key)
        if found is None:
            found = self._tallies[key] = Tally()
        return found

    def observe(
        self, model: str, version: int, variant: str, rows: int, seconds: float, error: Exception | None = None
    ) -> None:
        """Count a request: an answer of `rows` after `seconds`, or an error."""
        tally = self._tallies.get((model, version, variant)) or self.of(model, version, variant)
        if error is None:
            tally.answered(rows, seconds)
        else:
            tally.not_answered(error)

    def compare(
        self,
        model: str,
        version: int,
        variant: str,
        outputs: Sequence[Any],
        live: Sequence[Any],
        answers: Sequence[bool] | None = None,
        live_answers: Sequence[bool] | None = None,
    ) -> None:
        """Count how far a version's outputs are from those of the live one for the same rows, in order."""
        tally = self.of(model, version, variant)
        decided = answers is not None and live_answers is not None
        for row, (one, other) in enumerate(zip(outputs, live, strict=True)):
            flipped = decided and bool(answers[row]) != bool(live_answers[row])  # type: ignore[index]
            tally.compare(difference(one, other), flipped=flipped)

    def snapshot(self, generation: int = 0, failed: Iterable[tuple[str, int, str]] = ()) -> dict[str, Any]:
        """Everything counted, as plain JSON.

        Args:
            generation: Of the routing document by which this process answers.
            failed: Model, version and reason of what this process cannot load.
        """
        return {
            "boot": self.boot,
            "pid": os.getpid(),
            "generation": generation,
            "failed": [{"model": model, "version": version, "reason": why} for model, version, why in failed],
            "tallies": [
                {"model": model, "version": version, "variant": variant, "epoch": epoch, **tally.to_json()}
                for epoch, (model, version, variant), tally in self._each()
            ],
        }

    def totals(self) -> dict[Key, Tally]:
        """All counts since the process started, by model, version and variant: they only grow."""
        found: dict[Key, Tally] = {}
        for tallies in (self._before, self._tallies):
            for key, tally in tallies.items():
                found.setdefault(key, Tally()).merge(tally)
        return found

    def _each(self) -> Iterable[tuple[str | None, Key, Tally]]:
        for key, tally in self._tallies.items():
            yield self._epochs.get(key[0], ""), key, tally
        for key, tally in self._before.items():
            yield None, key, tally


def tallies_of(snapshot: Mapping[str, Any], model: str, epoch: str) -> dict[str, Any]:
    """What a process counted of a model in an epoch: "VERSION/VARIANT" -> a tally as JSON."""
    return {
        f"{each['version']}/{each['variant']}": {
            name: value for name, value in each.items() if name not in ("model", "version", "variant", "epoch")
        }
        for each in snapshot["tallies"]
        if each["model"] == model and each["epoch"] == epoch
    }


def merged(parts: Iterable[Mapping[str, Any]], version: int, variant: str) -> Tally:
    """What several processes counted of a variant; `parts` as `tallies_of` gives them."""
    found = Tally()
    for part in parts:
        said = part.get(f"{version}/{variant}")
        if said is not None:
            found.merge(Tally.from_json(said))
    return found


def difference(one: Any, other: Any) -> float:
    """How far two outputs are apart: of numbers the absolute difference, of vectors the greatest; 0 of equal others.

    Two NaN are equal. What cannot be subtracted, or is NaN in one alone, is `UNLIKE`.
    """
    try:
        found = abs(one - other)
        found = found if isinstance(found, float) else float(found.max() if getattr(found, "ndim", 0) else found)
    except (TypeError, ValueError):
        return 0.0 if _same(one, other) else UNLIKE
    if isnan(found):
        return 0.0 if _same(one, other) else UNLIKE
    return found


def _same(one: Any, other: Any) -> bool:
    import numpy as np

    try:
        return bool(np.array_equal(one, other, equal_nan=True))
    except TypeError:  # texts
        return bool(np.array_equal(one, other))
