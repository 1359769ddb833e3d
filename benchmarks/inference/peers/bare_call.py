"""The bare call of a scikit-learn pipeline, without a server.

`python -m benchmarks.inference.peers.bare_call MODEL CASE` reads a number of seconds from each line of its input, calls
`predict_proba` with one frame of the case's rows for so long, and prints how many calls a second that were.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from benchmarks.inference.peers.scoring import Scorer


def main(model: Path, case: Path) -> None:
    import pandas as pd

    told = json.loads(case.read_text())
    frame = pd.DataFrame(told["rows"], columns=list(told["types"])).astype({"member": float})
    pipeline = Scorer(model).pipeline
    pipeline.predict_proba(frame)
    for line in sys.stdin:
        began, calls, took = time.perf_counter(), 0, 0.0
        while took < float(line):
            pipeline.predict_proba(frame)
            calls += 1
            took = time.perf_counter() - began
        print(calls / took, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
