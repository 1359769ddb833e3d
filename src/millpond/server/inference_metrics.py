"""Metrics of the inference app in the Prometheus text format."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: Upper bounds of the latency histogram, in seconds.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass
class _Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0


class InferenceMetrics:
    """Counts since the process started. Safe across threads.

    Requests for a model that does not exist are counted under an empty model and version, so that callers cannot
    make new series.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._rows: Counter[tuple[str, str]] = Counter()
        self._latency: dict[tuple[str, str], _Histogram] = {}

    def observe(self, model: str, version: str, code: int, rows: int, seconds: float) -> None:
        """Count one inference request: its HTTP status, the rows it was answered for, and how long it took."""
        with self._lock:
            self._requests[model, version, code] += 1
            self._rows[model, version] += rows
            histogram = self._latency.setdefault((model, version), _Histogram())
            histogram.counts[bisect_left(BUCKETS, seconds)] += 1
            histogram.total += seconds

    def render(self) -> str:
        """All series, sorted."""
        with self._lock:
            lines = [
                "# HELP millpond_inference_requests_total Inference requests by HTTP status.",
                "# TYPE millpond_inference_requests_total counter",
            ]
            for (model, version, code), count in sorted(self._requests.items()):
                lines.append(f'millpond_inference_requests_total{{{_labels(model, version)},code="{code}"}} {count}')
            lines += [
                "# HELP millpond_inference_rows_total Rows answered.",
                "# TYPE millpond_inference_rows_total counter",
            ]
            for (model, version), count in sorted(self._rows.items()):
                lines.append(f"millpond_inference_rows_total{{{_labels(model, version)}}} {count}")
            lines += [
                "# HELP millpond_inference_seconds Time from the end of the headers to the answer.",
                "# TYPE millpond_inference_seconds histogram",
            ]
            for (model, version), histogram in sorted(self._latency.items()):
                lines += _histogram_lines(_labels(model, version), histogram)
        return "\n".join(lines) + "\n"


def _histogram_lines(labels: str, histogram: _Histogram) -> list[str]:
    lines, below = [], 0
    for bound, count in zip((*map(str, BUCKETS), "+Inf"), histogram.counts, strict=True):
        below += count
        lines.append(f'millpond_inference_seconds_bucket{{{labels},le="{bound}"}} {below}')
    lines.append(f"millpond_inference_seconds_sum{{{labels}}} {histogram.total!r}")
    lines.append(f"millpond_inference_seconds_count{{{labels}}} {below}")
    return lines


def _labels(model: str, version: str) -> str:
    return f'model="{_escape(model)}",version="{_escape(version)}"'


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
