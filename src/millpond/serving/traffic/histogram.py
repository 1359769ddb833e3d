"""Counts of values on a logarithmic scale: small, mergeable, and quick to add to."""

from __future__ import annotations

from collections.abc import Mapping
from math import floor, isfinite, log2
from typing import Any

#: Steps of the scale to each doubling: values within 2.2 % of each other are not told apart.
STEPS = 32

#: Step of everything that is too great, infinite, or no number.
_BEYOND = 64 * STEPS
_LEAST = -64 * STEPS


class Histogram:
    """How many values lie where, over non-negative values; exact zeros are counted apart.

    Not safe across threads.
    """

    __slots__ = ("count", "steps", "total", "zeros")

    def __init__(self) -> None:
        self.count = 0
        self.zeros = 0
        self.total = 0.0
        self.steps: dict[int, int] = {}

    def add(self, value: float) -> None:
        """Count a value; a NaN counts as greater than everything."""
        self.count += 1
        if value == 0.0:
            self.zeros += 1
            return
        if isfinite(value):
            self.total += value
        step = step_of(value)
        steps = self.steps
        steps[step] = steps.get(step, 0) + 1

    def merge(self, other: Histogram) -> None:
        """Count what the other has counted, too."""
        self.count += other.count
        self.zeros += other.zeros
        self.total += other.total
        for step, number in other.steps.items():
            self.steps[step] = self.steps.get(step, 0) + number

    def above(self, bound: float) -> int:
        """How many values are surely greater than `bound`: those of its own step of the scale are not counted."""
        if bound <= 0:
            return self.count - self.zeros
        own = step_of(bound)
        return sum(number for step, number in self.steps.items() if step > own)

    def quantile(self, share: float) -> float | None:
        """The least value that is not exceeded by this share of the values, to 2.2 % upwards; None without any."""
        if not self.count:
            return None
        wanted = share * self.count
        seen = self.zeros
        if seen >= wanted:
            return 0.0
        for step in sorted(self.steps):
            seen += self.steps[step]
            if seen >= wanted:
                break
        return float(2.0 ** ((step + 1) / STEPS))

    @property
    def mean(self) -> float | None:
        """Of the finite values."""
        counted = self.count - self.steps.get(_BEYOND, 0)
        return self.total / counted if counted else None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "count": self.count,
            "zeros": self.zeros,
            "total": self.total,
            "steps": {str(step): number for step, number in self.steps.items()},
        }

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Histogram:
        """What `to_json` said."""
        found = cls()
        found.count, found.zeros, found.total = int(said["count"]), int(said["zeros"]), float(said["total"])
        found.steps = {int(step): int(number) for step, number in said["steps"].items()}
        return found


def step_of(value: float) -> int:
    """The step of the scale that a positive value lies in."""
    if not isfinite(value):
        return _BEYOND
    step = floor(log2(value) * STEPS)
    return _LEAST if step < _LEAST else _BEYOND - 1 if step >= _BEYOND else step
