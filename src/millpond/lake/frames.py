"""Lazy Narwhals frames, as the engines take them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from millpond.core.errors import DataError

if TYPE_CHECKING:
    import narwhals as nw


def native_query(frame: nw.LazyFrame[Any], method: str) -> Any:
    """The engine's own query behind a lazy frame, told by a method that only such queries have.

    Raises:
        DataError: The frame holds something else.
    """
    native: Any = frame.to_native()
    if not hasattr(native, method):
        raise DataError(
            f"The frame holds {type(native).__name__}, not a query of the engine",
            hint="build it lazily from the frames that are given, without collect()",
        )
    return native
