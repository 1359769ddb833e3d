"""Answers a lane's calls by the model of an MLflow directory. Run by path, in the environment of the version.

    python native.py DIRECTORY VERSION_AS_JSON

It needs the standard library, NumPy, PyYAML and what the model needs, and not Millpond. VERSION_AS_JSON is what
`lanes.command` writes: task, inputs, outputs, matrix.

The scikit-learn flavour is unpickled directly, without importing MLflow; every other one, a class of the user's own
among them, is loaded by `mlflow.pyfunc`.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and sys.path and __file__.startswith(sys.path[0] + "/"):
    sys.path.pop(0)  # the folder of this file, whose names are nothing to the model

import gc
import importlib
import importlib.util
import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from millpond.serving.lanes import wire
else:
    _spec = importlib.util.spec_from_file_location("millpond_lane_wire", Path(__file__).with_name("wire.py"))
    wire = importlib.util.module_from_spec(_spec)
    sys.modules[_spec.name] = wire
    _spec.loader.exec_module(wire)

#: MLflow's names of column types -> NumPy's, where nothing is null.
_MLFLOW_TYPES = {"boolean": "bool", "integer": "int32", "long": "int64", "float": "float32", "double": "float64"}


class Version(NamedTuple):
    """What is answered for.

    Attributes:
        task: "classification", "regression" or "other".
        inputs: Raw inputs of the model, in order: name -> "bool", "int64", "float64" or "string".
        outputs: Name, type and width of each output, in order; a width of 0 is one value a row.
        matrix: Whether the model takes one array of shape (rows, inputs).
    """

    task: str
    inputs: Mapping[str, str]
    outputs: Sequence[tuple[str, str, int]]
    matrix: bool


def main(directory: Path, version: Version) -> int:
    connection = wire.Connection()
    try:
        answer = load(directory, version)
    except Exception as error:
        connection.refuse(error)
        return 1
    gc.collect()
    gc.freeze()
    connection.serve(answer)
    return 0


def load(directory: Path, version: Version) -> Callable[[wire.Frame], wire.Frame]:
    """What answers calls with a model; raises whatever loading raises."""
    import yaml  # type: ignore[import-untyped]

    described = yaml.safe_load((directory / "MLmodel").read_text())
    own = "millpond" in (described.get("metadata") or {})
    types = {} if own else _column_types(described)
    flavour = described.get("flavors", {}).get("sklearn")
    if flavour is not None:
        if flavour.get("code"):  # modules that were logged with the model; MLflow puts them on the path too
            sys.path.insert(0, str(directory / flavour["code"]))
        predict = _of_estimator(_unpickled(directory, flavour), version, flavour.get("predict_fn") or "predict")
    else:
        predict = _of_pyfunc(directory)
    if not version.matrix:
        importlib.import_module("pandas")  # now, and not within the first call, whose time is bounded

    def answer(call: wire.Frame) -> wire.Frame:
        if version.matrix:
            given: Any = as_matrix(call, version.inputs, types.get(""))
        else:
            given = trained_frame(call, version.inputs) if own else typed_frame(call, version.inputs, types)
        columns = outputs_of(predict(given), version, call.rows)
        return wire.Frame("answer", call.number, call.rows, tuple(name for name, _, _ in version.outputs), columns)

    return answer


# The model


def _unpickled(directory: Path, flavour: Mapping[str, Any]) -> Any:
    path = directory / flavour["pickled_model"]
    form = flavour.get("serialization_format", "pickle")
    if form == "skops":
        import skops.io  # type: ignore[import-untyped]

        return skops.io.load(path, trusted=flavour.get("skops_trusted_types"))
    if form not in ("pickle", "cloudpickle"):
        raise ValueError(f"the model is serialized as {form!r}, which is not known here")
    with path.open("rb") as file:
        return pickle.load(file)  # noqa: S301


def _of_estimator(estimator: Any, version: Version, method: str) -> Callable[[Any], Any]:
    if version.task != "classification":
        predict: Callable[[Any], Any] = getattr(estimator, "predict" if version.task == "regression" else method)
        return predict
    classes = list(getattr(estimator, "classes_", ()))
    if not hasattr(estimator, "predict_proba") or len(classes) != 2:
        raise ValueError(
            f"a classification needs an estimator with predict_proba and two classes; "
            f"{type(estimator).__name__} has the classes {classes}"
        )
    return lambda given: estimator.predict_proba(given)[:, 1]


def _of_pyfunc(directory: Path) -> Callable[[Any], Any]:
    import mlflow.pyfunc

    model = mlflow.pyfunc.load_model(str(directory))
    predict: Callable[[Any], Any] = model.predict
    schema = model.metadata.get_input_schema()
    tensors = {each.name: each for each in schema.inputs} if schema is not None and schema.is_tensor_spec() else {}
    if not any(tensors):
        return predict
    return lambda frame: predict({name: _tensor(frame[name], spec) for name, spec in tensors.items()})


def _tensor(column: Any, spec: Any) -> Any:
    """A column as a named tensor of one value a row."""
    return np.asarray(column.to_numpy(), dtype=spec.type).reshape((-1, *spec.shape[1:]))


def _column_types(described: Mapping[str, Any]) -> dict[str, str]:
    """Input name -> type as MLflow's signature has it; "" for the one unnamed tensor; empty without a signature."""
    inputs = json.loads((described.get("signature") or {}).get("inputs") or "[]")
    return {
        each.get("name", ""): each["tensor-spec"]["dtype"] if each["type"] == "tensor" else each["type"]
        for each in inputs
        if isinstance(each.get("type"), str)
    }


# Inputs


def trained_frame(call: wire.Frame, inputs: Mapping[str, str]) -> Any:
    """Raw inputs exactly as the frame that Millpond trains on: `training.frame.to_frame` says how."""
    import pandas as pd

    index = pd.RangeIndex(call.rows)
    if call.matrix is not None and call.names == tuple(inputs):
        return pd.DataFrame(call.matrix, index=index, columns=list(inputs), copy=False)
    found = _by_name(call)
    columns = {
        name: pd.Series(_objects(found[name]), index=index, dtype=object, copy=False)
        if kind == "string"
        else _floats(found[name])
        for name, kind in inputs.items()
    }
    return pd.DataFrame(columns, index=index, copy=False)  # four times as fast as one block of copies


def typed_frame(call: wire.Frame, inputs: Mapping[str, str], types: Mapping[str, str]) -> Any:
    """Raw inputs as a frame of the types that the model's signature names, else of those that are declared.

    Whole numbers with nulls become float64 with NaN, booleans with nulls objects with None.
    """
    import pandas as pd

    index = pd.RangeIndex(call.rows)
    found = _by_name(call)
    columns = {name: _typed(pd, found[name], kind, types.get(name, ""), index) for name, kind in inputs.items()}
    return pd.DataFrame(columns, index=index, columns=list(inputs))


def _typed(pd: Any, column: Any, kind: str, told: str, index: Any) -> Any:
    if kind == "string":
        values = pd.Series(_objects(column), index=index, dtype=object)
        return pd.to_datetime(values) if told == "datetime" else values
    wanted = _MLFLOW_TYPES.get(told, told if told.startswith(("int", "uint", "float", "bool")) else kind)
    if told == "datetime":
        return pd.to_datetime(pd.Series(column, index=index), unit="us")
    if wanted.startswith("float"):
        return pd.Series(_floats(column).astype(wanted, copy=False), index=index)
    values = _floats(column)
    if np.isnan(values).any():
        return pd.Series(_objects(column) if wanted == "bool" else values, index=index)
    return pd.Series(np.asarray(column).astype(wanted, copy=False), index=index)


def as_matrix(call: wire.Frame, inputs: Mapping[str, str], dtype: str | None) -> Any:
    """Raw inputs as one array of shape (rows, inputs), in the type that the model's signature names, else float64."""
    if call.matrix is not None and call.names == tuple(inputs):
        matrix = call.matrix
    else:
        found = _by_name(call)
        matrix = np.column_stack([_floats(found[name]) for name in inputs])
    return np.ascontiguousarray(matrix, dtype=np.dtype(dtype) if dtype else np.float64)


def _by_name(call: wire.Frame) -> dict[str, Any]:
    if call.matrix is not None:
        return {name: call.matrix[:, index] for index, name in enumerate(call.names)}
    return dict(zip(call.names, call.columns))  # noqa: B905 - Python 3.9


def _floats(column: Any) -> Any:
    return np.asarray(column, dtype=np.float64)


def _objects(column: Any) -> Any:
    values = np.empty(len(column), dtype=object)
    values[:] = column
    return values


# Outputs


def outputs_of(given: Any, version: Version, rows: int) -> tuple[Any, ...]:
    """What a model gave, as the outputs of the version: arrays, or lists with None for null.

    Raises:
        ValueError: It does not fit the outputs or the rows.
    """
    if version.task != "other":
        values = np.asarray(given, dtype=np.float64)
        found: Mapping[str, Any] = {version.outputs[0][0]: values[:, -1] if values.ndim == 2 else values}
    else:
        found = _named(given, [name for name, _, _ in version.outputs])
    return tuple(_column(name, found[name], kind, width, rows) for name, kind, width in version.outputs)


def _named(given: Any, names: list[str]) -> Mapping[str, Any]:
    if isinstance(given, list) and given and all(isinstance(each, Mapping) for each in given):
        given = {name: [each.get(name) for each in given] for name in names}
    if hasattr(given, "columns") and hasattr(given, "iloc"):
        if all(name in given.columns for name in names):
            return {name: given[name].to_numpy() for name in names}
        if len(given.columns) == len(names):
            return {name: given.iloc[:, index].to_numpy() for index, name in enumerate(names)}
        raise ValueError(f"the model gave the columns {list(given.columns)}, and its outputs are {names}")
    if isinstance(given, Mapping):
        if all(name in given for name in names):
            return {name: given[name] for name in names}
        if len(given) == len(names) == 1:
            return {names[0]: next(iter(given.values()))}
        raise ValueError(f"the model gave {sorted(map(str, given))}, and its outputs are {names}")
    if hasattr(given, "toarray"):
        given = given.toarray()
    if len(names) == 1:
        return {names[0]: given}
    values = np.asarray(given)
    if values.ndim != 2 or values.shape[1] != len(names):
        raise ValueError(f"the model gave values of shape {values.shape}, and its outputs are {names}")
    return {name: values[:, index] for index, name in enumerate(names)}


def _column(name: str, given: Any, kind: str, width: int, rows: int) -> Any:
    values = np.asarray(given) if not hasattr(given, "to_numpy") else given.to_numpy()
    if values.ndim == 0:
        values = values.reshape(1)
    if width:
        if values.dtype == object:
            values = np.stack([np.asarray(each, dtype=np.float64) for each in values])
        if values.shape[0] == rows and values.size == rows * width:
            return np.ascontiguousarray(values, dtype=np.float64).reshape(rows, width)
    elif values.shape[0] == rows and values.size == rows:
        return _plain(values.reshape(rows), kind)
    wanted = (rows, width) if width else (rows,)
    raise ValueError(f"the model gave output {name!r} of shape {values.shape} for {rows} rows; it should be {wanted}")


def _plain(values: Any, kind: str) -> Any:
    if kind == "string":
        return [None if each is None or each != each else str(each) for each in values.tolist()]  # noqa: PLR0124
    if kind == "float64":
        return values.astype(np.float64)
    wanted = np.int64 if kind == "int64" else np.bool_
    if values.dtype.kind in "iub":
        return values.astype(wanted)
    nulls = np.array([each is None or each != each for each in values.tolist()], dtype=bool)  # noqa: PLR0124
    if not nulls.any():
        return values.astype(wanted)
    convert = int if kind == "int64" else bool
    return [None if null else convert(each) for each, null in zip(values.tolist(), nulls)]  # noqa: B905


def version_of(text: str) -> Version:
    told = json.loads(text)
    outputs = tuple((name, kind, width) for name, kind, width in told["outputs"])
    return Version(told["task"], told["inputs"], outputs, told["matrix"])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), version_of(sys.argv[2])))
