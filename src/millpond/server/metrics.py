"""What the server measures of itself, in Prometheus' text format."""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from millpond.server.processes import ChildStatus

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_AREAS = ("/api/", "/v2/", "/mlflow/", "/static/", "/metrics", "/healthz", "/login")


class ServerMetrics:
    """Counts and times requests by area of the server. Safe across threads; in memory, from the process' start on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._buckets: Counter[tuple[str, float]] = Counter()
        self._seconds: dict[str, float] = {}
        self._counts: Counter[str] = Counter()
        self._started = time.time()

    def observe(self, area: str, method: str, status: int, seconds: float) -> None:
        with self._lock:
            self._requests[area, method, status] += 1
            self._counts[area] += 1
            self._seconds[area] = self._seconds.get(area, 0.0) + seconds
            for bound in _BUCKETS:
                if seconds <= bound:
                    self._buckets[area, bound] += 1

    def render(self, children: Sequence[ChildStatus], serving_answers: bool) -> str:
        """All of it, ending with a line feed. Names begin with `millpond_server_`."""
        with self._lock:
            lines = [
                *_family("requests_total", "counter", "Requests answered."),
                *(
                    f'millpond_server_requests_total{{area="{area}",method="{method}",status="{status}"}} {count}'
                    for (area, method, status), count in sorted(self._requests.items())
                ),
                *_family("request_seconds", "histogram", "Time until a request was answered whole."),
            ]
            for area in sorted(self._counts):
                lines += self._histogram(area)
        lines += [
            *_sample("start_time_seconds", "gauge", "When the server started, since 1970.", self._started),
            *_sample("resident_memory_bytes", "gauge", "Memory of the control process.", _resident_bytes()),
            *_sample("cpu_seconds_total", "counter", "Processor time of the control process.", time.process_time()),
            *_sample("serving_up", "gauge", "1 where the serving worker answers.", int(serving_answers)),
            *_family("child_up", "gauge", "1 while a child process runs."),
            *(f'millpond_server_child_up{{child="{c.name}"}} {int(c.state == "running")}' for c in children),
            *_family("child_restarts_total", "counter", "Times a child process was started again."),
            *(f'millpond_server_child_restarts_total{{child="{c.name}"}} {c.restarts}' for c in children),
        ]
        return "\n".join(lines) + "\n"

    def _histogram(self, area: str) -> list[str]:
        name = "millpond_server_request_seconds"
        lines = [f'{name}_bucket{{area="{area}",le="{bound:g}"}} {self._buckets[area, bound]}' for bound in _BUCKETS]
        return [
            *lines,
            f'{name}_bucket{{area="{area}",le="+Inf"}} {self._counts[area]}',
            f'{name}_sum{{area="{area}"}} {self._seconds[area]:.6f}',
            f'{name}_count{{area="{area}"}} {self._counts[area]}',
        ]


class Measured:
    """ASGI middleware that observes each request."""

    def __init__(self, app: ASGIApp, metrics: ServerMetrics) -> None:
        self.app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        status, began = 500, time.perf_counter()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            known = scope["method"] in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
            method = scope["method"] if known else "other"
            self._metrics.observe(area_of(scope["path"]), method, status, time.perf_counter() - began)


def area_of(path: str) -> str:
    """The part of the server that a path belongs to: a short list, so that labels stay few."""
    return next((area.strip("/") for area in _AREAS if path.startswith(area)), "console")


def _family(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP millpond_server_{name} {text}", f"# TYPE millpond_server_{name} {kind}"]


def _sample(name: str, kind: str, text: str, value: float) -> list[str]:
    return [*_family(name, kind, text), f"millpond_server_{name} {value}"]


def _resident_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return pages * resource.getpagesize()
