"""Metadata documents of the Open Inference Protocol: what a server and a model say of themselves."""

from __future__ import annotations

from typing import Any

from millpond.serving.ports import RequestColumn, ServedModel
from millpond.serving.tensors import DATATYPE_OF


def server_metadata(version: str) -> dict[str, Any]:
    """The answer to GET /v2."""
    return {"name": "millpond", "version": version, "extensions": []}


def output_tensors(served: ServedModel) -> list[dict[str, Any]]:
    """The outputs of a model, in order, as metadata tensors; `as_of` is ISO 8601 text."""
    if served.task == "classification":
        outputs = [("prediction_id", "BYTES"), ("probability", "FP64"), ("answer", "BOOL"), ("as_of", "BYTES")]
    else:
        outputs = [("prediction_id", "BYTES"), ("prediction", "FP64"), ("as_of", "BYTES")]
    return [{"name": name, "datatype": datatype, "shape": [-1]} for name, datatype in outputs]


def model_metadata(served: ServedModel) -> dict[str, Any]:
    """The answer to GET /v2/models/{model}; `parameters` hold what the protocol has no field for."""
    parameters: dict[str, Any] = {"task": served.task}
    if served.threshold is not None:
        parameters["threshold"] = served.threshold
    if served.at is not None:
        parameters["at"] = served.at
    return {
        "name": served.model,
        "versions": [str(served.version)],
        "platform": "millpond",
        "inputs": [_input_tensor(column, served) for column in served.columns],
        "outputs": output_tensors(served),
        "parameters": parameters,
    }


def _input_tensor(column: RequestColumn, served: ServedModel) -> dict[str, Any]:
    parameters: dict[str, Any] = {"role": column.role, "type": column.type, "required": column.required}
    if column.name == served.at:
        parameters["at"] = True
    return {"name": column.name, "datatype": DATATYPE_OF[column.type], "shape": [-1], "parameters": parameters}
