"""The figures of `inference` as they are kept beside the results, so that a run of some servers keeps the others'."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import page
from benchmarks.inference.goals import TITLES
from benchmarks.inference.measure import CALM, CONNECTIONS, EVERY, Load, Measured
from benchmarks.inference.ours import NAME

FILE = Path(__file__).with_name("figures.json")
_ABOUT = {
    "lightgbm": "30 numbers, 200 trees of 31 leaves; a booster trained on a frame, saved by MLflow with the signature "
    "that it infers from the frame. Asked with one tensor of all columns (Millpond, Triton, kserve, MLServer's runtime "
    "for LightGBM), with named columns (MLflow's server: `dataframe_split`; MLServer's runtime for MLflow: a tensor a "
    "column), and with a list of rows (LitServe, BentoML, Ray Serve).",
    "keyed": "20 online features and 200 trees of 31 leaves, a canary of 10 %; requests carry the key alone.",
    "mixed": "10 numbers, 4 strings and a boolean through the default recipe, every answer in the prediction log; "
    "peers keep no log.",
    "sampled": "The same with 1 % of the answers in the prediction log.",
    "neighbours": "10 numbers, 2 strings and a boolean to 3,000 neighbours.",
}
_HEAD = ["server", *(f"{'1 row' if at.rows == 1 else f'{at.rows:,} rows'}, c={at.connections}" for at in EVERY)]
_HEAD += ["1 row p50/p99 ms, c=1", f"1 row p50/p99 ms, c={CONNECTIONS[-1]}", "CPU µs", "MiB", "start s", "measured"]
_NOTE = f"""Every server on one core, wrk on another; c connections each ask again once they are answered. Requests a
second, medians of windows; CPU is of all processes of a server for a request of one row at c={CONNECTIONS[-1]}. Goals
are of windows of both servers in turn. Windows in which others used more than {CALM:.0%} of a core are taken again;
\\* marks figures that none without was found for. Ray Serve alone starts on every core, and is kept to its own once it
has answered: on one, its processes give each other up."""

_WHERE = """Where the time goes, sampled with perf while 64 connections asked for one row of the LightGBM (2026-11-22):
of the serving process, 59 % in Python, 24 % in the system (sockets, and the log's file), 6 % in the forest, 4 % in
copies and memory, 3 % in the event loop; beside it on the same core, 8 % for moving the log into the lake, and 3 % for
the keeper of releases. A hello on a Protocol costs a quarter of an answer, nearly all of it the system's: it is by what
Python takes that the goals against that hello, kserve and mlflow are missed where they are."""


@dataclass(frozen=True)
class Figures:
    """Rows with goals, and a row a server and model, by name; each says when it was measured, and of which commit."""

    goals: Mapping[str, Mapping[str, Any]]
    servers: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, file: Path = FILE) -> Figures:
        """Those that were kept; none where there is no file."""
        return cls(**json.loads(file.read_text())) if file.exists() else cls({}, {})

    def over(self, before: Figures) -> Figures:
        """These, and those of before that were not measured again."""
        return Figures({**before.goals, **self.goals}, {**before.servers, **self.servers})

    def keep(self, file: Path = FILE) -> None:
        page.replace(file, json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    def text(self) -> str:
        """Markdown: the goals, then a table a model, as wide as its loads."""
        parts = [_NOTE, page.table(list(self.goals.values())), _WHERE]
        for model, title in TITLES.items():
            rows = [each for each in self.servers.values() if each["model"] == model]
            if rows:
                rows.sort(key=lambda each: (each["server"] != NAME, -_rate(each)))
                parts.append("\n".join([f"### {title}", "", _ABOUT[model], "", *_table(rows)]))
        return "\n\n".join(parts)


def of(found: Sequence[Measured], goals: Sequence[Mapping[str, Any]], *, quick: bool) -> Figures:
    """The figures of a run, dated."""
    stamp = page.stamp() + (", quick" if quick else "")
    return Figures(
        {each["name"]: {**each, "measured": stamp} for each in goals},
        {f"{each.server} on {each.model}": {**_plain(each), "measured": stamp} for each in found},
    )


def _plain(measured: Measured) -> dict[str, Any]:
    windows = {f"{at.rows}x{at.connections}": asdict(window) for at, window in measured.windows.items()}
    fields = ("server", "model", "ready", "memory", "reason")
    return {**{name: getattr(measured, name) for name in fields}, "windows": windows}


def _window(row: Mapping[str, Any], at: Load) -> Mapping[str, float] | None:
    found: Mapping[str, float] | None = row["windows"].get(f"{at.rows}x{at.connections}")
    return found


def _rate(row: Mapping[str, Any]) -> float:
    window = _window(row, Load(1, CONNECTIONS[-1]))
    return window["requests"] if window else 0.0


def _table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield f"| {' | '.join(_HEAD)} |"
    yield f"|---|{'---:|' * (len(_HEAD) - 2)}---|"
    notes = []
    for row in rows:
        busy = _window(row, Load(1, CONNECTIONS[-1]))
        cells = [row["server"]]
        cells += [_requests(_window(row, at)) for at in EVERY]
        cells += [_latency(_window(row, Load(1, each))) for each in (1, CONNECTIONS[-1])]
        cells += [f"{busy['cpu']:,.0f}" if busy else "", f"{row['memory']:,.0f}" if row["memory"] else ""]
        cells += [f"{row['ready']:.1f}" if row["ready"] else "", row["measured"]]
        yield f"| {' | '.join(cells)} |"
        if row["reason"]:
            notes.append(f"{row['server']}: {row['reason']}")
        if any(each["client"] > 0.95 for each in row["windows"].values()):
            notes.append(f"{row['server']}: wrk was busy all the time.")
    for each in notes:
        yield ""
        yield each


def _requests(window: Mapping[str, float] | None) -> str:
    return f"{window['requests']:,.0f}{_mark(window)}" if window else ""


def _latency(window: Mapping[str, float] | None) -> str:
    return f"{window['p50'] / 1000:,.3g} / {window['p99'] / 1000:,.3g}{_mark(window)}" if window else ""


def _mark(window: Mapping[str, float]) -> str:
    return r"\*" if window["foreign"] > CALM else ""
