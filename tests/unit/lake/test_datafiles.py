from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest


@pytest.mark.parametrize("rows", [10, 5_000, 200_000])
def test_numbers_that_do_not_repeat_have_no_dictionary(lake, rows):
    table = pa.table(
        {
            "id": [f"p-{each}" for each in range(rows)],
            "measured": pa.array([each / 7 for each in range(rows)]),
            "price": pa.array([each % 3 / 4 for each in range(rows)]),
            "account": pa.array([each * 7919 % 2_000 % (rows // 2) for each in range(rows)], pa.int64()),
            "city": [("Ulm", None, "Bern")[each % 3] for each in range(rows)],
            "vector": [[each / 3, 1.0] for each in range(rows)],
            "lines": [[{"item": f"i{each}", "price": each / 3, "tags": ["new"]}] for each in range(rows)],
            "paid": pa.array([each % 2 == 0 for each in range(rows)]),
        }
    )
    lake.append("t", table)
    [file] = lake.warehouse.rglob("*.parquet")
    metadata = pq.read_metadata(file)
    found = set()
    for group in range(metadata.num_row_groups):
        columns = [metadata.row_group(group).column(index) for index in range(metadata.num_columns)]
        found |= {each.path_in_schema for each in columns if each.has_dictionary_page}
    texts = {"id", "city", "lines.list.element.item", "lines.list.element.tags.list.element"}
    assert found == {*texts, "price", "account"}
    assert pq.read_table(file).cast(table.schema).equals(table)
