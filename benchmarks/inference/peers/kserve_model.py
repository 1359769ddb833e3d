"""kserve's model server. `python -m benchmarks.inference.peers.kserve_model MODEL PORT`"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import kserve
from kserve import InferOutput, InferRequest, InferResponse
from kserve.utils.utils import generate_uuid

from benchmarks.inference.peers.scoring import Scorer


class Answers(kserve.Model):
    def __init__(self, folder: Path) -> None:
        super().__init__("model")
        self.scorer = Scorer(folder)
        self.ready = True

    def predict(self, payload: InferRequest, *_: Any, **__: Any) -> InferResponse:
        if self.scorer.matrix:
            found = self.scorer.rows(payload.inputs[0].as_numpy())
        else:
            found = self.scorer.columns({each.name: _plain(each) for each in payload.inputs})
        output = InferOutput(name="probability", shape=[len(found)], datatype="FP64", data=found.tolist())
        return InferResponse(payload.id or generate_uuid(), self.name, [output])


def _plain(tensor: Any) -> Any:
    return tensor.data if tensor.datatype == "BYTES" else tensor.as_numpy().reshape(-1)


if __name__ == "__main__":
    kserve.ModelServer(
        http_port=int(sys.argv[2]), enable_grpc=False, enable_docs_url=False, access_log_format=None, workers=1
    ).start([Answers(Path(sys.argv[1]))])
