"""Numbers straight from the JSON text of a request, through the C library beside this file. Needs NumPy."""

from __future__ import annotations

import ctypes
import logging
import threading
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

#: Version of `struct reading`; as in numbers.c.
LAYOUT = 1
LIBRARY = Path(__file__).with_name("libnumbers.so")

#: Bits, as in numbers.c: a number has a fraction or an exponent; there is a null.
FRACTIONS, NULLS = 1, 2

#: Shapes that are remembered by a reader.
_VIEWS = 256

_log = logging.getLogger("millpond.serving")

_TOLD = ("start", "end", "count", "rows", "flags")


class _Reading(ctypes.Structure):
    _fields_ = [
        ("out", ctypes.c_void_p),
        ("room", ctypes.c_int64),
        *((name, ctypes.c_int64) for name in _TOLD),
        ("least", ctypes.c_double),
        ("most", ctypes.c_double),
    ]


@cache
def load_library() -> ctypes.PyDLL | None:
    """The loaded library; None where it was not built, was built of another release, or does not run here.

    Without it, requests are read as exactly, and slower; a warning says so once.
    """
    try:
        found = ctypes.PyDLL(str(LIBRARY))  # calls are too short to let go of the interpreter for them
        found.millpond_numbers.restype = found.millpond_reading_size.restype = ctypes.c_int64
        built = (found.millpond_numbers(), found.millpond_reading_size())
    except (OSError, AttributeError) as error:
        _warn(str(error))
        return None
    if built != (LAYOUT, ctypes.sizeof(_Reading)):
        _warn(f"{LIBRARY} was built of another release")
        return None
    found.millpond_read_numbers.restype = ctypes.c_int64
    found.millpond_read_numbers.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64]
    return found


def _warn(why: str) -> None:
    _log.warning("requests of many numbers are read the slower way: %s; install Millpond again", why)


class NumberReader:
    """Finds and reads the array of numbers in a text. Not safe across threads.

    Attributes:
        bounds: The least and the greatest of the numbers that were read last; infinity and minus infinity where there
            are none but nulls.
    """

    def __init__(self) -> None:
        library = load_library()
        self._read: Any = library and library.millpond_read_numbers
        self._reading = _Reading()
        self._address = ctypes.c_void_p(ctypes.addressof(self._reading))
        memory = memoryview(self._reading).cast("B")
        first, last = _Reading.start.offset, _Reading.least.offset
        self._told, self.bounds = memory[first:last].cast("q"), memory[last:].cast("d")
        self._room = 0
        self._views: dict[tuple[int, int], npt.NDArray[np.float64]] = {}
        self._make_room(256)

    def find(self, text: bytes, limit: int) -> list[int] | None:
        """Read the value of the only field `data` of a text; None where it is in doubt.

        It is in doubt unless it is an array of numbers and nulls, or an array of arrays of equal length of them; no
        float64 is infinite, and whole numbers are below 2^53. The rest of the text is not looked at: it may be no
        JSON, and the field may be anyone's.

        Args:
            text: JSON.
            limit: Most numbers that are of interest; more may be in doubt.

        Returns:
            Where its bracket is; what follows its last bracket; how many numbers and nulls there are; how many arrays
            of equal length hold them, 0 where it is one; and `FRACTIONS` and `NULLS`.
        """
        if self._read is None:
            return None
        size = len(text)
        if size // 2 >= self._room and limit > self._room:
            self._make_room(min(size // 2 + 1, limit))
        return self._told.tolist() if self._read(self._address, text, size) else None

    def matrix(self, shape: tuple[int, int]) -> npt.NDArray[np.float64]:
        """A copy of what was read last: the nearest float64, as `float` gives them, and NaN for null."""
        view = self._views.get(shape)
        if view is None:
            if len(self._views) >= _VIEWS:
                self._views.clear()
            view = self._views[shape] = self._numbers[: shape[0] * shape[1]].reshape(shape)
        return view.copy()

    def _make_room(self, count: int) -> None:
        self._numbers: npt.NDArray[np.float64] = np.empty(count)
        self._views.clear()
        self._room = count
        self._reading.out, self._reading.room = self._numbers.ctypes.data, count


class ReaderOfThread(threading.local):
    """Each thread's own reader."""

    def __init__(self) -> None:
        self.reader = NumberReader()
