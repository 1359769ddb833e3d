"""Models in MLflow's format that Millpond did not write: what they take and give."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from millpond.core.errors import NotFound, VersionRefused
from millpond.core.names import did_you_mean
from millpond.registry.mlflow_library import quiet

_TYPES = {
    "double": "float64",
    "float": "float64",
    "integer": "int64",
    "long": "int64",
    "boolean": "bool",
    "string": "string",
    "datetime": "instant",
}
_EXAMPLE_ROWS = 20
_PLAIN = {"float64": 0.0, "int64": 0, "bool": False, "string": ""}


@dataclass(frozen=True)
class ForeignModel:
    """A model that something else than Millpond wrote.

    Attributes:
        directory: Where its `MLmodel` lies.
        inputs: What it takes: name -> "float64", "int64", "bool", "string", "instant". Of a model without column
            names, "0", "1", ...
        required: Inputs that may not be null, in no particular order.
        matrix: Whether it takes one tensor of shape (rows, inputs) instead of columns.
        example: Rows to try it with: a frame, or an array where `matrix`.
        outputs: What it gave for them: (name, type, width) a column; width 0 is one value a row.
        expected: Its numbers for them, flattened row by row; () where it does not give numbers.
        flavour: "lightgbm", "sklearn", "xgboost", ... or "python_function".
        requirements: Distribution -> exact version, of its requirements that are pinned.
        estimator: What its library knows it by; None where only `predict` is known.
        predict: What MLflow calls, with a frame or an array like `example`.
    """

    directory: Path
    inputs: Mapping[str, str]
    required: tuple[str, ...]
    matrix: bool
    example: Any
    outputs: tuple[tuple[str, str, int], ...]
    expected: tuple[float, ...]
    flavour: str
    requirements: Mapping[str, str]
    estimator: Any
    predict: Callable[[Any], Any]


@contextlib.contextmanager
def fetched(source: str) -> Iterator[Path]:
    """The directory of a model: a path, or one that MLflow downloads ("models:/NAME/1", "runs:/ID/model", a URL).

    Raises:
        NotFound: There is no model there.
    """
    import tempfile

    if "://" not in source and not source.startswith(("models:/", "runs:/")):
        directory = Path(source).expanduser()
        if not (directory / "MLmodel").is_file():
            hint = "give the folder that holds MLmodel, or models:/NAME/VERSION of a registry of MLflow's"
            raise NotFound(f"There is no MLflow model at {source}", hint=hint)
        yield directory
        return
    import mlflow

    if source.startswith(("models:/", "runs:/")) and not mlflow.is_tracking_uri_set():
        hint = "say where: export MLFLOW_TRACKING_URI=http://..., or give the model's folder"
        raise NotFound(f"{source} is in some MLflow, and nothing says in which", hint=hint)
    with tempfile.TemporaryDirectory(prefix="millpond-model-") as folder:
        try:
            with quiet():
                import mlflow.artifacts

                found = mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=folder)
        except Exception as error:
            first = str(error).strip().partition("\n")[0] or type(error).__name__
            hint = "MLFLOW_TRACKING_URI says which MLflow is asked"
            raise NotFound(f"MLflow does not give {source}: {first}", hint=hint) from error
        yield Path(found)


def describe(directory: Path, inputs: Mapping[str, str] | None = None) -> ForeignModel:
    """Load a model, try it, and see what it takes and gives. Runs the model's code in this process.

    Args:
        directory: Where its `MLmodel` lies.
        inputs: What it takes, where its signature does not say so.

    Raises:
        VersionRefused: It cannot be loaded, does not say what it takes, takes what a table cannot hold, or fails.
    """
    from mlflow.models import Model

    try:
        with quiet():
            model = Model.load(str(directory))
            import mlflow.pyfunc

            loaded = mlflow.pyfunc.load_model(str(directory))
    except Exception as error:
        raise VersionRefused(
            f"The model cannot be loaded: {type(error).__name__}: {str(error).partition(chr(10))[0]}",
            where=str(directory),
            hint="install what it needs (see its requirements.txt), or save it again",
        ) from error
    named, required, matrix = _takes(model, loaded, inputs, directory)
    example = _example(model, directory, named, matrix)
    try:
        with quiet():
            given = loaded.predict(example)
    except Exception as error:
        raise VersionRefused(
            f"The model fails on its example: {type(error).__name__}: {str(error).partition(chr(10))[0]}",
            where=str(directory),
            hint="save it with an input_example that it can answer",
        ) from error
    outputs, expected = _gives(given, len(example), directory)
    required = (*required, *_without_null(loaded, example, named, required))
    flavours = [each for each in model.flavors if each != "python_function"]
    requirements = _requirements(directory / "requirements.txt")
    return ForeignModel(
        directory,
        named,
        required,
        matrix,
        example,
        outputs,
        expected,
        flavours[0] if flavours else "python_function",
        requirements,
        _raw(loaded),
        loaded.predict,
    )


def _raw(loaded: Any) -> Any:
    """The object of the library that a model was made with; None where MLflow does not say."""
    try:
        return loaded.get_raw_model()
    except (AttributeError, NotImplementedError):
        # MLflow raises NotImplementedError where a flavour has none; a flavour's own wrapper may lack what it would
        # give. Without the object there is no plan, and the model is served natively.
        return None


def _takes(
    model: Any, loaded: Any, inputs: Mapping[str, str] | None, directory: Path
) -> tuple[dict[str, str], tuple[str, ...], bool]:
    if inputs is not None:
        return dict(inputs), (), False
    schema = model.signature.inputs if model.signature is not None else None
    if schema is None:
        return _of_estimator(loaded, directory)
    if schema.is_tensor_spec():
        spec = schema.inputs[0]
        if len(schema.inputs) > 1 or len(spec.shape) != 2 or spec.shape[1] < 1 or spec.type.kind not in "fiu":
            raise VersionRefused(
                f"The model takes {schema}, and Millpond serves columns, or one tensor of numbers [rows, inputs]",
                where=str(directory),
                hint="wrap it in a pyfunc model that takes columns",
            )
        return {str(number): "float64" for number in range(spec.shape[1])}, (), True
    named: dict[str, str] = {}
    for column in schema.inputs:
        kind = _TYPES.get(getattr(column.type, "name", str(column.type)))
        if kind is None or column.name is None:
            raise VersionRefused(
                f"The model's input {column.name!r} is of type {column.type}, which no column of a table has",
                where=str(directory),
                hint=f"inputs may be {', '.join(sorted(_TYPES))}",
            )
        named[column.name] = kind
    return named, tuple(each.name for each in schema.inputs if each.required and named[each.name] != "float64"), False


def _of_estimator(loaded: Any, directory: Path) -> tuple[dict[str, str], tuple[str, ...], bool]:
    """What the estimator itself says of its features, where the model has no signature."""
    raw = _raw(loaded)
    count = None
    for name in ("num_feature", "num_features"):
        if callable(getattr(raw, name, None)):
            count = int(getattr(raw, name)())
            break
    else:
        count = getattr(raw, "n_features_in_", None)
    if count is None or getattr(raw, "feature_names_in_", None) is not None:
        raise VersionRefused(
            "The model does not say what it takes: it has no signature",
            where=str(directory),
            hint="say so with --input NAME=TYPE for each column, or save it with "
            "signature=mlflow.models.infer_signature(inputs, outputs)",
        )
    return {str(number): "float64" for number in range(count)}, (), True


def _example(model: Any, directory: Path, inputs: Mapping[str, str], matrix: bool) -> Any:
    import numpy as np
    import pandas as pd

    example = None
    if model.saved_input_example_info is not None:
        with quiet():
            example = model.load_input_example(str(directory))
    if matrix:
        if example is None:
            return np.zeros((1, len(inputs)))
        return np.asarray(example, dtype="float64").reshape(-1, len(inputs))[:_EXAMPLE_ROWS]
    if example is None:
        moment = pd.Timestamp("2024-01-01")
        example = pd.DataFrame({name: [_PLAIN.get(kind, moment)] for name, kind in inputs.items()})
    frame = pd.DataFrame(example)
    missing = [name for name in inputs if name not in frame]
    if missing:
        hint = did_you_mean(missing[0], [str(each) for each in frame.columns], noun="columns")
        raise VersionRefused(f"The model's input example has no column {missing[0]!r}", where=str(directory), hint=hint)
    return frame[list(inputs)][:_EXAMPLE_ROWS]


def _without_null(loaded: Any, example: Any, inputs: Mapping[str, str], required: tuple[str, ...]) -> list[str]:
    """The numbers that may not be null, seen by asking for a row without any."""
    import numpy as np

    numbers = [name for name, kind in inputs.items() if kind == "float64" and name not in required]
    if not numbers:
        return []
    try:
        with quiet():
            if hasattr(example, "columns"):
                loaded.predict(example[:1].assign(**dict.fromkeys(numbers, np.nan)))
            else:
                loaded.predict(np.full((1, len(inputs)), np.nan))
    except Exception:  # as many kinds as there are models
        return numbers
    return []


def _gives(given: Any, rows: int, directory: Path) -> tuple[tuple[tuple[str, str, int], ...], tuple[float, ...]]:
    import numpy as np
    import pandas as pd

    if isinstance(given, pd.DataFrame):
        columns = {str(name): given[name].to_numpy() for name in given.columns}
    elif isinstance(given, Mapping):
        columns = {str(name): np.asarray(value) for name, value in given.items()}
    else:
        columns = {"output": np.asarray(given)}
    outputs = []
    numbers = []
    for name, values in columns.items():
        kind = {"f": "float64", "i": "int64", "u": "int64", "b": "bool"}.get(values.dtype.kind, "string")
        if values.ndim not in (1, 2) or len(values) != rows:
            raise VersionRefused(
                f"The model gave {name!r} of shape {values.shape} for {rows} rows",
                where=str(directory),
                hint="an output has one value a row, or one vector of a fixed length",
            )
        width = int(values.size / max(rows, 1)) if values.ndim == 2 else 0
        outputs.append((name, kind, width))
        if kind != "string":
            numbers.append(values.reshape(rows, -1).astype("float64"))
    flat = np.concatenate(numbers, axis=1).ravel() if len(numbers) == len(columns) else np.array([])
    return tuple(outputs), tuple(flat.tolist())


def _requirements(file: Path) -> dict[str, str]:
    if not file.is_file():
        return {}
    lines = [line.partition(";")[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
    return {name.strip(): version.strip() for name, mark, version in (line.partition("==") for line in lines) if mark}
