"""The `model.py` that Triton's Python backend runs; copied into its model repository beside `scoring.py`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = os.environ["PYTHONPATH"].split(os.pathsep)  # the backend's interpreter does not look at it

import numpy as np  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402
from scoring import Scorer  # noqa: E402


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        self.inputs = [each["name"] for each in config["input"]]
        self.scorer = Scorer(Path(config["parameters"]["model"]["string_value"]))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Score the requests that Triton's dynamic batching hands over in one call of the model."""
        counts, parts = [], []
        for request in requests:
            tensors = [pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs]
            counts.append(len(tensors[0]))
            parts.append(tensors)
        joined = parts[0] if len(parts) == 1 else [np.concatenate(each) for each in zip(*parts, strict=True)]
        if self.scorer.matrix:
            found = self.scorer.rows(joined[0])
        else:
            found = self.scorer.columns({name: _plain(each) for name, each in zip(self.inputs, joined, strict=True)})
        answers = np.split(found.reshape(-1, 1), np.cumsum(counts)[:-1])
        return [pb_utils.InferenceResponse([pb_utils.Tensor("probability", each)]) for each in answers]


def _plain(values: Any) -> Any:
    flat = values.reshape(-1)
    return [each.decode() for each in flat] if flat.dtype == np.object_ else flat
