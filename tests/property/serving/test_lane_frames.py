"""Whatever rows are put together, sent, received and cut apart again, they are the rows that they were."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millpond.serving.lanes.host import frame_of, rows_of
from millpond.serving.lanes.wire import Reader, encode
from millpond.serving.rows import Rows, concatenate

VALUES = {
    "float": st.floats() | st.none(),
    "int": st.integers(-(2**63), 2**63 - 1) | st.none(),
    "text": st.text('ab"\\\x00\n\u00e9\U0001f41f', max_size=4) | st.none(),
    "flag": st.booleans() | st.none(),
}


@st.composite
def requests(draw: st.DrawFn) -> list[Rows]:
    kinds = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=4))

    def rows() -> Rows:
        count = draw(st.integers(1, 4))
        columns: dict[str, Any] = {}
        for index, kind in enumerate(kinds):
            values = draw(st.lists(VALUES[kind], min_size=count, max_size=count))
            as_array = kind == "float" and draw(st.booleans())
            columns[f"{kind}_{index}"] = np.array(values, dtype=np.float64) if as_array else values
        return Rows.of(columns)

    return [rows() for _ in range(draw(st.integers(1, 5)))]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(requests(), st.integers(1, 64))
def test_rows_are_what_they_were(parts: list[Rows], piece: int) -> None:
    data = encode(frame_of("call", 1, concatenate(parts)))
    reader = Reader()
    (frame,) = [frame for start in range(0, len(data), piece) for frame in reader.feed(data[start : start + piece])]
    found, start = rows_of(frame), 0
    for part in parts:
        stop = start + part.count
        cut = found.slice(start, stop)
        assert [repr(cut.values(row)) for row in range(part.count)] == [
            repr(part.values(row)) for row in range(part.count)
        ]
        start = stop
    assert start == found.count
