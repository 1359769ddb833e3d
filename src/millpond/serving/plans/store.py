"""Plans as files: `plan.json`, and beside it the arrays in one file that worker processes map into shared memory.

The arrays' file is named after its checksum, and `plan.json` is written last, so that a directory holds the old plan or
the new one, whole, whenever its writer is killed.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from millpond.core.errors import StoreMismatch, Unavailable
from millpond.serving.plans.kernels import ARRAYS, LAYOUT, LINKS, MASKS, OPERATIONS
from millpond.serving.plans.plan import NUMPY_LINKS, REFUSED, Codes, Described, Plan

FORMAT = 1
DESCRIPTION = "plan.json"
_ALIGNMENT = 64
_HINT = "train the version again, or delete this directory: the version is then served natively"


def to_files(plan: Plan) -> dict[str, bytes]:
    """The files of a plan: name -> content; `plan.json` is the last."""
    body, index = bytearray(), {}
    for name, array in sorted(plan.arrays.items()):
        body += bytes(-len(body) % _ALIGNMENT)
        index[name] = {"at": len(body), "shape": list(array.shape), "bytes": array.nbytes}
        body += np.ascontiguousarray(array).tobytes()
    checksum = f"{zlib.crc32(body):08x}"
    described = asdict(plan.described)
    described["codes"] = {name: _pack(codes) for name, codes in plan.described.codes.items()}
    described["inputs"] = list(plan.described.inputs.items())
    head = {
        "format": FORMAT,
        "layout": LAYOUT,
        "arrays": {"file": f"arrays-{checksum}.bin", "crc32": checksum, "bytes": len(body), "index": index},
        "plan": described,
    }
    return {f"arrays-{checksum}.bin": bytes(body), DESCRIPTION: json.dumps(head, allow_nan=False).encode()}


def save(plan: Plan, directory: Path) -> None:
    """Write a plan, in place of the one that lies there. Durable when it returns.

    Raises:
        Unavailable: The files cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in to_files(plan).items():
            made = directory / f".{name}.{os.getpid()}"
            with made.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            made.replace(directory / name)
            _sync(directory)
    except OSError as error:
        raise Unavailable(f"a plan cannot be written: {error.strerror}", where=str(directory)) from error


def load_plan(directory: Path) -> Plan:
    """Read a plan; its arrays are mapped, not copied.

    Raises:
        StoreMismatch: The files are not whole, or of another release.
        MissingExtra: The kernels are not installed here.
    """
    path = directory / DESCRIPTION
    try:
        head = json.loads(path.read_bytes())
        if (head["format"], head["layout"]) != (FORMAT, LAYOUT):
            raise StoreMismatch(
                f"the plan is of format {head['format']}.{head['layout']}, and this release reads {FORMAT}.{LAYOUT}",
                where=str(path),
                hint=_HINT,
            )
        described = _described(head["plan"])
        arrays = _arrays(directory, head["arrays"], described.sizes)
        _check(described, arrays)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise StoreMismatch(f"the plan is damaged: {error}", where=str(path), hint=_HINT) from error
    return Plan(described, arrays)


def _described(found: Mapping[str, Any]) -> Described:
    codes = {name: _unpack(each) for name, each in found["codes"].items()}
    described = Described(**{**found, "inputs": dict(found["inputs"]), "codes": codes})
    if described.link not in LINKS or described.numpy_link not in NUMPY_LINKS:
        raise ValueError(f"there is no link {described.link!r} {described.numpy_link!r}")
    if set(codes) != {name for name, kind in described.inputs.items() if kind == "string"}:
        raise ValueError("its string inputs and their codes do not fit")
    return described


def _pack(codes: Codes) -> dict[str, Any]:
    def text(value: float | str) -> str:
        return value if isinstance(value, str) else float(value).hex()

    return {
        "known": [[key, text(value)] for key, value in codes.known.items()],
        "null": text(codes.null),
        "other": text(codes.other),
    }


def _unpack(found: Mapping[str, Any]) -> Codes:
    def number(text: str) -> float | str:
        return REFUSED if text == REFUSED else float.fromhex(text)

    known = {key: number(value) for key, value in found["known"]}
    return Codes(known, number(found["null"]), number(found["other"]))


def _arrays(directory: Path, found: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, npt.NDArray[Any]]:
    path = directory / Path(found["file"]).name
    body = np.memmap(path, dtype=np.uint8, mode="r") if found["bytes"] else np.zeros(0, dtype=np.uint8)
    if len(body) != found["bytes"] or f"{zlib.crc32(body.data):08x}" != found["crc32"]:
        raise ValueError(f"{path.name} is not what was written")
    word = np.dtype("u8") if sizes["bits"] == 64 else np.dtype("u4")
    arrays = {}
    for name, each in found["index"].items():
        dtype = word if name in MASKS else ARRAYS[name]
        part = body[each["at"] : each["at"] + each["bytes"]]
        arrays[name] = np.asarray(part).view(dtype).reshape(each["shape"])
    return arrays


def _check(described: Described, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Refuse arrays by which the kernels would read beyond an end."""
    sizes = described.sizes
    inputs, width, outputs = len(described.inputs), sizes["width"], sizes["outputs"]
    _require(sizes["inputs"] == inputs and outputs >= 1 and arrays["base"].shape == (outputs,), "sizes")
    if sizes["prepared_is_raw"]:
        _require(width == inputs, "width")
    else:
        _require_starts(arrays["column_ops"], width, len(arrays["op_code"]))
        _require_within(arrays["column_source"], inputs)
        _require(len(arrays["column_source"]) == width, "column_source")
        _require(len(arrays["op_argument"]) == len(arrays["op_code"]), "op_argument")
        _require_within(arrays["op_code"], len(OPERATIONS))
        _check_tables(arrays)
    if "weights" in arrays:
        _require(arrays["weights"].shape == (outputs, width), "weights")
    else:
        _check_forest(sizes, arrays)


def _check_tables(arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    tables = arrays["tables"]
    for code, extra, times in ((OPERATIONS.index("table"), 1, 1), (OPERATIONS.index("lookup"), 3, 2)):
        for at in arrays["op_argument"][arrays["op_code"] == code].astype(int).tolist():
            _require(at >= 0 and at + extra + times * int(tables[at]) <= len(tables) and tables[at] >= 0, "tables")


def _check_forest(sizes: Mapping[str, int], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    nodes, trees, width = arrays["nodes"], sizes["trees"], sizes["width"]
    leaves, sets = len(arrays["leaves"]), len(arrays["set_start"]) - 1
    shape = (leaves, sizes["outputs"]) if sizes["vector_leaves"] else (leaves,)
    _require(arrays["leaves"].shape == shape, "leaves")
    for name in ("roots", "group"):
        _require(len(arrays[name]) == trees, name)
    _require_within(arrays["group"], sizes["outputs"])
    _require_within(nodes["feature"], width)
    for child in (nodes["left"], nodes["right"], arrays["roots"]):
        _require_within(child + leaves, len(nodes) + leaves)
    _require_starts(arrays["leaf_start"], trees, leaves)
    _require_starts(arrays["set_start"], sets, len(arrays["sets"]))
    _require_within(nodes["threshold"][(nodes["flags"] & 2) != 0], sets)
    if "node_cover" in arrays:
        _require(len(arrays["node_cover"]) == len(nodes) and len(arrays["leaf_cover"]) == leaves, "covers")
    if sizes["bits"]:
        _require(sizes["bits"] in (32, 64) and not sizes["vector_leaves"], "bits")
        for kind in ("scan", "nan", "category"):
            _require_starts(arrays[f"{kind}_start"], width, len(arrays[f"{kind}_tree"]))
            _require_within(arrays[f"{kind}_tree"], trees)
            _require(len(arrays[f"{kind}_mask"]) == len(arrays[f"{kind}_tree"]), f"{kind}_mask")
        _require(len(arrays["scan_threshold"]) == len(arrays["scan_tree"]), "scan_threshold")
        _require_within(arrays["category_node"], len(nodes))
        _require(len(arrays["category_node"]) == len(arrays["category_tree"]), "category_node")


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"{what} is out of bounds")


def _require_within(values: npt.NDArray[Any], stop: int) -> None:
    _require(not len(values) or (int(values.min()) >= 0 and int(values.max()) < stop), "an index")


def _require_starts(values: npt.NDArray[Any], count: int, stop: int) -> None:
    _require(len(values) == count + 1 and values[0] == 0 and int(values[-1]) == stop, "a start")
    _require(bool((np.diff(values) >= 0).all()), "a start")


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
