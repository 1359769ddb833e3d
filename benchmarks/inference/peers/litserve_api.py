"""LitServe. `python -m benchmarks.inference.peers.litserve_api MODEL PORT`"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import litserve

from benchmarks.inference.peers.scoring import Scorer


class Answers(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002 - its signature
        self.scorer = Scorer(Path(sys.argv[1]))

    def predict(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"predictions": self.scorer.document(request)}


if __name__ == "__main__":
    server = litserve.LitServer(Answers(), accelerator="cpu", workers_per_device=1)
    server.run(port=int(sys.argv[2]), host="127.0.0.1", generate_client_file=False, log_level="warning")
