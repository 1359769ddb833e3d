"""BentoML: the service that `bentoml serve benchmarks.inference.peers.bentoml_service:Answers` runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import bentoml

from benchmarks.inference.peers.scoring import Scorer


@bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Answers:
    def __init__(self) -> None:
        self.scorer = Scorer(Path(os.environ["BENCHMARK_MODEL"]))

    @bentoml.api
    def predict(self, document: dict[str, Any]) -> dict[str, Any]:
        return {"predictions": self.scorer.document(document)}
