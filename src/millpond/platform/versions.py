"""Registered versions at work: what serving needs of one, loading it with its own code, keeping its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millpond.core.errors import DefinitionError, NotFound, VersionRefused
from millpond.core.names import did_you_mean
from millpond.definitions.features import Features
from millpond.definitions.models import Model
from millpond.lake.ports import Snapshot
from millpond.platform.loading import load_definitions
from millpond.platform.log_policies import policies
from millpond.platform.platform import Platform
from millpond.registry.ports import Lineage, Version
from millpond.serving.ports import OUTPUT, OutputColumn, RequestColumn, ServedModel

if TYPE_CHECKING:
    from millpond.platform.training_sets import TrainingSet
    from millpond.training.train import Trained

#: Aliases: the version that answers, and the one that was judged last.
CHAMPION, CHALLENGER = "champion", "challenger"

#: Request types by Iceberg type.
_REQUEST_TYPES = {
    "boolean": "bool",
    "int": "int64",
    "long": "int64",
    "float": "float64",
    "double": "float64",
    "string": "string",
    "timestamptz": "instant",
}


@dataclass(frozen=True)
class LoadedVersion:
    """A version with the definitions that it was trained with.

    Attributes:
        version: The version.
        served: What a request carries, and what the estimator takes.
        declared: The model as its own code declares it, not as the project does now; None of a version that was
            registered, not trained.
        directory: Its MLflow model, with Millpond's files below `millpond/`.
        redacted: Columns that the prediction log does not keep, or did not at any time since the version was made.
    """

    version: Version
    served: ServedModel
    declared: Model | None
    directory: Path
    redacted: tuple[str, ...] = ()

    @property
    def model(self) -> Model:
        """As `declared`.

        Raises:
            NotFound: The version was registered, not trained.
        """
        if self.declared is None:
            what = f"{self.version} was registered as it is: there are no definitions of what it was trained on"
            raise NotFound(what, hint="declare an mp.Model and train it, for features, receipts of them, and skew")
        return self.declared

    @property
    def views(self) -> tuple[Features, ...]:
        """The feature views that it reads; none of a version that was registered."""
        return () if self.declared is None else tuple(self.declared.views)


def champion(platform: Platform, model: str) -> Version | None:
    """The version that serves, or None."""
    try:
        return platform.store.version(model, CHAMPION)
    except NotFound:
        return None


def require_champion(platform: Platform, model: str) -> Version:
    """The version that serves.

    Raises:
        NotFound: There is no such model, or no version of it serves.
    """
    version = champion(platform, model)
    if version is None:
        raise NotFound(f"No version of model {model!r} serves", hint=_how_to_serve(platform, model))
    return version


def _how_to_serve(platform: Platform, model: str) -> str:
    made = platform.store.versions(model)
    if made:
        return f"deploy one: millpond deploy {model} {made[-1].number}"
    if model in platform.definitions.models:
        return f"train one: millpond train {model}"
    return did_you_mean(model, {*platform.definitions.models, *platform.store.models()}, noun="models")


def make_spec(platform: Platform, model: Model, examples: TrainingSet, trained: Trained) -> dict[str, Any]:
    """What serving needs of a version beside its estimator, as plain JSON."""
    snapshot = platform.lake.snapshot(model.examples.name, examples.sources[model.examples.name])
    return {
        "task": model.task.kind,
        "threshold": trained.threshold,
        "at": model.time,
        "inputs": dict(examples.columns.inputs),
        "columns": [asdict(column) for column in request_columns(model, snapshot)],
        "definitions": platform.settings.definitions.name,
        "logging": logging_of(model, examples.columns.inputs, request_columns(model, snapshot)),
    }


def logging_of(model: Model, inputs: Mapping[str, str], columns: Sequence[RequestColumn]) -> dict[str, Any]:
    """What of the answers is logged, as a part of the spec.

    Raises:
        DefinitionError: A column that is to be redacted is neither one of requests nor a raw input.
    """
    known = {*inputs, *(column.name for column in columns)}
    for name in model.log.redact:
        if name not in known:
            hint = did_you_mean(name, known, noun="columns of requests and inputs")
            raise DefinitionError(f"The log cannot redact {name!r}", where=f"{model.subject}, log: redact", hint=hint)
    return {"sample": model.log.sample, "redact": list(model.log.redact)}


def request_columns(model: Model, examples: Snapshot) -> list[RequestColumn]:
    """What a request for `model` carries: entity keys, inputs, and what its request features read.

    Required are the keys of entities that refuse unknown ones, and what request features read. A null key of an
    entity that allows unknown ones sees no row, as in training.
    """
    from millpond.features.layout import request_schema
    from millpond.features.request import required_columns

    types = {column.name: _REQUEST_TYPES.get(column.type, "string") for column in examples.columns}
    read = required_columns(model.request_features, request_schema(examples))
    roles = dict.fromkeys(model.entity_keys, "key")
    for names, role in ((model.columns, "input"), (read, "request"), ((model.time,) if model.time else (), "request")):
        for name in names:
            roles.setdefault(name, role)
    needed = {*read, *(key for entity in model.entities if entity.unknown == "refuse" for key in entity.keys)}
    return [RequestColumn(name, types[name], name in needed, role) for name, role in roles.items()]


def served_model(platform: Platform, version: Version) -> ServedModel:
    """What a request for the version carries, and what its estimator takes."""
    spec = platform.store.spec(version)
    return ServedModel(
        model=version.model,
        version=version.number,
        task=spec["task"],
        threshold=spec["threshold"],
        columns=tuple(RequestColumn(**column) for column in spec["columns"]),
        at=spec["at"],
        inputs=spec["inputs"],
        outputs=tuple(OutputColumn(**each) for each in spec["outputs"]) if "outputs" in spec else (OUTPUT,),
        matrix=spec.get("matrix", False),
        logging=policies(platform, version).present,
    )


def load(platform: Platform, version: Version) -> LoadedVersion:
    """A version with its own code.

    Raises:
        VersionRefused: Its files are not whole.
    """
    directory = platform.store.directory(version)
    definitions = platform.store.spec(version)["definitions"]
    if definitions is None:
        return LoadedVersion(version, served_model(platform, version), None, directory)
    redacted = policies(platform, version).redacted
    code = directory / "millpond" / "code" / definitions
    try:
        model = load_definitions(code).model(version.model)
    except NotFound as error:
        hint = f"train it again: millpond train {version.model} --force"
        raise VersionRefused(f"The code of {version} is not in the store", where=str(code), hint=hint) from error
    return LoadedVersion(version, served_model(platform, version), model, directory, redacted)


def pin(platform: Platform, version: Version, lineage: Lineage) -> None:
    """Keep every snapshot that the version was made of from expiry."""
    name = f"version-{version.model}-{version.number}"
    kept = {lineage.training_set: lineage.training_set_snapshot, **lineage.sources}
    for table, snapshot in kept.items():
        platform.lake.pin(platform.lake.snapshot(table, snapshot), name)
