"""The OpenAPI 3.1 description of `/v2`: the Open Inference Protocol, version 2, over REST.

`openapi_paths` refers to `openapi_schemas` as `#/components/schemas/...`.
"""

from __future__ import annotations

from typing import Any

from millpond.serving.protocol.datatypes import DATATYPES

#: Statuses of errors: of every route, and of those that ask something of a model.
_ALWAYS = {
    "401": "No identity, or an invalid token",
    "403": "The identity may not do this",
    "500": "An error inside; the body names the id under which the log has it",
    "503": "Not ready, or too many requests wait; ask again after Retry-After seconds",
}
_OF_MODELS = {**_ALWAYS, "404": "There is no such model or version"}
_OF_BODIES = {
    "400": "The request does not fit the model; the body names the input, what was expected and what was found",
    "408": "The body did not arrive in time",
    "413": "The body, or the number of rows, is over the limit",
    "429": "Too many requests wait already",
    "504": "There was no answer within the time that was given",
}
_MODEL = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
_VERSION = {
    "name": "version",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1},
    "description": "A version's number",
}
_JSON_LENGTH = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "required": False,
    "schema": {"type": "integer", "minimum": 0},
    "description": "How many bytes of the body are JSON, where binary tensor data follows it",
}


#: What a request may say beside its rows.
_OPTIONS: dict[str, dict[str, Any]] = {
    "as_of": {"type": "string", "format": "date-time", "description": "Instant of the features of all rows"},
    "explain": {"type": "boolean", "description": "Whether contributions of the inputs are asked for"},
    "routing_key": {"type": "string", "description": "Requests with the same key go to the same version"},
}


def openapi_paths() -> dict[str, Any]:
    """The paths of `/v2`."""
    paths = {
        "/v2": {"get": _get("server", "What the server is", _reference("Server"), _ALWAYS)},
        "/v2/health/live": {"get": _get("live", "Whether the server runs", _flag("live"), _ALWAYS)},
        "/v2/health/ready": {"get": _get("ready", "Whether all models answer", _flag("ready"), _ALWAYS)},
        "/v2/repository/index": {"post": _index()},
    }
    for verb, text in (("load", "Let a model answer again"), ("unload", "Stop answering for a model")):
        paths[f"/v2/repository/models/{{model}}/{verb}"] = {"post": _move(verb, text)}
    for suffix, base, where in (
        ("", "/v2/models/{model}", [_MODEL]),
        ("_version", "/v2/models/{model}/versions/{version}", [_MODEL, _VERSION]),
    ):
        model = _get(f"model{suffix}", "What a model takes and gives", _reference("Model"), _OF_MODELS)
        ready = _get(f"model{suffix}_ready", "Whether a model answers", _reference("ModelReady"), _OF_MODELS)
        paths[base] = {"get": {**model, "parameters": where}}
        paths[f"{base}/ready"] = {"get": {**ready, "parameters": where}}
        paths[f"{base}/infer"] = {"post": {**_infer(f"model{suffix}_infer"), "parameters": [*where, _JSON_LENGTH]}}
        paths[f"{base}/predict"] = {"post": {**records_operation(f"model{suffix}_predict"), "parameters": where}}
    return paths


def records_operation(name: str) -> dict[str, Any]:
    """Asking a model with rows as records; it refers to `records_schemas`."""
    answered = _reference("RecordsResponse")
    operation = _answers(name, "Predict rows that are plain records", answered, {**_OF_MODELS, **_OF_BODIES})
    operation["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": _reference("RecordsRequest")}},
    }
    return {**operation, "parameters": [_MODEL]}


def records_schemas() -> dict[str, Any]:
    """The schemas that `records_operation` refers to, by name."""
    prediction = {
        "id": {"type": "string", "description": "Leads to the receipt"},
        "probability": {"type": "number"},
        "answer": {"type": "boolean"},
        "prediction": {"type": "number"},
        "outputs": {"type": "object", "description": "By name, of a model that was registered"},
        "as_of": {"type": "string", "format": "date-time", "description": "Instant of the row's features"},
        "contributions": {"type": "object", "additionalProperties": {"type": "number"}},
        "base": {"type": "number", "description": "With the contributions, the output in their unit"},
    }
    return {
        "InferenceError": _ERROR,
        "RecordsRequest": _object(
            {
                "rows": {
                    **_array({"anyOf": [_free(), {"type": "array", "description": "Of a model without column names"}]}),
                    "minItems": 1,
                    "description": "Request columns, or raw model inputs, by name; what is absent is null",
                },
                "id": _or_null({"type": "string", "description": "The caller's own name for the request"}),
                **{name: _or_null(each) for name, each in _OPTIONS.items()},
            },
            required=["rows"],
        )
        | {"additionalProperties": False},
        "RecordsResponse": _object(
            {
                "model": {"type": "string"},
                "version": {"type": "integer"},
                "variant": {"type": "string"},
                "id": {"type": "string"},
                "as_of": {"type": "string", "format": "date-time"},
                "features_synced_at": {"type": "string", "format": "date-time"},
                "contributions_unit": {"type": "string", "enum": ["log-odds", "probability", "output"]},
                "predictions": _array(_object(prediction, required=["id", "as_of"])),
            },
            required=["model", "version", "variant", "predictions"],
        ),
    }


def openapi_schemas() -> dict[str, Any]:
    """The schemas that `openapi_paths` refers to, by name."""
    return {
        **records_schemas(),
        "Server": _object(
            {"name": {"type": "string"}, "version": {"type": "string"}, "extensions": _array({"type": "string"})}
        ),
        "TensorMetadata": _object(
            {"name": {"type": "string"}, "datatype": _datatype(), "shape": _shape(-1), "parameters": _free()},
            required=["name", "datatype", "shape"],
        ),
        "Model": _object(
            {
                "name": {"type": "string"},
                "versions": _array({"type": "string"}),
                "platform": {"type": "string"},
                "inputs": _array(_reference("TensorMetadata")),
                "outputs": _array(_reference("TensorMetadata")),
                "parameters": _free(),
            },
            required=["name", "platform", "inputs", "outputs"],
        ),
        "ModelReady": _object({"name": {"type": "string"}, "ready": {"type": "boolean"}}),
        "ModelState": _object(
            {
                "name": {"type": "string"},
                "version": {"type": "string"},
                "state": {"type": "string", "enum": ["READY", "LOADING", "UNAVAILABLE", "UNLOADED"]},
                "reason": {"type": "string"},
            }
        ),
        **_tensors(),
        "InferRequest": _object(
            {
                "id": {"type": "string"},
                "parameters": _parameters(),
                "inputs": {**_array(_reference("InputTensor")), "minItems": 1},
                "outputs": _array(_reference("WantedOutput")),
            },
            required=["inputs"],
        ),
        "InferResponse": _object(
            {
                "model_name": {"type": "string"},
                "model_version": {"type": "string"},
                "id": {"type": "string"},
                "parameters": _free(),
                "outputs": _array(_reference("OutputTensor")),
            },
            required=["model_name", "outputs"],
        ),
    }


def _tensors() -> dict[str, Any]:
    size = {"binary_data_size": {"type": "integer", "minimum": 0, "description": "Bytes of binary data"}}
    values = {"type": "array", "description": "Row after row, flat or nested as the shape says; null is unknown"}
    tensor = {
        "name": {"type": "string"},
        "shape": _shape(0),
        "datatype": _datatype(),
        "parameters": {"type": "object", "properties": size},
        "data": values,
    }
    binary = {"type": "object", "properties": {"binary_data": {"type": "boolean"}}}
    return {
        "InputTensor": _object(tensor, required=["name", "shape", "datatype"]),
        "OutputTensor": _object(tensor, required=["name", "shape", "datatype"]),
        "WantedOutput": _object({"name": {"type": "string"}, "parameters": binary}, required=["name"]),
    }


def _parameters() -> dict[str, Any]:
    binary = {"type": "boolean", "description": "Whether all outputs are wanted in binary"}
    return {
        "type": "object",
        "description": "Others than these are ignored, unless they look like one of these misspelt",
        "properties": {**_OPTIONS, "binary_data_output": binary},
    }


_ERROR: dict[str, Any] = {
    "type": "object",
    "properties": {
        "error": {"type": "string", "description": "What is wrong, where, and what to do, in one line"},
        "type": {"type": "string", "description": "Kind of the error"},
        "what": {"type": "string"},
        "where": {"type": "string"},
        "hint": {"type": "string"},
        "id": {"type": "string", "description": "Where the log has more"},
    },
    "required": ["error"],
}


def _infer(name: str) -> dict[str, Any]:
    binary = {"schema": {"type": "string", "format": "binary"}}
    operation = _answers(name, "Predict rows", _reference("InferResponse"), {**_OF_MODELS, **_OF_BODIES})
    operation["responses"]["200"]["content"]["application/octet-stream"] = binary
    operation["requestBody"] = {
        "required": True,
        "content": {
            "application/json": {"schema": _reference("InferRequest")},
            "application/octet-stream": binary,
        },
    }
    return operation


def _index() -> dict[str, Any]:
    states = _array(_reference("ModelState"))
    operation = _answers("repository_index", "The models that are deployed", states, {**_ALWAYS, **_OF_BODIES})
    only_ready = _object({"ready": {"type": "boolean", "description": "Only those that answer"}}, required=[])
    operation["requestBody"] = {"required": False, "content": {"application/json": {"schema": only_ready}}}
    return operation


def _move(verb: str, text: str) -> dict[str, Any]:
    operation = _answers(f"repository_{verb}", text, {}, {**_OF_MODELS, **_OF_BODIES})
    operation["responses"]["200"] = {"description": "Done"}
    operation["requestBody"] = {
        "required": False,
        "content": {"application/json": {"schema": _object({"parameters": _free()}, required=[])}},
    }
    return {**operation, "parameters": [_MODEL]}


def _get(name: str, text: str, schema: dict[str, Any], refused: dict[str, str]) -> dict[str, Any]:
    operation = _answers(name, text, schema, refused)
    if name.endswith("ready"):
        # A model or server that is not ready says so in the document of one that is.
        either = {"anyOf": [schema, _reference("InferenceError")]}
        operation["responses"]["503"]["content"] = {"application/json": {"schema": either}}
    return operation


def _answers(name: str, text: str, schema: dict[str, Any], refused: dict[str, str]) -> dict[str, Any]:
    error = {"content": {"application/json": {"schema": _reference("InferenceError")}}}
    return {
        "summary": text,
        "operationId": f"inference_{name}",
        "responses": {
            "200": {"description": "Done", "content": {"application/json": {"schema": schema}}},
            **{status: {"description": told, **error} for status, told in sorted(refused.items())},
        },
    }


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: dict[str, Any], *, required: list[str] | None = None) -> dict[str, Any]:
    needed = list(properties) if required is None else required
    return {"type": "object", "properties": properties, **({"required": needed} if needed else {})}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "type": [schema["type"], "null"]}


def _array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _free() -> dict[str, Any]:
    return {"type": "object"}


def _flag(name: str) -> dict[str, Any]:
    return _object({name: {"type": "boolean"}})


def _datatype() -> dict[str, Any]:
    return {"type": "string", "enum": list(DATATYPES)}


def _shape(least: int) -> dict[str, Any]:
    return _array({"type": "integer", "minimum": least})
