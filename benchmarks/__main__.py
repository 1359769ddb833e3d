"""`python -m benchmarks`: run every benchmark and write `benchmarks/RESULTS.md`.

`python -m benchmarks online walk` runs some, and prints what they show; with `--write` it replaces their sections in
the results, each of which says when and at which commit it was measured. `inference` alone takes options of its own.
A benchmark that fails keeps its former section, and none of the others from being measured.
"""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
from typing import Any

from benchmarks import feature_store, growth, grpc_wire, online, page, serving, training_set, walk
from benchmarks.inference import run as inference
from benchmarks.inference.figures import Figures

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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(BENCHMARKS)}; without any, all of them")
    parser.add_argument("--only", default="", help="servers of inference, such as Millpond,Triton")
    parser.add_argument("--quick", action="store_true", help="inference with one window a load: does it run at all?")
    parser.add_argument("--write", action="store_true", help="replace the sections of these benchmarks in the results")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in BENCHMARKS]:
        parser.error(f"there is no {', '.join(unknown)}")
    write = arguments.write or not sys.argv[1:]
    options = {"only": [name for name in arguments.only.split(",") if name], "quick": arguments.quick}
    if write:
        options["keep"] = lambda figures: figures.over(Figures.read()).keep()
    signal.signal(signal.SIGTERM, terminated)
    failed = []
    for name in arguments.names or BENCHMARKS:
        print(f"running {name} ...", file=sys.stderr, flush=True)
        try:
            one(name, options if name == "inference" else {}, write=write)
        except (Exception, SystemExit) as reason:
            traceback.print_exception(reason)
            failed.append(name)
    if failed:
        raise SystemExit(f"not measured: {', '.join(failed)}")


def one(name: str, options: dict[str, Any], *, write: bool) -> None:
    """Run a benchmark, print its section, and put it into the results."""
    found = BENCHMARKS[name].run(**options)
    if isinstance(found, Figures):
        everything = found.over(Figures.read())
        if write:
            everything.keep()
        body = (everything if write else found).text()
    else:
        body = page.table(found)
    text = page.section(name, body)
    print(text)
    if write:
        page.write(name, text, BENCHMARKS)


def terminated(*_: object) -> None:
    """As Ctrl-C does: servers are ended on the way out, and no failure of a server is read into it."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
