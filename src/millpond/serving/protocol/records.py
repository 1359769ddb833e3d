"""The plain JSON face for people: rows as records in, predictions as records out.

    {"rows": [{"origin": "JFK", "distance": 187.5}], "as_of": "2013-12-01T08:00:00Z", "id": "r1", "explain": true}

Rows carry request columns, or raw model inputs, as tensors do; a model without column names takes arrays of numbers.
`as_of`, `id`, `explain` and `routing_key` may be left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from millpond.core.errors import RequestError
from millpond.core.names import did_you_mean
from millpond.serving.ports import Answer, InferRequest, ServedModel
from millpond.serving.protocol.datatypes import DATATYPE_OF
from millpond.serving.protocol.documents import load_json
from millpond.serving.protocol.outputs import column_of, response_parameters
from millpond.serving.protocol.requests import MAX_ROWS, request_of, takes
from millpond.serving.protocol.signature import (
    AS_OF,
    CONTRIBUTIONS,
    PREDICTION_ID,
    Signature,
    signature_of,
)
from millpond.serving.protocol.tensors import Tensor
from millpond.serving.protocol.values import json_name, shown

_OPTIONS = ("as_of", "explain", "routing_key")
_FIELDS = ("rows", "id", *_OPTIONS)
_EXAMPLE = '{"rows": [{"column": value, ...}, ...]}'


def parse_records(body: bytes, served: ServedModel, *, max_rows: int = MAX_ROWS) -> InferRequest:
    """Read a body of records as a request to a version.

    Values have the JSON type of their column; an instant is ISO 8601 text. A field that is absent from a row is null.

    Raises:
        RequestError: It is no request that the version takes.
        PayloadTooLarge: More than `max_rows` rows.
    """
    signature = signature_of(served)
    place = signature.place
    document = load_json(body, place)
    if not isinstance(document, dict):
        raise RequestError(f"the body is a JSON {json_name(document)}, expected an object", where=place, hint=_EXAMPLE)
    for name in document:
        if name not in _FIELDS:
            raise RequestError(
                f"there is no field {name!r}", where=place, hint=did_you_mean(name, _FIELDS, noun="fields")
            )
    request_id = document.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise RequestError(f"id is {shown(request_id)}, expected a string", where=place, hint="put it in quotes")
    rows = document.get("rows")
    if not isinstance(rows, list):
        found = "is missing" if rows is None else f"is a JSON {json_name(rows)}"
        raise RequestError(f"rows {found}, expected an array of records", where=place, hint=_EXAMPLE)
    if not rows:
        raise RequestError("there are no rows to predict", where=place, hint="send at least one row")
    options = {name: document[name] for name in _OPTIONS if document.get(name) is not None}
    if isinstance(rows[0], list) and signature.countable:
        tensors = [Tensor("rows", "FP64", (len(rows), signature.width), rows)]
    else:
        tensors = _tensors(rows, served, signature)
    return request_of(tensors, served, options, request_id, max_rows=max_rows)


def _tensors(rows: list[Any], served: ServedModel, signature: Signature) -> list[Tensor]:
    names: dict[str, None] = {}
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise RequestError(
                f"row {index} is a JSON {json_name(row)}, expected an object",
                where=signature.place,
                hint=takes(served),
            )
        names.update(dict.fromkeys(row))
    if not names:
        raise RequestError("the rows have no columns", where=signature.place, hint=takes(served))
    kinds = {name: column.type for name, column in (*signature.raws.items(), *signature.columns.items())}
    if signature.matrix and set(names) <= set(signature.raws):
        data = [[row.get(name) for name in signature.raw_names] for row in rows]
        return [Tensor("rows", "FP64", (len(rows), signature.width), data)]
    return [
        Tensor(name, DATATYPE_OF[kinds.get(name, "string")], (len(rows),), [row.get(name) for row in rows])
        for name in names
    ]


def format_records(request: InferRequest, answer: Answer) -> bytes:
    """The body that answers a request of records: what answered, and a record a row.

    A prediction has `id`, then `probability` and `answer`, or `prediction`, or `outputs` by name where the model has
    its own, then `as_of`; where an explanation was asked for also `contributions` by raw input and `base`, whose sum
    is the output in the space of `contributions_unit`. NaN is null.
    """
    served = answer.served
    document: dict[str, Any] = {"model": served.model, "version": served.version, "variant": answer.variant}
    if request.id is not None:
        document["id"] = request.id
    parameters = response_parameters(request, answer)
    document |= {name: text for name, text in parameters.items() if name != "variant"}
    if answer.explanation is not None:
        document["contributions_unit"] = answer.explanation.unit
    document["predictions"] = _predictions(answer)
    return orjson.dumps(document)


def _predictions(answer: Answer) -> list[Mapping[str, Any]]:
    signature = signature_of(answer.served)
    specs = signature.specs(answer.explanation is not None)
    columns = {name: _listed(column_of(spec, answer)) for name, spec in specs.items()}
    own = answer.served.task == "other"
    middle = [name for name, spec in specs.items() if spec.source or name == "answer"]
    found: list[Mapping[str, Any]] = []
    for row, id in enumerate(columns[PREDICTION_ID]):
        values = {name: columns[name][row] for name in middle}
        record = {"id": id, **({"outputs": values} if own else values), "as_of": columns[AS_OF][row]}
        if answer.explanation is not None:
            record["contributions"] = dict(zip(signature.raw_names, columns[CONTRIBUTIONS][row], strict=True))
            record["base"] = answer.explanation.base
        found.append(record)
    return found


def _listed(column: Any) -> list[Any]:
    values: list[Any] = column.tolist() if isinstance(column, np.ndarray) else column
    return values
