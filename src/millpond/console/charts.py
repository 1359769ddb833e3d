"""Small drawings, as numbers for SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from millpond.platform.read_models import VersionSummary


@dataclass(frozen=True)
class Point:
    """A version's metric; `x` and `y` in the drawing's own units."""

    x: float
    y: float
    value: float
    version: VersionSummary


@dataclass(frozen=True)
class Line:
    """A metric over versions, oldest on the left.

    Attributes:
        points: Versions that have the metric.
        path: The same as text for a polyline.
        width, height: Size of the drawing.
        low, high: Least and greatest value drawn.
    """

    points: tuple[Point, ...]
    path: str
    width: int
    height: int
    low: float
    high: float


def metric_line(versions: Sequence[VersionSummary], metric: str, width: int = 560, height: int = 120) -> Line | None:
    """A metric over versions (given newest first); None with fewer than two that have it."""
    found = [
        (version, version.metrics[metric])
        for version in reversed(versions)
        if math.isfinite(version.metrics.get(metric, math.nan))
    ]
    if len(found) < 2:
        return None
    values = [value for _, value in found]
    low, high = min(values), max(values)
    spread = (high - low) or 1.0
    margin, below = 14, 22
    points = tuple(
        Point(
            round(margin + index * (width - 2 * margin) / (len(found) - 1), 1),
            round(margin + (high - value) / spread * (height - margin - margin - below), 1),
            value,
            version,
        )
        for index, (version, value) in enumerate(found)
    )
    return Line(points, " ".join(f"{p.x},{p.y}" for p in points), width, height, low, high)
