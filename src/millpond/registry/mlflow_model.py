"""Writing a candidate as a directory in MLflow's own format.

MLmodel                   signature, flavours: sklearn (the bare pipeline) and python_function (see millpond_scorer)
model.pkl                 the pipeline, by cloudpickle
code/millpond_scorer.py   what python_function runs; needs MLflow and not Millpond
requirements.txt ...      exact pins of what the pickle refers to
input_example.json        for MLflow's tools
millpond/                 our own records, and the candidate's further files
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from millpond.core.errors import Unavailable, VersionRefused
from millpond.registry.environment import lock_text
from millpond.registry.mlflow_library import quiet
from millpond.registry.pickled import pinned_requirements, project_code_by_value
from millpond.registry.ports import Candidate
from millpond.registry.records import lineage_to_json
from millpond.registry.verify import EXPECTED

if TYPE_CHECKING:
    from mlflow.models import Model
    from mlflow.models.signature import ModelSignature

FOLDER = "millpond"
SPEC, LINEAGE, DIFF, ENVIRONMENT = "spec.json", "lineage.json", "uncommitted.diff", "environment.txt"
REPORT = "report.html"
_OWN_FILES = {SPEC, LINEAGE, DIFF, ENVIRONMENT, EXPECTED.name}
_SCORER = Path(__file__).with_name("millpond_scorer.py")


def write_model(candidate: Candidate, directory: Path, *, run_id: str, model_id: str, location: str) -> None:
    """Write the whole directory, and make it durable.

    Args:
        candidate: What to write.
        directory: Absent or empty.
        run_id: Of the run that it belongs to.
        model_id: Of MLflow's logged model that it belongs to.
        location: Artifact URI of the directory.

    Raises:
        VersionRefused: The estimator cannot be pickled, a record is no JSON, or a file's path is not relative.
        Unavailable: The directory cannot be written: no space, no permission.
    """
    from mlflow.models import Model

    model = Model(artifact_path=location, run_id=run_id, model_id=model_id)
    try:
        if candidate.source is not None:
            _copy(candidate.source, model, directory)
        else:
            _write_flavours(candidate, model, directory)
        _write_records(candidate, directory / FOLDER)
        sync(directory)
    except OSError as error:
        raise Unavailable(
            f"the files of model {candidate.model!r} cannot be written: {error.strerror}",
            where=str(directory),
            hint="look at the free space and the permissions there",
        ) from error


def _copy(source: Path, model: Model, directory: Path) -> None:
    """Take a model over as it is, under the ids of its new place."""
    shutil.copytree(source, directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    # What another Millpond kept beside it is of that store.
    shutil.rmtree(directory / FOLDER, ignore_errors=True)
    taken = type(model).load(str(source))
    taken.artifact_path, taken.run_id, taken.model_id = model.artifact_path, model.run_id, model.model_id
    # What Millpond says of models of its own does not hold for one that it did not write.
    taken.metadata = {name: value for name, value in (taken.metadata or {}).items() if name != "millpond"} or None
    taken.save(str(directory / "MLmodel"))


def signature(candidate: Candidate) -> ModelSignature:
    """Numbers and booleans as double, so that each may be null; every input optional."""
    from mlflow.models.signature import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    inputs = [ColSpec(DataType[mlflow_type(type)], name, required=False) for name, type in candidate.inputs.items()]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema([ColSpec(DataType.double)]))


def mlflow_type(type: str) -> str:
    """MLflow's name for an input type: numbers and booleans travel as double, because only that has a null."""
    return "string" if type == "string" else "double"


def _write_flavours(candidate: Candidate, model: Model, directory: Path) -> None:
    import mlflow.sklearn

    try:
        with quiet(), project_code_by_value(candidate.estimator) as modules:
            mlflow.sklearn.save_model(
                candidate.estimator,
                str(directory),
                mlflow_model=model,
                serialization_format=mlflow.sklearn.SERIALIZATION_FORMAT_CLOUDPICKLE,
                signature=signature(candidate),
                input_example=candidate.input_example,
                pip_requirements=pinned_requirements(modules),
                code_paths=[str(_SCORER)],
                metadata={
                    "millpond": {
                        "model": candidate.model,
                        "task": candidate.task,
                        "threshold": candidate.threshold,
                        "fingerprint": candidate.lineage.fingerprint,
                    }
                },
            )
    except OSError:
        raise
    except Exception as error:
        raise VersionRefused(
            f"the estimator of model {candidate.model!r} cannot be written to a file: {error}",
            where=f"{type(candidate.estimator).__module__}.{type(candidate.estimator).__qualname__}",
            hint="a step holds something of this process alone, such as an open file, a lock or a connection",
        ) from error
    model.flavors["python_function"]["loader_module"] = _SCORER.stem
    model.save(str(directory / "MLmodel"))


def _write_records(candidate: Candidate, folder: Path) -> None:
    texts = {
        SPEC: _json(candidate.spec, "spec"),
        LINEAGE: lineage_to_json(candidate.lineage),
        ENVIRONMENT: lock_text(candidate.lineage.packages),
        DIFF: candidate.lineage.code.diff,
        EXPECTED.name: _json(_expectation(candidate), "input example"),
    }
    for name, text in texts.items():
        _write(folder / name, text.encode(errors="surrogateescape"))
    for name, content in candidate.files.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts or str(path) in _OWN_FILES:
            raise VersionRefused(
                f"{name!r} is no place for a file of a version",
                where=f"files of model {candidate.model!r}",
                hint=f"a relative path without '..', and none of {', '.join(sorted(_OWN_FILES))}",
            )
        _write(folder / path, content)


def _expectation(candidate: Candidate) -> dict[str, Any]:
    frame = candidate.input_example
    if candidate.source is not None:
        return _foreign_expectation(candidate)
    return {
        "inputs": {name: mlflow_type(type) for name, type in candidate.inputs.items()},
        "columns": {name: _plain(frame[name], type) for name, type in candidate.inputs.items()},
        "expected": [float(value) for value in candidate.expected],
    }


def _foreign_expectation(candidate: Candidate) -> dict[str, Any]:
    example: Any = candidate.input_example
    instants = [name for name, kind in candidate.inputs.items() if kind == "instant"]
    if hasattr(example, "columns"):
        rows: Any = {
            name: [str(each) for each in example[name]] if name in instants else example[name].tolist()
            for name in candidate.inputs
        }
    else:
        rows = example.tolist()
    expected = [float(value) for value in candidate.expected]
    return {"foreign": True, "rows": rows, "instants": instants, "expected": expected}


def _plain(column: Any, type: str) -> list[Any]:
    null = column.isna()
    convert = str if type == "string" else float
    return [None if missing else convert(value) for value, missing in zip(column, null, strict=True)]


def _json(value: Mapping[str, Any], what: str) -> str:
    try:
        return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise VersionRefused(f"the {what} of the version cannot be written as JSON: {error}") from error


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def sync(directory: Path) -> None:
    """Force every file and folder below `directory` to disk."""
    for path in [directory, *directory.rglob("*")]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
