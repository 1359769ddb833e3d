"""Requests as each kind of server takes them, and their answers as numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

MANY = 1_000  # rows in a large request
LARGE = 4  # different large requests; each row of the case leads one small request
CHECKED = 25  # small requests that are checked, besides a large one
_DATATYPES = {"float64": "FP64", "int64": "INT64", "bool": "BOOL", "string": "BYTES"}


@dataclass(frozen=True)
class Case:
    """Rows for a model, and what the model says to each.

    Attributes:
        model: Its name.
        types: Column -> "float64", "int64", "bool" or "string".
        rows: At least 200 different ones.
        answers: Its probability of each.
        canary: That of the version that answers some of the requests instead; empty where there is none.
    """

    model: str
    types: Mapping[str, str]
    rows: Sequence[Sequence[Any]]
    answers: Sequence[float]
    canary: Sequence[float] = ()

    @classmethod
    def read(cls, folder: Path, model: str) -> Case:
        found = json.loads((folder / "cases" / f"{model}.json").read_text())
        return cls(model, found["types"], found["rows"], found["answers"], found["canary"])

    @property
    def matrix(self) -> bool:
        """Whether the model is asked with one tensor of all columns, where the server takes one."""
        return self.model == "lightgbm"

    def parts(self, rows: int) -> list[list[int]]:
        """Which rows are in each request of so many rows."""
        if rows == 1:
            return [[each] for each in range(len(self.rows))]
        shift = len(self.rows) // LARGE
        return [[(first * shift + each) % len(self.rows) for each in range(rows)] for first in range(LARGE)]


Body = Callable[[Case, Sequence[Sequence[Any]]], dict[str, Any]]
Reader = Callable[[Mapping[str, Any]], Sequence[float]]


def open_inference(case: Case, rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """The Open Inference Protocol: a tensor of all rows, or a tensor a column."""
    if case.matrix:
        shape = [len(rows), len(case.types)]
        flat = [value for row in rows for value in row]
        return {"inputs": [{"name": "input", "shape": shape, "datatype": "FP64", "data": flat}]}
    return _columns(case, rows)


def _columns(case: Case, rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    return {
        "inputs": [
            {"name": name, "shape": [len(rows), 1], "datatype": _DATATYPES[type], "data": [row[index] for row in rows]}
            for index, (name, type) in enumerate(case.types.items())
        ]
    }


def open_inference_numbers(case: Case, rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """A tensor a column for models with an MLflow signature, which says double for booleans too."""
    document = _columns(case, rows)
    for tensor in document["inputs"]:
        if tensor["datatype"] == "BOOL":
            tensor.update(datatype="FP64", data=[float(value) for value in tensor["data"]])
        elif tensor["datatype"] == "BYTES":
            tensor["parameters"] = {"content_type": "str"}
    return {**document, "parameters": {"content_type": "pd"}}


def mlflow_scoring(case: Case, rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """What `/invocations` of MLflow takes for a model whose signature names columns."""
    flags = {index for index, type in enumerate(case.types.values()) if type == "bool"}
    data = [[float(value) if index in flags else value for index, value in enumerate(row)] for row in rows]
    return {"dataframe_split": {"columns": list(case.types), "data": data}}


def plain(case: Case, rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """For frameworks that prescribe no body: see `peers.scoring.Scorer.document`."""
    if case.matrix:
        return {"rows": rows}
    return {"columns": {name: [row[index] for row in rows] for index, name in enumerate(case.types)}}


def wrapped(case: Case, rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """The same as the argument `document` of a method."""
    return {"document": plain(case, rows)}


def read_tensors(document: Mapping[str, Any]) -> Sequence[float]:
    """The first output of floats of an answer of the Open Inference Protocol."""
    data: Sequence[float] = next(each["data"] for each in document["outputs"] if each["datatype"].startswith("FP"))
    return data


def read_predictions(document: Mapping[str, Any]) -> Sequence[float]:
    """{"predictions": [...]}"""
    data: Sequence[float] = document["predictions"]
    return data


def write(folder: Path, case: Case, body: Body) -> dict[int, Path]:
    """Files with one request a line, by the number of rows in each request."""
    files = {}
    for number in (1, MANY):
        path = files[number] = folder / f"{case.model}-{body.__name__}-{number}.jsonl"
        if not path.exists():
            lines = [
                json.dumps(body(case, [case.rows[each] for each in part]), separators=(",", ":"))
                for part in case.parts(number)
            ]
            path.write_text("\n".join(lines) + "\n")
    return files


def missing(case: Case, body: Body, read: Reader, client: httpx.Client, url: str) -> str:
    """Why the server does not answer the first row yet; empty once it does, and with the model's own number.

    Raises:
        SystemExit: It answers something else, or fails.
    """
    try:
        answer = client.post(url, json=body(case, case.rows[:1]))
    except httpx.TransportError as error:
        return str(error)
    told = f"answers {answer.status_code}: {answer.text[:200]}"
    if answer.status_code in (404, 503) or "not ready" in answer.text:  # of MLServer with 400
        return told
    if answer.status_code != 200 or not agrees(case, [0], read(answer.json())):
        raise SystemExit(told)
    return ""


def check(case: Case, body: Body, read: Reader, client: httpx.Client, url: str) -> None:
    """Compare answers with the model's own.

    Raises:
        SystemExit: The server refuses a request, or says something else.
    """
    for part in [*case.parts(1)[:CHECKED], case.parts(MANY)[1]]:
        answer = client.post(url, json=body(case, [case.rows[each] for each in part]), timeout=120)
        if answer.status_code != 200:
            raise SystemExit(f"answers {answer.status_code}: {answer.text[:300]}")
        if not agrees(case, part, read(answer.json())):
            raise SystemExit(f"says something else than the model to {len(part)} rows from row {part[0]}")


def agrees(case: Case, part: Sequence[int], found: Sequence[float]) -> bool:
    """Whether the answers are the model's, or its canary's, to a relative 1e-6, which is what float32 keeps."""
    if len(found) != len(part):
        return False
    sets = [case.answers, case.canary] if case.canary else [case.answers]
    return any(
        all(abs(float(value) - each[row]) <= 1e-6 * abs(each[row]) for row, value in zip(part, found, strict=True))
        for each in sets
    )
