"""The walk on the flights, ingest to registered version, against the same steps by bare library calls.

Each way runs whole in fresh processes, in turn; the ratio is of the medians. Millpond's way is `millpond ingest` and
`millpond train`, as a person types them: two interpreters, keys and checks verified, snapshots pinned. The bare way is
one script, `walk_bare.py`.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
REPEATS = 3


def run() -> list[dict[str, Any]]:
    """Measure both ways, alternating."""
    taken: dict[str, list[dict[str, float]]] = {"millpond": [], "bare": []}
    worth: dict[str, float] = {}
    for _ in range(REPEATS):
        for way, seen in taken.items():
            with tempfile.TemporaryDirectory() as name:
                measured, worth[way] = (by_millpond if way == "millpond" else by_hand)(Path(name))
                seen.append(measured)
    middle = {
        way: {figure: statistics.median(one[figure] for one in seen) for figure in ("seconds", "cpu", "MiB", "rest")}
        for way, seen in taken.items()
    }
    ours, bare = middle["millpond"], middle["bare"]
    return [
        {
            "name": "the walk: time",
            "value": ours["seconds"] / bare["seconds"],
            "goal": 1.2,
            "unit": "x bare library calls",
            "note": f"{ours['seconds']:.1f} s, bare {bare['seconds']:.1f} s; medians of {REPEATS}",
        },
        {
            "name": "the walk without the training set: time",
            "value": ours["rest"] / bare["rest"],
            "goal": 1.2,
            "unit": "x bare library calls",
            "note": f"{ours['rest']:.1f} s, bare {bare['rest']:.1f} s: the bare script joins features by window "
            "frames, as most would; with the best form by hand the two would be this far apart",
        },
        {
            "name": "the walk: processor time",
            "value": ours["cpu"] / bare["cpu"],
            "goal": 1.2,
            "unit": "x bare library calls",
            "note": f"{ours['cpu']:.1f} s, bare {bare['cpu']:.1f} s",
        },
        {
            "name": "the walk: memory",
            "value": ours["MiB"] / bare["MiB"],
            "goal": None,
            "unit": "x bare library calls",
            "note": f"largest process {ours['MiB']:.0f} MiB, bare {bare['MiB']:.0f} MiB",
        },
        {
            "name": "the walk: what the model is worth",
            "value": worth["millpond"] - worth["bare"],
            "goal": None,
            "unit": "ROC AUC apart",
            "note": f"{worth['millpond']:.4f}, bare {worth['bare']:.4f}: the two train the same model",
        },
    ]


def by_millpond(folder: Path) -> tuple[dict[str, float], float]:
    for name in ("millpond.toml", "definitions.py", "sources.py", "flights.sql"):
        shutil.copy(ROOT / "examples" / "flights" / name, folder)
    command = [str(Path(sys.executable).with_name("millpond")), "--project", str(folder)]
    measured, output, told = timed([*command, "ingest"], [*command, "train", "--json"])
    joined = re.search(r"training set late_arrival +([0-9.]+) s", told)
    assert joined is not None, told
    measured["rest"] = measured["seconds"] - float(joined[1])
    return measured, json.loads(output)[0]["metrics"]["test.roc_auc"]


def by_hand(folder: Path) -> tuple[dict[str, float], float]:
    measured, output, _ = timed([sys.executable, "-m", "benchmarks.walk_bare", str(folder)])
    found = json.loads(output.splitlines()[-1])
    measured["rest"] = measured["seconds"] - found["seconds"]["training set"]
    return measured, found["roc_auc"]


def timed(*commands: list[str]) -> tuple[dict[str, float], str, str]:
    """Run commands one after another: wall and processor seconds of all, children included, and the largest's MiB;
    then what the last one said on stdout, and on stderr.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    largest = 0
    output = told = ""
    for command in commands:
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT, start_new_session=True
            )
            assert process.stdout is not None
            try:
                output = process.stdout.read()
            except KeyboardInterrupt:
                os.killpg(process.pid, signal.SIGKILL)
                raise
            errors.seek(0)
            told = errors.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed with {process.returncode}")
        largest = max(largest, usage.ru_maxrss)
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "cpu": cpu, "MiB": largest / 1024}, output, told


if __name__ == "__main__":
    for row in run():
        print(f"{row['name']:36} {row['value']:10.2f} {row['unit']:22} goal {row['goal']}  {row['note']}")
