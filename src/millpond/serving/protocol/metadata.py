"""Documents of the Open Inference Protocol: what a server and a model say of themselves, and the model repository."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from millpond.core.errors import RequestError
from millpond.serving.ports import ModelState, RequestColumn, ServedModel
from millpond.serving.protocol.datatypes import DATATYPE_OF
from millpond.serving.protocol.documents import load_json
from millpond.serving.protocol.signature import OutputSpec, Signature, output_specs, signature_of
from millpond.serving.protocol.values import json_name, shown

#: Extensions of the protocol that are answered, by the names that it gives them.
EXTENSIONS = ("binary_tensor_data", "model_repository", "parameters")

#: Name of the one tensor of a model without column names; requests may use any other.
MATRIX = "input"


def server_metadata(version: str, extensions: Sequence[str] = EXTENSIONS) -> dict[str, Any]:
    """The answer to GET /v2 of a server that answers `extensions`."""
    return {"name": "millpond", "version": version, "extensions": list(extensions)}


def output_tensors(served: ServedModel) -> list[dict[str, Any]]:
    """The outputs of a model, in order, as metadata tensors; `as_of` is ISO 8601 text."""
    return [_output_tensor(spec) for spec in output_specs(served)]


def model_metadata(served: ServedModel) -> dict[str, Any]:
    """The answer to GET /v2/models/{model}; `parameters` hold what the protocol has no field for.

    `inputs` are the request columns, or the one matrix of a model without column names. Where features stand between
    them and the model, `parameters.raw_inputs` are the inputs that may be sent instead, in the order of a matrix.
    """
    signature = signature_of(served)
    parameters: dict[str, Any] = {"task": served.task}
    if served.threshold is not None:
        parameters["threshold"] = served.threshold
    if served.at is not None:
        parameters["at"] = served.at
    inputs = [_matrix_tensor(signature)] if served.matrix else [_input_tensor(each, served) for each in served.columns]
    if not served.matrix and not signature.same:
        parameters["raw_inputs"] = [
            {"name": name, "datatype": DATATYPE_OF[kind], "shape": [-1]} for name, kind in served.inputs.items()
        ]
    return {
        "name": served.model,
        "versions": [str(served.version)],
        "platform": "millpond",
        "inputs": inputs,
        "outputs": output_tensors(served),
        "parameters": parameters,
    }


def repository_index(states: Sequence[ModelState], *, ready: bool = False) -> list[dict[str, str]]:
    """The answer to POST /v2/repository/index; only what is ready where `ready`."""
    return [
        {"name": each.name, "version": each.version, "state": each.state, "reason": each.reason}
        for each in states
        if not ready or each.state == "READY"
    ]


def parse_index(body: bytes) -> bool:
    """Whether a request for the index, whose body may be empty, asks only for what is ready.

    Raises:
        RequestError: The body is no such request.
    """
    place = "/v2/repository/index"
    document = load_json(body, place) if body.strip() else {}
    if not isinstance(document, dict):
        what = f"the body is a JSON {json_name(document)}, expected an object"
        raise RequestError(what, where=place, hint='{"ready": true}')
    ready = document.get("ready")
    if ready is not None and not isinstance(ready, bool):
        raise RequestError(f"ready is {shown(ready)}, expected true or false", where=place, hint='{"ready": true}')
    return bool(ready)


def _matrix_tensor(signature: Signature) -> dict[str, Any]:
    kinds = {column.type for column in signature.raws.values()}
    datatype = DATATYPE_OF[kinds.pop()] if len(kinds) == 1 else "FP64"
    return {"name": MATRIX, "datatype": datatype, "shape": [-1, signature.width]}


def _input_tensor(column: RequestColumn, served: ServedModel) -> dict[str, Any]:
    parameters: dict[str, Any] = {"role": column.role, "type": column.type, "required": column.required}
    if column.name == served.at:
        parameters["at"] = True
    return {"name": column.name, "datatype": DATATYPE_OF[column.type], "shape": [-1], "parameters": parameters}


def _output_tensor(spec: OutputSpec) -> dict[str, Any]:
    shape = [-1, spec.width] if spec.width else [-1]
    return {"name": spec.name, "datatype": spec.datatype, "shape": shape}
