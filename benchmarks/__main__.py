"""`python -m benchmarks`: run every benchmark and write `benchmarks/RESULTS.md`.

`python -m benchmarks online walk` runs some, and prints what they show; with `--write` it replaces their sections in
the results, each of which says when and at which commit it was measured. `inference` alone takes options of its own.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import feature_store, growth, grpc_wire, online, serving, training_set, walk
from benchmarks.inference import run as inference

BENCHMARKS = {
    "training_set": training_set,
    "feature_store": feature_store,
    "online": online,
    "growth": growth,
    "walk": walk,
    "serving": serving,
    "inference": inference,
    "grpc": grpc_wire,
}
RESULTS = Path(__file__).with_name("RESULTS.md")
HEAD = """# Results

Made by `make bench`. Ratios are of runs in one go on one machine; absolute times are of that machine alone. Each
section says when it was measured, and at which commit.
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(BENCHMARKS)}; without any, all of them")
    parser.add_argument("--only", default="", help="servers of inference, such as Millpond,Triton")
    parser.add_argument("--quick", action="store_true", help="inference with short windows: does it run at all?")
    parser.add_argument("--write", action="store_true", help="replace the sections of these benchmarks in the results")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in BENCHMARKS]:
        parser.error(f"there is no {', '.join(unknown)}")
    options = {"only": [name for name in arguments.only.split(",") if name], "quick": arguments.quick}
    for name in arguments.names or BENCHMARKS:
        print(f"running {name} ...", file=sys.stderr, flush=True)
        rows = inference.run(**options) if name == "inference" else BENCHMARKS[name].run()
        text = section(name, rows)
        print(text)
        if arguments.write or not sys.argv[1:]:
            write(name, text)


def write(name: str, text: str) -> None:
    """Put a section into the results, in place of the one of that name."""
    parts = re.split(r"^(?=## )", RESULTS.read_text(encoding="utf-8"), flags=re.MULTILINE) if RESULTS.exists() else []
    found = {part.splitlines()[0].removeprefix("## "): part for part in parts if part.startswith("## ")}
    found[name] = text
    sections = [found[each].rstrip() + "\n" for each in BENCHMARKS if each in found]
    RESULTS.write_text("\n".join([HEAD, *sections]), encoding="utf-8")


def section(name: str, rows: list[dict[str, Any]]) -> str:
    lines = [
        f"## {name}",
        "",
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} processors ({processor()}), "
        f"Python {platform.python_version()}, commit {commit()}.",
        "",
        "| what | value | goal | reached | note |",
        "|---|---:|---:|---|---|",
    ]
    for row in rows:
        goal = "" if row["goal"] is None else f"{'≤' if row.get('at_most', True) else '≥'} {row['goal']:g}"
        value = "" if row["value"] is None else f"{number(row['value'])} {row['unit']}"
        lines.append(f"| {row['name']} | {value} | {goal} | {verdict(row)} | {row['note'].replace('|', '/')} |")
    return "\n".join(lines) + "\n"


def verdict(row: dict[str, Any]) -> str:
    if row["goal"] is None:
        return ""
    if row["value"] is None:
        return "not measured"
    reached = row["value"] <= row["goal"] if row.get("at_most", True) else row["value"] >= row["goal"]
    return "yes" if reached else "**no**"


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 0.01 else f"{value:.2f}"


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False).stdout.strip()

    changed = " with uncommitted changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    return (git("rev-parse", "--short=12", "HEAD") or "none") + changed


if __name__ == "__main__":
    main()
