"""`python -m benchmarks`: run every benchmark and write `benchmarks/RESULTS.md`.

`python -m benchmarks online walk` runs some, and prints what they show; `inference` alone takes options of its own.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import feature_store, growth, online, serving, training_set, walk
from benchmarks.inference import run as inference

BENCHMARKS = {
    "training_set": training_set,
    "feature_store": feature_store,
    "online": online,
    "growth": growth,
    "walk": walk,
    "serving": serving,
    "inference": inference,
}
RESULTS = Path(__file__).with_name("RESULTS.md")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS], help="without any, all of them", metavar="NAME")
    parser.add_argument("--only", default="", help="servers of inference, such as Millpond,Triton")
    parser.add_argument("--quick", action="store_true", help="inference with short windows: does it run at all?")
    arguments = parser.parse_args()
    options = {"only": [name for name in arguments.only.split(",") if name], "quick": arguments.quick}
    rows: list[dict[str, Any]] = []
    for name in arguments.names or BENCHMARKS:
        print(f"running {name} ...", file=sys.stderr, flush=True)
        rows += inference.run(**options) if name == "inference" else BENCHMARKS[name].run()
    text = page(rows)
    print(text)
    if not sys.argv[1:]:
        RESULTS.write_text(text, encoding="utf-8")


def page(rows: list[dict[str, Any]]) -> str:
    lines = [
        "# Results",
        "",
        "Made by `make bench`. Ratios are of runs in one go on one machine; absolute times are of that machine alone.",
        "",
        f"- when: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"- machine: {os.cpu_count()} processors ({processor()}), Python {platform.python_version()}",
        f"- commit: {commit()}",
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
