"""The OpenAPI descriptions: of `/api/v1`, made from the very calls that are served, and of `/v2`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from millpond.server.api import PREDICT, PREFIX, Call
from millpond.server.openapi_inference import openapi_paths, openapi_schemas, records_operation, records_schemas

_PARAMETER = re.compile(r"\{(\w+)(?::(\w+))?\}")
_REFERENCE = "#/components/schemas/{model}"
_ERROR = {
    "type": "object",
    "required": ["error", "what", "where", "hint", "retryable"],
    "properties": {
        "error": {"type": "string", "description": "Kind of the error"},
        "what": {"type": "string", "description": "What is wrong, with the value that was found"},
        "where": {"type": "string"},
        "hint": {"type": "string", "description": "What to do next, or what is allowed"},
        "retryable": {"type": "boolean"},
    },
}
_REFUSALS = {
    "401": "No identity, or an invalid token",
    "403": "The identity may not do this",
    "404": "There is no such thing",
    "413": "The body is too large",
    "422": "The request is malformed",
    "503": "A part is not running",
}


def description(served: Sequence[Call], version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of `/api/v1`."""
    schemas: dict[str, Any] = {"Error": _ERROR}
    paths: dict[str, dict[str, Any]] = {}
    for call in served:
        path = PREFIX + _PARAMETER.sub(r"{\1}", call.path)
        paths.setdefault(path, {})[call.method.lower()] = _operation(call, schemas)
    paths[PREDICT] = {"post": records_operation("predict")}
    schemas |= records_schemas()
    return _document("Millpond", "The platform of a project. Instants are UTC.", version, paths, schemas)


def inference_description(version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of `/v2`."""
    told = "Predictions of a project by the Open Inference Protocol, version 2."
    return _document("Millpond inference", told, version, openapi_paths(), openapi_schemas())


def _document(
    title: str, told: str, version: str, paths: Mapping[str, Any], schemas: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": told},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "An access token, `mp_...`"},
            },
        },
        "security": [{"token": []}],
    }


def _operation(call: Call, schemas: dict[str, Any]) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "integer" if kind == "int" else "string"}}
        for name, kind in _PARAMETER.findall(call.path)
    ]
    parameters += [
        {"name": name, "in": "query", "schema": {"type": "integer" if kind is int else "string"}}
        for name, kind in (call.query or {}).items()
    ]
    refused = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
    operation: dict[str, Any] = {
        "summary": call.summary,
        "operationId": _operation_id(call),
        "responses": {
            "200": {
                "description": "Done",
                "content": {"application/json": {"schema": _schema(call.returns, "serialization", schemas)}},
            },
            **{status: {"description": text, **refused} for status, text in _REFUSALS.items()},
        },
    }
    if parameters:
        operation["parameters"] = parameters
    if call.body is not None:
        schema = _schema(call.body, "validation", schemas)
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation


def _operation_id(call: Call) -> str:
    words = [word for word in _PARAMETER.sub("", call.path).split("/") if word]
    return "_".join([call.method.lower(), *words, *(["one"] if call.path.endswith("}") else [])])


def _schema(kind: Any, mode: JsonSchemaMode, schemas: dict[str, Any]) -> dict[str, Any]:
    schema = TypeAdapter(kind).json_schema(mode=mode, ref_template=_REFERENCE)
    schemas.update(schema.pop("$defs", {}))
    title = schema.get("title")
    if schema.get("type") == "object" and title:
        schemas[title] = schema
        return {"$ref": _REFERENCE.format(model=title)}
    return schema
