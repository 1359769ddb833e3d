from __future__ import annotations

import json
from datetime import UTC
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.serving.columns import conform, request_schema
from millpond.serving.ports import RequestColumn, ServedModel
from millpond.serving.protocol import format_request, parse_infer

VALUES = {
    "bool": st.booleans(),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "float64": st.floats(allow_nan=False, allow_infinity=False),
    "string": st.text(),
    "instant": st.datetimes(timezones=st.just(UTC)),
}


@st.composite
def requests(draw: st.DrawFn) -> tuple[ServedModel, Any]:
    import pyarrow as pa

    kinds = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=6))
    columns = tuple(RequestColumn(f"c{i}", kind, draw(st.booleans()), "input") for i, kind in enumerate(kinds))
    count = draw(st.integers(1, 5))
    data = [
        draw(
            st.lists(
                VALUES[each.type] if each.required else st.none() | VALUES[each.type], min_size=count, max_size=count
            )
        )
        for each in columns
    ]
    schema = request_schema(columns)
    arrays = [pa.array(values, field.type) for values, field in zip(data, schema, strict=True)]
    served = ServedModel("m", 1, "regression", None, columns, None, {})
    return served, pa.Table.from_arrays(arrays, schema=schema)


@given(requests())
@settings(max_examples=100, deadline=None)
def test_rows_come_back_as_they_were_sent(case: tuple[ServedModel, Any]) -> None:
    served, rows = case
    parsed = parse_infer(format_request(served.columns, rows, request_id="é"), served)
    assert parsed.rows.to_arrow(rows.schema).equals(rows)
    assert parsed.id == "é"
    assert conform(rows, served).equals(rows)


@given(requests(), st.data())
@settings(max_examples=40, deadline=None)
def test_absent_optional_columns_are_null(case: tuple[ServedModel, Any], data: st.DataObject) -> None:
    served, rows = case
    optional = [each.name for each in served.columns if not each.required]
    left_out = data.draw(st.sets(st.sampled_from(optional))) if optional else set()
    kept = [name for name in rows.column_names if name not in left_out]
    if not kept:
        return
    parsed = parse_infer(format_request(served.columns, rows.select(kept)), served).rows.to_arrow(rows.schema)
    assert parsed.equals(conform(rows.select(kept), served))
    for name in rows.column_names:
        expected = [None] * rows.num_rows if name in left_out else rows.column(name).to_pylist()
        assert parsed.column(name).to_pylist() == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
TENSOR = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["c0", "c1"]) | JSON,
        "shape": st.lists(st.integers(-1, 3), max_size=3) | JSON,
        "datatype": st.sampled_from(["FP64", "INT64", "BYTES", "BOOL"]) | JSON,
        "data": st.lists(JSON, max_size=3) | JSON,
        "parameters": JSON,
    },
)


@given(
    st.fixed_dictionaries(
        {}, optional={"id": JSON, "parameters": JSON, "inputs": st.lists(TENSOR, max_size=3) | JSON, "outputs": JSON}
    )
    | JSON
)
@settings(max_examples=250, deadline=None)
def test_no_document_is_more_than_a_request_error(document: Any) -> None:
    from millpond.core.errors import RequestError

    columns = (RequestColumn("c0", "float64", False, "input"), RequestColumn("c1", "instant", False, "input"))
    served = ServedModel("m", 1, "regression", None, columns, None, {})
    refused: RequestError | None = None
    try:
        request = parse_infer(json.dumps(document).encode(), served)
    except RequestError as error:
        refused = error
    if refused is not None:
        assert refused.what
        assert "'m'" in refused.where
    else:
        assert request.rows.count >= 1
        assert all(isinstance(each, int | None) for each in request.rows.columns.get("c1", []))
