"""Metrics of inference in the Prometheus text format."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: Upper bounds of the latency histogram, in seconds.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class _Series:
    """What is counted of one variant of one version."""

    __slots__ = ("codes", "counts", "rows", "seconds")

    def __init__(self) -> None:
        self.codes: dict[int, int] = {}
        self.rows = 0
        self.counts = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0


class InferenceMetrics:
    """Counts since the process started, and the requests that wait now. For the thread of one event loop.

    Requests for a model that does not exist are counted under empty labels, so that callers cannot make new series;
    so are a version and a variant that were not chosen yet when a request failed.

    Attributes:
        waiting: Requests that were asked and not answered yet; kept by who asks.
    """

    def __init__(self) -> None:
        self.waiting = 0
        self._series: dict[tuple[str, str, str], _Series] = {}

    def observe(self, model: str, version: str, variant: str, code: int, rows: int, seconds: float) -> None:
        """Count one inference request: its status, the rows it was answered for, and how long it took."""
        series = self._series.get((model, version, variant))
        if series is None:
            series = self._series[model, version, variant] = _Series()
        codes = series.codes
        codes[code] = codes.get(code, 0) + 1
        series.rows += rows
        series.counts[bisect_left(BUCKETS, seconds)] += 1
        series.seconds += seconds

    def render(self) -> str:
        """All series, sorted."""
        every = [(_labels(*key), series) for key, series in sorted(self._series.items())]
        lines = _family("requests_total", "counter", "Inference requests by status.")
        for labels, series in every:
            lines += [
                f'millpond_inference_requests_total{{{labels},code="{code}"}} {count}'
                for code, count in sorted(series.codes.items())
            ]
        lines += _family("rows_total", "counter", "Rows answered.")
        lines += [f"millpond_inference_rows_total{{{labels}}} {series.rows}" for labels, series in every]
        lines += _family("waiting", "gauge", "Requests that are not answered yet.")
        lines.append(f"millpond_inference_waiting {self.waiting}")
        lines += _family("seconds", "histogram", "Time from the end of the headers to the answer.")
        for labels, series in every:
            lines += _histogram_lines(labels, series)
        return "\n".join(lines) + "\n"


def merge_workers(texts: Mapping[str, str]) -> str:
    """The metrics of several workers as one text: each sample with the label `worker`, each family said once."""
    headers: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for worker, text in texts.items():
        family = ""
        for line in text.splitlines():
            if line.startswith(("# HELP ", "# TYPE ")):
                family = line.split(" ", 3)[2]
                known = headers.setdefault(family, [])
                if line not in known:
                    known.append(line)
            elif line:
                samples.setdefault(family, []).append(_with_label(line, worker))
    lines: Iterable[str] = (
        line
        for family in dict.fromkeys((*headers, *samples))
        for line in (*headers.get(family, ()), *samples.get(family, ()))
    )
    return "".join(f"{line}\n" for line in lines)


def _with_label(sample: str, worker: str) -> str:
    label = f'worker="{_escape(worker)}"'
    name, brace, rest = sample.partition("{")
    if brace:
        return f"{name}{{{label},{rest}"
    name, _, value = sample.partition(" ")
    return f"{name}{{{label}}} {value}"


def _family(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP millpond_inference_{name} {text}", f"# TYPE millpond_inference_{name} {kind}"]


def _histogram_lines(labels: str, series: _Series) -> list[str]:
    lines, below = [], 0
    for bound, count in zip((*map(str, BUCKETS), "+Inf"), series.counts, strict=True):
        below += count
        lines.append(f'millpond_inference_seconds_bucket{{{labels},le="{bound}"}} {below}')
    lines.append(f"millpond_inference_seconds_sum{{{labels}}} {series.seconds!r}")
    lines.append(f"millpond_inference_seconds_count{{{labels}}} {below}")
    return lines


def _labels(model: str, version: str, variant: str) -> str:
    return f'model="{_escape(model)}",version="{_escape(version)}",variant="{_escape(variant)}"'


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
