"""What was to be reached, and how far it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.inference.bodies import MANY
from benchmarks.inference.measure import BUSY, LARGE, Load, Measured, Pair
from benchmarks.inference.ours import NAME, NATIVE, TURNS, Worker
from benchmarks.inference.servers import SERVERS

#: Server -> how many times its requests a second, by model.
AGAINST = {
    "lightgbm": {"Triton": 2.0, "kserve": 30.0, "mlflow": 200.0, "hello on ASGI": 0.6, "hello on a Protocol": 0.6},
    "mixed": {"mlflow": 100.0},
    "neighbours": {"mlflow": 20.0},
}
TITLES = {
    "lightgbm": "LightGBM",
    "keyed": "from entity keys",
    "mixed": "mixed-type pipeline",
    "sampled": "mixed-type pipeline, 1 % logged",
    "neighbours": "nearest neighbours",
}
_TURNS = {"keyed": (0.7, "x raw inputs"), "mixed": (0.95, "x almost without its prediction log")}
_LARGE, _BARE, _TAIL, _MEMORY, _READY = 5.0, 1.0, 5.0, 200.0, 1.0


def turns(server: str, model: str) -> list[Load]:
    """Under which loads a peer is measured in turn with Millpond."""
    small = [BUSY] if server in AGAINST[model] else []
    return [*small, LARGE] if model == "lightgbm" else small


def rows(found: Sequence[Measured], worker: Worker) -> Iterator[dict[str, Any]]:
    """Rows with goals; one that lacks a figure has no value, and says why.

    Args:
        found: Every server on every model.
        worker: Millpond's serving process.
    """
    by = {(each.server, each.model): each for each in found}
    mine = {model: each for (server, model), each in by.items() if server == NAME}
    if not mine:
        return
    for model, goals in AGAINST.items():
        for server, goal in goals.items():
            if (server, model) in by:
                name = f"{TITLES[model]}, 1 row at {BUSY.connections} connections: against {server}"
                yield _ratio(name, by[server, model], BUSY, goal, f"x {server}", server)
    for model, (goal, unit) in _TURNS.items():
        name = f"{TITLES[model]}, 1 row at {BUSY.connections} connections"
        yield _ratio(name, mine[model], BUSY, goal, unit, TITLES[TURNS[model]])
    peers = [each for each in found if each.server != NAME and LARGE in each.pairs]
    if peers and {each.name for each in SERVERS} <= {each.server for each in found}:
        best = min(peers, key=lambda each: each.pairs[LARGE].ratio)
        name = f"LightGBM, {MANY:,} rows: against the best peer"
        yield _ratio(name, best, LARGE, _LARGE, f"x {best.server}", best.server)
    name = f"{TITLES[NATIVE]}, {MANY:,} rows: the native model"
    yield _ratio(name, mine[NATIVE], LARGE, _BARE, "x the bare call", "predict_proba in a loop over a frame")
    yield _tail(mine["keyed"], by.get(("hello on ASGI", "lightgbm")))
    for name, value, goal, unit in (
        ("memory", worker.memory, _MEMORY, "MiB"),
        ("start to first answer", worker.ready, _READY, "s"),
    ):
        note = worker.reason or "all models of the project, after every load"
        yield _row(f"the serving process: {name}", value or None, goal, unit, note, at_most=True)


def _tail(measured: Measured, hello: Measured | None) -> dict[str, Any]:
    """How much the slow ones of requests one by one take; a server that does nothing shows the machine's own part."""
    at = Load(1, 1)
    window = measured.windows.get(at)
    note = f"p50 {window.p50:,.0f} µs, p99 {window.p99:,.0f} µs" if window else measured.reason
    idle = hello.windows.get(at) if hello else None
    if window and idle:
        note += f"; of {hello.server} p99 is {idle.p99 / idle.p50:.1f} x p50"
    name, value = "from entity keys, 1 row at 1 connection: p99", window.p99 / window.p50 if window else None
    return _row(name, value, _TAIL, "x p50", note, at_most=True)


def _ratio(name: str, measured: Measured, at: Load, goal: float, unit: str, other: str) -> dict[str, Any]:
    pair: Pair | None = measured.pairs.get(at)
    if pair is None:
        return _row(name, None, goal, unit, measured.reason or f"{NAME} did not answer")
    note = f"{pair.rates[0]:,.0f} a second, {other} {pair.rates[1]:,.0f}"
    return _row(name, pair.ratio, goal, unit, note if pair.calm else f"{note}; disturbed")


def _row(name: str, value: float | None, goal: float, unit: str, note: str, *, at_most: bool = False) -> dict[str, Any]:
    return {"name": name, "value": value, "goal": goal, "at_most": at_most, "unit": unit, "note": note}
