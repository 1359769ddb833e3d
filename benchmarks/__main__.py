"""`python -m benchmarks`: run every benchmark and write `benchmarks/RESULTS.md`."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import feature_store, growth, online, serving, training_set, walk

BENCHMARKS = {
    "training_set": training_set,
    "feature_store": feature_store,
    "online": online,
    "growth": growth,
    "walk": walk,
    "serving": serving,
}
RESULTS = Path(__file__).with_name("RESULTS.md")


def main() -> None:
    wanted = sys.argv[1:] or list(BENCHMARKS)
    rows: list[dict[str, Any]] = []
    for name in wanted:
        print(f"running {name} ...", file=sys.stderr, flush=True)
        rows += BENCHMARKS[name].run()
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
        lines.append(
            f"| {row['name']} | {number(row['value'])} {row['unit']} | {goal} | {verdict(row)} | {row['note']} |"
        )
    return "\n".join(lines) + "\n"


def verdict(row: dict[str, Any]) -> str:
    if row["goal"] is None:
        return ""
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
