"""Messages of the Open Inference Protocol, version 2, REST with JSON.

Request columns are tensors of shape [n] or [n, 1]. Instants are BYTES, ISO 8601 with an offset. JSON null in the data
of an input that is not required means that the value is unknown; the protocol itself has no null.

Source: the Open Inference Protocol, https://github.com/kserve/open-inference-protocol.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from millpond.core.errors import PayloadTooLarge, RequestError
from millpond.core.names import closest, did_you_mean
from millpond.core.time import format_instant, parse_instant
from millpond.serving.columns import describe_columns, request_schema
from millpond.serving.metadata import output_tensors
from millpond.serving.ports import Prediction, RequestColumn, ServedModel
from millpond.serving.tensors import DATATYPE_OF, JsonConstant, read_tensor, write_tensor

if TYPE_CHECKING:
    import pyarrow as pa

#: Rows that one request may carry.
MAX_ROWS = 10_000


@dataclass(frozen=True)
class InferRequest:
    """A parsed inference request.

    Attributes:
        rows: One row a request row, with the schema `request_schema(served.columns)`.
        as_of: `parameters.as_of`: the instant at which features are looked up, for all rows; UTC.
        id: The caller's identifier of the request, or None.
        outputs: Names of the outputs asked for, in order.
    """

    rows: pa.Table
    as_of: datetime | None
    id: str | None
    outputs: tuple[str, ...]


def parse_request(body: bytes, served: ServedModel, *, max_rows: int = MAX_ROWS) -> InferRequest:
    """Read the body of an inference request for a model.

    Raises:
        RequestError: The body is no such request; names the model, the input, what was expected and what was found.
        PayloadTooLarge: More than `max_rows` rows.
    """
    place = f"model {served.model!r}"
    document = _load(body, place)
    if not isinstance(document, dict):
        raise RequestError(
            f"the body is a JSON {_json_name(document)}, expected an object",
            where=place,
            hint='{"inputs": [{"name": ..., "shape": [1], "datatype": ..., "data": [...]}]}',
        )
    request_id = document.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise RequestError(f"id is {_shown(request_id)}, expected a string", where=place, hint="put it in quotes")
    outputs = _outputs(document.get("outputs"), served, place)
    as_of = _as_of(document.get("parameters"), place)
    rows = _rows(document.get("inputs"), served, place, max_rows)
    return InferRequest(rows, as_of, request_id, outputs)


def format_response(request: InferRequest, served: ServedModel, predictions: Sequence[Prediction]) -> bytes:
    """The body that answers `request`; outputs in the order asked for, one element a row."""
    data: dict[str, list[Any]] = {
        "prediction_id": [each.id for each in predictions],
        "probability": [each.output for each in predictions],
        "prediction": [each.output for each in predictions],
        "answer": [each.answer for each in predictions],
        "as_of": [format_instant(each.as_of) for each in predictions],
    }
    tensors = {tensor["name"]: tensor for tensor in output_tensors(served)}
    count = len(predictions)
    document: dict[str, Any] = {"model_name": served.model, "model_version": str(served.version)}
    if request.id is not None:
        document["id"] = request.id
    parameters = {"as_of": format_instant(request.as_of)} if request.as_of is not None else {}
    if synced := [each.synced_at for each in predictions if each.synced_at is not None]:
        parameters["features_synced_at"] = format_instant(min(synced))
    if parameters:
        document["parameters"] = parameters
    document["outputs"] = [
        {"name": name, "datatype": tensors[name]["datatype"], "shape": [count], "data": data[name]}
        for name in request.outputs
    ]
    return json.dumps(document, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()


def format_request(
    columns: Sequence[RequestColumn],
    rows: pa.Table,
    *,
    as_of: datetime | None = None,
    request_id: str | None = None,
    outputs: Sequence[str] = (),
) -> bytes:
    """The body of a request that carries `rows`, whose columns are some of `columns`, with their types."""
    kinds = {column.name: column.type for column in columns}
    document: dict[str, Any] = {"id": request_id} if request_id is not None else {}
    if as_of is not None:
        document["parameters"] = {"as_of": format_instant(as_of)}
    document["inputs"] = [
        {
            "name": name,
            "shape": [rows.num_rows],
            "datatype": DATATYPE_OF[kinds[name]],
            "data": write_tensor(kinds[name], rows.column(name)),
        }
        for name in rows.column_names
    ]
    if outputs:
        document["outputs"] = [{"name": name} for name in outputs]
    return json.dumps(document, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()


def _load(body: bytes, place: str) -> Any:
    if not body:
        raise RequestError("the body is empty, expected JSON", where=place, hint='{"inputs": [...]}')
    try:
        return json.loads(body.decode(), parse_constant=JsonConstant, object_pairs_hook=_unique_object)
    except json.JSONDecodeError as error:
        position = f"line {error.lineno}, column {error.colno} of the body"
        raise RequestError(
            f"the body is not JSON: {error.msg}", where=f"{place}, {position}", hint="send UTF-8 JSON"
        ) from error
    except RecursionError as error:
        raise RequestError("the body is nested too deeply", where=place, hint="tensors have one dimension") from error
    except ValueError as error:
        raise RequestError(f"the body is not JSON: {error}", where=place, hint="send UTF-8 JSON") from error


def _unique_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object has the field {twice!r} twice")
    return found


def _outputs(wanted: Any, served: ServedModel, place: str) -> tuple[str, ...]:
    known = tuple(tensor["name"] for tensor in output_tensors(served))
    if wanted is None or wanted == []:
        return known
    if not isinstance(wanted, list):
        raise RequestError(
            f"outputs is a JSON {_json_name(wanted)}, expected an array", where=place, hint='[{"name": ...}]'
        )
    names: list[str] = []
    for each in wanted:
        name = each.get("name") if isinstance(each, dict) else None
        if not isinstance(name, str):
            raise RequestError(
                f"outputs holds {_shown(each)}, expected an object with a name", where=place, hint='{"name": ...}'
            )
        if name not in known:
            hint = did_you_mean(name, known, noun="outputs")
            raise RequestError(f"the model has no output {name!r}", where=f"{place}, outputs", hint=hint)
        if name in names:
            raise RequestError(
                f"the output {name!r} is asked for twice", where=f"{place}, outputs", hint="name it once"
            )
        names.append(name)
    return tuple(names)


def _as_of(parameters: Any, place: str) -> datetime | None:
    if parameters is None:
        return None
    if not isinstance(parameters, dict):
        raise RequestError(
            f"parameters is a JSON {_json_name(parameters)}, expected an object", where=place, hint='{"as_of": ...}'
        )
    for name in parameters:
        # The protocol lets a server ignore parameters it does not know; a misspelt as_of would change the answer.
        if name != "as_of" and closest(name.lower(), ["as_of"]):
            raise RequestError(f"there is no parameter {name!r}", where=place, hint="did you mean 'as_of'?")
    value = parameters.get("as_of")
    if value is None:
        return None
    try:
        if not isinstance(value, str):
            raise ValueError("expected an ISO 8601 instant")
        return parse_instant(value)
    except (ValueError, OverflowError) as error:
        raise RequestError(
            f"parameters.as_of is {_shown(value)}: {error}",
            where=place,
            hint='write it like "2013-12-01T08:00:00Z"',
        ) from error


def _rows(inputs: Any, served: ServedModel, place: str, max_rows: int) -> pa.Table:
    import pyarrow as pa

    takes = f"the model takes: {describe_columns(served.columns)}"
    if not isinstance(inputs, list) or not inputs:
        found = "is missing" if inputs is None else "is empty" if inputs == [] else f"is a JSON {_json_name(inputs)}"
        raise RequestError(f"inputs {found}, expected an array of tensors", where=place, hint=takes)
    columns = {column.name: column for column in served.columns}
    arrays: dict[str, pa.Array[Any]] = {}
    for tensor in inputs:
        column, where = _column(tensor, columns, arrays, place)
        count = _row_count(tensor, where, max_rows)
        if arrays:
            first, array = next(iter(arrays.items()))
            if len(array) != count:
                what = f"{column.name!r} has {count} rows, and {first!r} has {len(array)}"
                raise RequestError(what, where=where, hint="every input has one value a row")
        values = _flat(tensor, count, where)
        arrays[column.name] = read_tensor(column, tensor.get("datatype"), values, where)
    count = len(next(iter(arrays.values())))
    schema = request_schema(served.columns)
    for column in served.columns:
        if column.name not in arrays:
            if column.required:
                raise RequestError(f"the input {column.name!r} is missing", where=place, hint=takes)
            arrays[column.name] = pa.nulls(count, schema.field(column.name).type)
    return pa.Table.from_arrays([arrays[name] for name in schema.names], schema=schema)


def _column(
    tensor: Any, columns: Mapping[str, RequestColumn], seen: Mapping[str, Any], place: str
) -> tuple[RequestColumn, str]:
    name = tensor.get("name") if isinstance(tensor, dict) else None
    if not isinstance(name, str):
        raise RequestError(
            f"inputs holds {_shown(tensor)}, expected an object with a name",
            where=place,
            hint='{"name": ..., "shape": [1], "datatype": ..., "data": [...]}',
        )
    if name not in columns:
        hint = did_you_mean(name, columns, noun="inputs")
        raise RequestError(f"the model takes no input {name!r}", where=place, hint=hint)
    where = f"{place}, input {name!r}"
    if name in seen:
        raise RequestError(f"the input {name!r} is there twice", where=where, hint="send each input once")
    return columns[name], where


def _row_count(tensor: Mapping[str, Any], where: str, max_rows: int) -> int:
    shape = tensor.get("shape")
    whole = isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)
    if not whole or len(shape) not in (1, 2) or shape[1:] not in ([], [1]):  # type: ignore[arg-type,index]
        found = "is missing" if shape is None else f"is {_shown(shape)}"
        raise RequestError(f"the shape {found}, expected [rows] or [rows, 1]", where=where, hint="one value a row")
    count: int = shape[0]  # type: ignore[index]
    if count == 0:
        raise RequestError("there are no rows to predict", where=where, hint="send at least one row")
    if count > max_rows:
        raise PayloadTooLarge(
            f"the request has {count} rows, and at most {max_rows} are taken at once",
            where=where,
            hint="send several requests, or predict a whole table with `millpond predict --batch`",
        )
    return count


def _flat(tensor: Mapping[str, Any], count: int, where: str) -> list[Any]:
    data = tensor.get("data")
    parameters = tensor.get("parameters")
    if data is None and isinstance(parameters, dict) and "binary_data_size" in parameters:
        raise RequestError(
            "the data is in binary, which this server does not take",
            where=where,
            hint="send it as JSON (tritonclient: binary_data=False)",
        )
    if not isinstance(data, list):
        found = "is missing" if data is None else f"is a JSON {_json_name(data)}"
        raise RequestError(f"data {found}, expected an array of {count} values", where=where)
    if len(tensor["shape"]) == 2 and data and isinstance(data[0], list):
        for row, inner in enumerate(data):
            if not isinstance(inner, list) or len(inner) != 1:
                raise RequestError(f"data in row {row} is {_shown(inner)}, expected one value in brackets", where=where)
        data = [inner[0] for inner in data]
    if len(data) != count:
        raise RequestError(
            f"data has {len(data)} values, and the shape says {count}", where=where, hint="send one value a row"
        )
    return data


def _json_name(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null" if value is None else repr(value))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
