"""`benchmarks/RESULTS.md`: a section a benchmark, each with when it was measured, and of which commit."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("RESULTS.md")
HEAD = """# Results

Made by `make bench`. Ratios are of runs in one go on one machine; absolute times are of that machine alone. Each
section says when it was measured, and at which commit.
"""


def write(name: str, text: str, order: Iterable[str]) -> None:
    """Put a section into the results, in place of the one of that name."""
    parts = re.split(r"^(?=## )", RESULTS.read_text(encoding="utf-8"), flags=re.MULTILINE) if RESULTS.exists() else []
    found = {part.splitlines()[0].removeprefix("## "): part for part in parts if part.startswith("## ")}
    found[name] = text
    replace(RESULTS, "\n".join([HEAD, *(found[each].rstrip() + "\n" for each in order if each in found)]))


def replace(file: Path, text: str) -> None:
    """Write a file whole, or leave the one that was there."""
    beside = file.with_name(f".{file.name}.new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(file)


def section(name: str, body: str) -> str:
    about = f"{os.cpu_count()} processors ({processor()}), Python {platform.python_version()}"
    return f"## {name}\n\n{stamp()}, {about}.\n\n{body}\n"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with `name`, `value`, `goal`, `unit`, `note`; `at_most` says which way the goal is. Some are `measured`."""
    dated = any("measured" in row for row in rows)
    lines = [
        f"| what | value | goal | reached | note |{' measured |' * dated}",
        f"|---|---:|---:|---|---|{'---|' * dated}",
    ]
    for row in rows:
        goal = "" if row["goal"] is None else f"{'≤' if row.get('at_most', True) else '≥'} {row['goal']:g}"
        value = "" if row["value"] is None else f"{number(row['value'])} {row['unit']}"
        cells = [row["name"], value, goal, verdict(row), row["note"].replace("|", "/")]
        lines.append(f"| {' | '.join([*cells, row['measured']] if dated else cells)} |")
    return "\n".join(lines)


def verdict(row: Mapping[str, Any]) -> str:
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


def stamp() -> str:
    """The minute, and the commit."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False).stdout.strip()

    outside = ["--", ":/", f":(exclude,top){RESULTS.parent.name}/RESULTS.md", ":(exclude,top)*figures.json"]
    changed = " with changes" if git("status", "--porcelain", "--untracked-files=no", *outside) else ""
    commit = git("rev-parse", "--short=12", "HEAD") or "no commit"
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {commit}{changed}"
