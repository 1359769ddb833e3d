from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import schemathesis

from millpond.core.errors import MillpondError, RequestError
from millpond.server.openapi_inference import openapi_paths, openapi_schemas
from millpond.serving.ports import Answer, Explanation, ModelState, OutputWanted, RequestColumn, ServedModel
from millpond.serving.protocol import (
    error_body,
    format_infer,
    format_records,
    model_metadata,
    parse_infer,
    parse_records,
    repository_index,
    server_metadata,
)

SERVED = ServedModel(
    "m",
    1,
    "classification",
    0.5,
    tuple(RequestColumn(name, "float64", False, "input") for name in "ab"),
    None,
    dict.fromkeys("ab", "float64"),
)
DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "Millpond", "version": "1"},
    "paths": openapi_paths(),
    "components": {"schemas": openapi_schemas()},
}


def validator(name: str) -> Any:
    import jsonschema_rs

    return jsonschema_rs.Draft202012Validator({**DOCUMENT, "$ref": f"#/components/schemas/{name}"})


def test_the_document_is_openapi() -> None:
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    schema.validate()
    operations = [each.ok() for each in schema.get_all_operations()]
    assert len(operations) == sum(len(methods) for methods in openapi_paths().values()) == 14
    names = [each.definition.raw["operationId"] for each in operations]
    assert len(set(names)) == len(names)


def test_every_path_parameter_is_described() -> None:
    for path, methods in openapi_paths().items():
        for operation in methods.values():
            named = {each["name"] for each in operation.get("parameters", []) if each["in"] == "path"}
            assert named == {part[1:-1] for part in path.split("/") if part.startswith("{")}
            assert {"401", "500", "503"} <= set(operation["responses"])


@pytest.mark.parametrize("binary", [False, True])
def test_what_we_write_is_what_is_described(binary: bool) -> None:
    content = b'{"id":"r","inputs":[{"name":"x","shape":[2,2],"datatype":"FP64","data":[[1,null],[2,3]]}]}'
    assert validator("InferRequest").is_valid(json.loads(content))
    request = parse_infer(content, SERVED)
    wanted = tuple(OutputWanted(each.name, binary) for each in request.outputs)
    explanation = Explanation(0.5, np.ones((2, 2)), "log-odds") if binary else None
    answer = Answer(SERVED, "live", ["a", "b"], {"output": [0.1, 0.9]}, [False, True], [0, 1], None, explanation)
    response = json.loads(format_infer(request._replace(outputs=wanted), answer)[0])
    assert validator("InferResponse").is_valid(response)


@pytest.mark.parametrize("task", ["classification", "regression", "other"])
def test_records_are_as_described(task: str) -> None:
    content = b'{"id":"r","as_of":null,"explain":true,"routing_key":"k","rows":[{"a":1.5},{"b":null}]}'
    assert validator("RecordsRequest").is_valid(json.loads(content))
    assert not validator("RecordsRequest").is_valid({"rows": []})
    assert not validator("RecordsRequest").is_valid({"rows": [{"a": 1}], "asof": None})
    served = replace(SERVED, task=task, threshold=0.5 if task == "classification" else None)
    request = parse_records(content, served)
    explanation = Explanation(0.5, np.ones((2, 2)), "log-odds")
    answers = [False, True] if task == "classification" else None
    answer = Answer(served, "live", ["a", "b"], {"output": [0.1, 0.9]}, answers, [0, 1], None, explanation)
    assert validator("RecordsResponse").is_valid(json.loads(format_records(request, answer)))


def test_documents_are_as_described() -> None:
    assert validator("Server").is_valid(server_metadata("1"))
    assert validator("Model").is_valid(model_metadata(SERVED))
    assert validator("ModelState").is_valid(repository_index([ModelState("m", "1", "READY")])[0])
    for error in (RequestError("x"), MillpondError("y"), ValueError("z")):
        assert validator("InferenceError").is_valid(json.loads(error_body(error, id="e_1")))
    assert not validator("InferenceError").is_valid({"what": "no error field"})
    assert not validator("InferRequest").is_valid({"inputs": []})
