"""JSON documents of inference requests: read exactly, field by field, with an error that says what is wrong.

Where an object has a field twice, the last one counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from millpond.core.errors import RequestError
from millpond.serving.ports import InferRequest, OutputWanted, ServedModel
from millpond.serving.protocol.requests import request_of_json, takes
from millpond.serving.protocol.tensors import NO_PARAMETERS, Tensor
from millpond.serving.protocol.values import JsonConstant, json_name, shown

_EXAMPLE = '{"name": ..., "shape": [1], "datatype": ..., "data": [...]}'


def load_json(text: bytes, place: str) -> Any:
    """JSON as Python values, with integers of any size, and `JsonConstant` for what JSON does not have.

    Raises:
        RequestError: It is no JSON; names line and column.
    """
    if not text:
        raise RequestError("the body is empty, expected JSON", where=place, hint='{"inputs": [...]}')
    try:
        return json.loads(text.decode(), parse_constant=JsonConstant)
    except json.JSONDecodeError as error:
        position = f"line {error.lineno}, column {error.colno} of the body"
        raise RequestError(
            f"the body is not JSON: {error.msg}", where=f"{place}, {position}", hint="send UTF-8 JSON"
        ) from error
    except RecursionError as error:
        raise RequestError("the body is nested too deeply", where=place, hint="tensors are flat arrays") from error
    except ValueError as error:
        raise RequestError(f"the body is not JSON: {error}", where=place, hint="send UTF-8 JSON") from error


def parse_document(
    document: Any, served: ServedModel, max_rows: int, place: str, rest: memoryview | None = None
) -> InferRequest:
    """The request that a document holds; `rest` is the binary data after it, or None where there can be none.

    Raises:
        RequestError: It is no request that the version takes.
        PayloadTooLarge: More than `max_rows` rows.
    """
    fields = _object(document, "the body", place, f'{{"inputs": [{_EXAMPLE}]}}')
    request_id = fields.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise RequestError(f"id is {shown(request_id)}, expected a string", where=place, hint="put it in quotes")
    parameters = _parameters(fields, place, '{"as_of": ...}')
    binary = parameters.get("binary_data_output") is True
    outputs = _outputs(fields.get("outputs"), binary, place)
    tensors = _tensors(fields.get("inputs"), served, place, rest)
    return request_of_json(tensors, served, parameters, request_id, outputs, binary=binary, max_rows=max_rows)


def _object(value: Any, what: str, place: str, example: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise RequestError(f"{what} is a JSON {json_name(value)}, expected an object", where=place, hint=example)
    return value


def _parameters(fields: Mapping[str, Any], place: str, example: str) -> Mapping[str, Any]:
    given = fields.get("parameters")
    return NO_PARAMETERS if given is None else _object(given, "parameters", place, example)


def _outputs(wanted: Any, binary: bool, place: str) -> tuple[OutputWanted, ...]:
    if wanted is None:
        return ()
    if not isinstance(wanted, list):
        raise RequestError(
            f"outputs is a JSON {json_name(wanted)}, expected an array", where=place, hint='[{"name": ...}]'
        )
    found: list[OutputWanted] = []
    for each in wanted:
        name = each.get("name") if isinstance(each, dict) else None
        if not isinstance(name, str):
            raise RequestError(
                f"outputs holds {shown(each, 80)}, expected an object with a name", where=place, hint='{"name": ...}'
            )
        own = _parameters(each, f"{place}, output {name!r}", '{"binary_data": true}').get("binary_data")
        found.append(OutputWanted(name, binary if own is None else own is True))
    return tuple(found)


def _tensors(inputs: Any, served: ServedModel, place: str, rest: memoryview | None) -> list[Tensor]:
    if not isinstance(inputs, list) or not inputs:
        found = "is missing" if inputs is None else "is empty" if inputs == [] else f"is a JSON {json_name(inputs)}"
        raise RequestError(f"inputs {found}, expected an array of tensors", where=place, hint=takes(served))
    tensors: list[Tensor] = []
    at = 0
    for each in inputs:
        name = each.get("name") if isinstance(each, dict) else None
        if not isinstance(name, str):
            raise RequestError(
                f"inputs holds {shown(each, 80)}, expected an object with a name", where=place, hint=_EXAMPLE
            )
        data = each.get("data")
        size = _binary_size(each.get("parameters"), f"{place}, input {name!r}")
        if size is not None and data is None:
            data = _cut(rest, at, size, f"{place}, input {name!r}")
            at += size
        tensors.append(Tensor(name, each.get("datatype"), each.get("shape"), data))
    if rest is not None and at != len(rest):
        raise RequestError(
            f"the body has {len(rest)} bytes of binary data, and the inputs name {at}",
            where=place,
            hint="parameters.binary_data_size says how many bytes belong to an input, in the order of the inputs",
        )
    return tensors


def _binary_size(parameters: Any, where: str) -> int | None:
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is not None and (type(size) is not int or size < 0):
        raise RequestError(
            f"parameters.binary_data_size is {shown(size)}, expected a number of bytes",
            where=where,
            hint="leave it out where the data is JSON",
        )
    return size


def _cut(rest: memoryview | None, at: int, size: int, where: str) -> memoryview:
    if rest is None:
        raise RequestError(
            "the data is in binary, and nothing says where it begins",
            where=where,
            hint="say in the header Inference-Header-Content-Length how many bytes of the body are JSON",
        )
    if at + size > len(rest):
        raise RequestError(
            f"the binary data ends {at + size - len(rest)} bytes too soon",
            where=where,
            hint="the body is the JSON, and then the binary data of each input in order",
        )
    return rest[at : at + size]
