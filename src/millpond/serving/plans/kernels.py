"""The C kernels, through ctypes. Needs NumPy and nothing else."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from millpond.core.errors import MissingExtra

#: Version of `struct plan`; as in kernels.c.
LAYOUT = 1
BLOCK = 16
LIBRARY = Path(__file__).with_name("libkernels.so")

#: Operations of prepared columns, by number; as in kernels.c.
OPERATIONS = (
    "fill",  # argument where NaN
    "subtract",
    "divide",
    "multiply",
    "add",
    "low",  # no less than the argument
    "high",
    "is_nan",
    "table",  # value at that index of a table
    "lookup",  # value of a key in a table
    "float32",
    "finite",  # refuses infinities
    "number",  # refuses infinities and NaN
)
#: Functions from sums to outputs, by number; as in kernels.c.
LINKS = (
    "none",
    "sigmoid",
    "softmax",
    "exp",
    "mean",
    "sigmoid32",
    "softmax32",
    "exp32",
    "signed_square",
    "log1p_exp",
    "sigmoid_each",
)

_FIELDS = [
    "inputs",
    "width",
    "prepared_is_raw",
    "*column_source",
    "*column_ops",
    "*op_code",
    "*op_argument",
    "*tables",
    "outputs",
    "link",
    "single_precision",
    "vector_leaves",
    "trees",
    ".link_argument",
    "*base",
    "*weights",
    "plain",
    "*nodes",
    "*roots",
    "*group",
    "*leaf_start",
    "*leaves",
    "*set_start",
    "*sets",
    "bits",
    "*scan_start",
    "*scan_tree",
    "*scan_threshold",
    "*scan_mask",
    "*nan_start",
    "*nan_tree",
    "*nan_mask",
    "*category_start",
    "*category_tree",
    "*category_node",
    "*category_mask",
    "*bitvectors",
    "*row",
    "*prepared",
    "*result",
    "*node_cover",
    "*leaf_cover",
]
_TYPES: dict[str, Any] = {"*": ctypes.c_void_p, ".": ctypes.c_double}

#: One inner node of a tree; as in kernels.c.
NODE = np.dtype([("threshold", "f8"), ("feature", "i4"), ("left", "i4"), ("right", "i4"), ("flags", "i4")])
DEFAULT_LEFT, CATEGORICAL, ZERO_IS_MISSING = 1, 2, 4

#: Arrays of a plan by name, with their types; those of masks are uint32 or uint64.
ARRAYS: dict[str, Any] = {
    **dict.fromkeys(
        [
            "column_source",
            "column_ops",
            "op_code",
            "roots",
            "group",
            "leaf_start",
            "set_start",
            "scan_start",
            "scan_tree",
            "nan_start",
            "nan_tree",
            "category_start",
            "category_tree",
            "category_node",
        ],
        np.dtype("i4"),
    ),
    **dict.fromkeys(
        [
            "op_argument",
            "tables",
            "base",
            "weights",
            "leaves",
            "scan_threshold",
            "node_cover",
            "leaf_cover",
            "background",
        ],
        np.dtype("f8"),
    ),
    "sets": np.dtype("u4"),
    "nodes": NODE,
}
MASKS = ("scan_mask", "nan_mask", "category_mask")

Floats = npt.NDArray[np.float64]


class _Plan(ctypes.Structure):
    _fields_ = [(each.lstrip("*."), _TYPES.get(each[0], ctypes.c_int64)) for each in _FIELDS]


@cache
def load_kernels() -> ctypes.CDLL:
    """The loaded kernels.

    Raises:
        MissingExtra: They were not built, were built of another release, or do not run on this machine.
    """
    hint = "install Millpond again, from a wheel or where a C compiler is; until then versions run natively"
    if not LIBRARY.is_file():
        raise MissingExtra("the kernels of compiled plans are not installed", where=str(LIBRARY), hint=hint)
    try:
        found = ctypes.CDLL(str(LIBRARY))
        found.millpond_kernels.restype = found.millpond_plan_size.restype = ctypes.c_int64
        built = (found.millpond_kernels(), found.millpond_plan_size())
    except (OSError, AttributeError) as error:
        what = f"the kernels of compiled plans do not load: {error}"
        raise MissingExtra(what, where=str(LIBRARY), hint=hint) from error
    if built != (LAYOUT, ctypes.sizeof(_Plan)):
        what = f"the kernels of compiled plans are of layout {built[0]}, and this release needs {LAYOUT}"
        raise MissingExtra(what, where=str(LIBRARY), hint=hint)
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    found.millpond_score_one.restype = found.millpond_prepare.restype = ctypes.c_int64
    found.millpond_score_one.argtypes = [pointer]
    found.millpond_prepare.argtypes = [pointer, pointer, count, pointer]
    found.millpond_score.argtypes, found.millpond_score.restype = [pointer, pointer, count, count, pointer], None
    found.millpond_widest.argtypes, found.millpond_widest.restype = [count], None
    found.millpond_explain.argtypes, found.millpond_explain.restype = [pointer, pointer, count, pointer, pointer], None
    return found


class Kernel:
    """A plan's arrays bound to the kernels, with buffers for one row: one call of `score_one` at a time.

    Args:
        sizes: The integers and the argument of the link, by field of `struct plan`.
        arrays: By field of `struct plan`; kept, and never written to. Valid: see `forest.check`.

    Attributes:
        row: float64 (inputs,): the row that `score_one` reads.
        result: float64 (outputs,): what it writes.
    """

    def __init__(self, sizes: Mapping[str, int | float], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        self._library = load_kernels()
        self._arrays = dict(arrays)
        self._inputs, self._width = int(sizes["inputs"]), int(sizes["width"])
        self.outputs = int(sizes["outputs"])
        self.row, self.prepared = np.zeros(max(self._inputs, 1)), np.zeros(max(self._width, 1))
        self.result = np.zeros(self.outputs)
        buffers: dict[str, npt.NDArray[Any]] = {"row": self.row, "prepared": self.prepared, "result": self.result}
        if sizes["bits"]:
            buffers["bitvectors"] = _aligned(int(sizes["trees"]) * BLOCK)
        self._arrays |= buffers
        self._plan = _Plan()
        for name, value in sizes.items():
            setattr(self._plan, name, value)
        for name, array in self._arrays.items():
            if hasattr(_Plan, name):
                setattr(self._plan, name, array.ctypes.data)
        self.address = ctypes.addressof(self._plan)

    def score_one(self) -> int:
        """Score `row` into `result`; 0, or 1 + the index of the input whose value the original refuses."""
        refused: int = self._library.millpond_score_one(self.address)
        return refused

    def prepare(self, rows: Floats) -> tuple[Floats, int]:
        """Prepared columns (n, width) of raw rows (n, inputs), and what was refused as in `score_one`."""
        if self._plan.prepared_is_raw:
            return rows, 0
        out = np.empty((len(rows), self._width))
        refused = self._library.millpond_prepare(self.address, rows.ctypes.data, len(rows), out.ctypes.data)
        return out, refused

    def score(self, prepared: Floats, *, raw: bool = False) -> Floats:
        """Outputs (n, outputs) of prepared rows; the sums before the link where `raw`."""
        out = np.empty((len(prepared), self.outputs))
        self._library.millpond_score(self.address, prepared.ctypes.data, len(prepared), int(raw), out.ctypes.data)
        return out

    def explain(self, prepared: Floats, depth: int) -> Floats:
        """Contributions (n, width) of prepared columns; `depth` is that of the deepest tree."""
        out = np.zeros((len(prepared), max(self._width, 1)))
        path = np.empty((depth + 3) * (depth + 4) // 2 * 4)
        self._library.millpond_explain(
            self.address, prepared.ctypes.data, len(prepared), path.ctypes.data, out.ctypes.data
        )
        return out


def _aligned(count: int) -> npt.NDArray[np.uint64]:
    """Zeros that begin on a 64-byte boundary."""
    room = np.zeros(count + 8, dtype=np.uint64)
    start = (-room.ctypes.data % 64) // 8
    return room[start : start + count]
