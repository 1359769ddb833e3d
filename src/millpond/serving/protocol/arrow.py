"""Requests of the protocol from Arrow tables, for callers that hold those."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from millpond.core.time import format_instant
from millpond.serving.ports import RequestColumn
from millpond.serving.protocol.datatypes import DATATYPE_OF
from millpond.serving.protocol.outputs import instant_text
from millpond.serving.rows import Rows

if TYPE_CHECKING:
    import pyarrow as pa


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
