"""What was to be reached, and how far it was; and every server's own figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.inference.bodies import MANY
from benchmarks.inference.measure import CONNECTIONS, Load, Measured
from benchmarks.inference.ours import NAME, Worker

BUSY = 64  # connections
TITLES = {
    "lightgbm": "LightGBM",
    "keyed": "from entity keys",
    "mixed": "mixed-type pipeline",
    "neighbours": "nearest neighbours",
}
_NOTES = {
    "lightgbm": "30 numbers, 200 trees of 31 leaves",
    "keyed": "20 online features, 200 trees of 31 leaves, a canary of 10 %",
    "mixed": "10 numbers, 4 strings and a boolean through the default recipe",
    "neighbours": "10 numbers, 2 strings and a boolean to 3,000 neighbours",
}
#: Server -> how many times its requests a second, by model.
_AGAINST = {
    "lightgbm": {"Triton": 2.0, "kserve": 30.0, "mlflow": 200.0, "hello, ASGI": 0.6, "hello, Protocol": 0.6},
    "mixed": {"mlflow": 100.0},
    "neighbours": {"mlflow": 20.0},
}
_KEYED, _LARGE, _BARE, _TAIL, _MEMORY, _READY = 0.7, 5.0, 1.0, 5.0, 200.0, 1.0


def rows(found: Sequence[Measured], worker: Worker, bare: float) -> Iterator[dict[str, Any]]:
    """Rows with goals; one that lacks a figure says which.

    Args:
        found: Every server on every model.
        worker: Millpond's serving process.
        bare: Rows a second of the bare call of `neighbours`.
    """
    if not any(each.server == NAME for each in found):
        return
    by = {(each.server, each.model): each for each in found}
    for model, goals in _AGAINST.items():
        title = f"inference, {TITLES[model]}, 1 row at {BUSY} connections"
        for server, goal in goals.items():
            rates = [_busy(by, NAME, model), _busy(by, server, model)]
            note = f"{rates[0]:,.0f} a second, {server} {rates[1]:,.0f}"
            yield _row(f"{title}: against {server}", rates, goal, f"x {server}", note)
    rates = [_busy(by, NAME, "keyed"), _busy(by, NAME, "lightgbm")]
    note = f"{rates[0]:,.0f} a second, raw inputs {rates[1]:,.0f}; {_NOTES['keyed']}; requests carry the key alone"
    yield _row(f"inference, {TITLES['keyed']}, 1 row at {BUSY} connections", rates, _KEYED, "x raw inputs", note)
    peers = {each.server: each.most_rows() for each in found if each.model == "lightgbm" and each.server != NAME}
    best = max(peers, key=lambda server: peers[server], default="")
    rates = [_large(by, "lightgbm"), peers.get(best, 0.0)]
    note = f"{rates[0]:,.0f} rows a second, {best} {rates[1]:,.0f}"
    yield _row(f"inference, LightGBM, {MANY:,} rows: against the best peer", rates, _LARGE, f"x {best}", note)
    rates = [_large(by, "neighbours"), bare]
    note = f"{rates[0]:,.0f} rows a second, {bare:,.0f} in a loop of predict_proba over frames, without a server"
    yield _row(
        f"inference, {TITLES['neighbours']}, {MANY:,} rows: the native model", rates, _BARE, "x the bare call", note
    )
    keyed = by.get((NAME, "keyed"))
    window = keyed.windows.get(Load(1, 1)) if keyed else None
    tail = [window.p99, window.p50] if window else [0.0, 0.0]
    note = f"p50 {tail[1]:,.0f} µs, p99 {tail[0]:,.0f} µs, prediction log and features on"
    name = f"inference, {TITLES['keyed']}, 1 row at 1 connection: p99"
    yield {**_row(name, tail, _TAIL, "x p50", note), "at_most": True}
    yield from _worker_rows(worker)


def _worker_rows(worker: Worker) -> Iterator[dict[str, Any]]:
    note = "all four models of the project, after every load"
    for name, value, goal, unit in (
        ("memory", worker.memory, _MEMORY, "MiB"),
        ("start to first answer", worker.ready, _READY, "s"),
    ):
        row = _row(f"inference, the serving process: {name}", [value, 1.0], goal, unit, note)
        yield {**row, "at_most": True, "note": worker.reason or row["note"]}


def figures(found: Sequence[Measured]) -> Iterator[dict[str, Any]]:
    """A row a server and model."""
    for each in found:
        name = f"inference, {TITLES[each.model]}, 1 row at {BUSY} connections: {each.server}"
        if each.reason and not each.windows:
            yield {"name": name, "value": None, "goal": None, "unit": "", "note": f"not measured: {each.reason}"}
            continue
        note = "; ".join([*_told(each), f"{each.memory:,.0f} MiB", f"start to first answer {each.ready:.1f} s"])
        note += f"; then it failed: {each.reason}" if each.reason else ""
        rate = each.requests(1, BUSY)
        yield {"name": name, "value": rate or None, "goal": None, "unit": "requests/s", "note": note}


def _told(each: Measured) -> Iterator[str]:
    for number in (1, MANY):
        windows = {at: each.windows[at] for count in CONNECTIONS if (at := Load(number, count)) in each.windows}
        if not windows:
            continue
        counts = "/".join(str(at.connections) for at in windows)
        rates = "/".join(f"{window.requests:,.0f}" for window in windows.values())
        p50 = "/".join(_milliseconds(window.p50) for window in windows.values())
        p99 = "/".join(_milliseconds(window.p99) for window in windows.values())
        cpu = "/".join(f"{window.cpu:,.0f}" for window in windows.values())
        yield (
            f"{number:,} row{'s' * (number > 1)} at {counts} connections: {rates} requests/s, "
            f"p50 {p50} ms, p99 {p99} ms, processor {cpu} µs a request"
        )
    disturbed = max(window.foreign for window in each.windows.values())
    if disturbed > 0.1:
        yield f"others used up to {disturbed:.0%} of the server's core"
    if any(window.client > 0.95 for window in each.windows.values()):
        yield "wrk was busy all the time"


def _milliseconds(microseconds: float) -> str:
    return f"{microseconds / 1000:,.3g}" if microseconds < 1_000_000 else f"{microseconds / 1000:,.0f}"


def _busy(by: dict[tuple[str, str], Measured], server: str, model: str) -> float:
    each = by.get((server, model))
    return each.requests(1, BUSY) if each else 0.0


def _large(by: dict[tuple[str, str], Measured], model: str) -> float:
    each = by.get((NAME, model))
    return each.most_rows() if each else 0.0


def _row(name: str, rates: Sequence[float], goal: float, unit: str, note: str) -> dict[str, Any]:
    """The first rate over the second; without a value where one of them is missing."""
    value = rates[0] / rates[1] if all(rates) else None
    note = note if all(rates) else f"not measured: {note}"
    return {"name": name, "value": value, "goal": goal, "at_most": False, "unit": unit, "note": note}
