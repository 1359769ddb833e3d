"""Messages of the protocol from and to Arrow tables, for callers that hold those."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from millpond.core.errors import RequestError
from millpond.core.time import format_instant, from_microseconds, to_microseconds
from millpond.serving.columns import request_schema
from millpond.serving.ports import OUTPUT, Answer, OutputWanted, Prediction, RequestColumn, ServedModel
from millpond.serving.ports import InferRequest as NeutralRequest
from millpond.serving.protocol.datatypes import DATATYPE_OF
from millpond.serving.protocol.outputs import instant_text
from millpond.serving.protocol.requests import MAX_ROWS, takes
from millpond.serving.protocol.responses import format_infer
from millpond.serving.protocol.rest import parse_infer
from millpond.serving.rows import Rows

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class ArrowRequest:
    """A parsed inference request.

    Attributes:
        rows: One row a request row, with the schema `request_schema(served.columns)`.
        as_of: `parameters.as_of`: the instant at which features are looked up, for all rows; UTC.
        id: The caller's identifier of the request, or None.
        outputs: Names of the outputs asked for, in order.
        neutral: The request itself.
    """

    rows: pa.Table
    as_of: datetime | None
    id: str | None
    outputs: tuple[str, ...]
    neutral: NeutralRequest


def parse_request(body: bytes, served: ServedModel, *, max_rows: int = MAX_ROWS) -> ArrowRequest:
    """Read the body of a request of columns; see `parse_infer`.

    Raises:
        RequestError: It is no such request, or carries raw model inputs that are no request columns.
        PayloadTooLarge: More than `max_rows` rows.
    """
    request = parse_infer(body, served, max_rows=max_rows)
    names = {column.name for column in served.columns}
    if not names.issuperset(request.rows.names):
        raise RequestError("the request carries raw model inputs", where=f"model {served.model!r}", hint=takes(served))
    rows = request.rows.to_arrow(request_schema(served.columns))
    as_of = None if request.as_of is None else from_microseconds(request.as_of)
    return ArrowRequest(rows, as_of, request.id, tuple(each.name for each in request.outputs), request)


def format_response(request: ArrowRequest, served: ServedModel, predictions: Sequence[Prediction]) -> bytes:
    """The body that answers `request`; outputs in the order asked for, one element a row."""
    synced = [to_microseconds(each.synced_at) for each in predictions if each.synced_at is not None]
    answer = Answer(
        served,
        "live",
        [each.id for each in predictions],
        {OUTPUT.name: [each.output for each in predictions]},
        [bool(each.answer) for each in predictions],
        [to_microseconds(each.as_of) for each in predictions],
        min(synced, default=None),
    )
    plain = request.neutral._replace(outputs=tuple(OutputWanted(name) for name in request.outputs), explain=False)
    return format_infer(plain, answer)[0]


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
            "data": _json_data(kinds[name], values),
        }
        for name, values in Rows.from_arrow(rows).columns.items()
    ]
    if outputs:
        document["outputs"] = [{"name": name} for name in outputs]
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def _json_data(kind: str, values: Any) -> Any:
    if kind == "instant":
        return [None if value is None else instant_text(value) for value in values]
    return np.ascontiguousarray(values) if isinstance(values, np.ndarray) else values
