"""The `model.py` that Triton's Python backend runs; copied into its model repository beside `scoring.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from scoring import Scorer


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        self.inputs = [each["name"] for each in config["input"]]
        self.scorer = Scorer(Path(config["parameters"]["model"]["string_value"]))

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        tensors = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
        if self.scorer.matrix:
            found = self.scorer.rows(tensors[self.inputs[0]])
        else:
            found = self.scorer.columns({name: _plain(values) for name, values in tensors.items()})
        return pb_utils.InferenceResponse([pb_utils.Tensor("probability", np.asarray(found, dtype=np.float64))])


def _plain(values: Any) -> Any:
    return [each.decode() for each in values] if values.dtype == np.object_ else values
