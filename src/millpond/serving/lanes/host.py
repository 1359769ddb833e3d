"""The main loop of a child process of a lane that may import Millpond."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from millpond.serving.lanes.wire import Connection, Frame
from millpond.serving.rows import Rows

Handler = Callable[[Rows], tuple[Rows, Mapping[str, Any]]]


def serve(load: Callable[[], Handler]) -> int:
    """Load what answers, and answer the lane's calls one at a time until the lane ends or closes.

    The lane counts the process as ready when `load` has returned. What `load` raises is told to the lane as the
    reason why it does not start; what the handler raises is the answer to its call, an error of Millpond as that error.
    Whatever is printed goes to the lane's log.

    Args:
        load: Gives the handler, which takes the rows of a batch and gives as many rows and what holds for all of them,
            as JSON values.

    Returns:
        The exit code of the process.
    """
    connection = Connection()
    try:
        handler = load()
    except Exception as error:
        connection.refuse(error)
        return 1
    connection.serve(lambda call: _answered(handler, call))
    return 0


def _answered(handler: Handler, call: Frame) -> Frame:
    rows, meta = handler(rows_of(call))
    return frame_of("answer", call.number, rows, meta)


def rows_of(frame: Frame) -> Rows:
    return Rows(frame.rows, frame.names, frame.columns, frame.matrix)


def frame_of(kind: str, number: int, rows: Rows, meta: Mapping[str, Any] | None = None) -> Frame:
    return Frame(kind, number, rows.count, rows.names, rows.given, rows.matrix, dict(meta) if meta else None)
