"""Ray Serve. `python -m benchmarks.inference.peers.ray_deployment MODEL PORT`"""

from __future__ import annotations

import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from benchmarks.inference.peers.scoring import Scorer


@serve.deployment(num_replicas=1, max_ongoing_requests=128, ray_actor_options={"num_cpus": 0})
class Answers:
    def __init__(self, model: str) -> None:
        self.scorer = Scorer(Path(model))

    async def __call__(self, request: Request) -> dict[str, Any]:
        return {"predictions": self.scorer.document(await request.json())}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        environment = {"env_vars": {"PYTHONPATH": str(Path.cwd())}}
        ray.init(include_dashboard=False, num_cpus=1, log_to_driver=False, _temp_dir=folder, runtime_env=environment)
        serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])}, proxy_location="HeadOnly")
        serve.run(Answers.bind(sys.argv[1]), route_prefix="/predict")
        threading.Event().wait()
