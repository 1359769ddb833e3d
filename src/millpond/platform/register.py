"""Registering a model that Millpond did not train: any in MLflow's format."""

from __future__ import annotations

import platform as machine
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from millpond.core.errors import Conflict, RequestError
from millpond.core.fingerprints import fingerprint
from millpond.core.names import NAME_RULE, is_name
from millpond.platform.platform import Platform
from millpond.platform.progress import step
from millpond.platform.tiers import Tier, prepare
from millpond.registry.ports import Candidate, Lineage, Version
from millpond.serving.ports import OutputColumn, RequestColumn

if TYPE_CHECKING:
    import pyarrow as pa

    from millpond.registry.foreign import ForeignModel

#: Rows that are drawn around a model's example, to compare it with its plan.
_DRAWN = 1000

#: What a column of a registered model may be.
INPUT_TYPES = ("float64", "int64", "bool", "string", "instant")


def register(platform: Platform, source: str, name: str, *, inputs: Mapping[str, str] | None = None) -> Version:
    """Take a model over as a new version of `name`; it answers what its own `predict` answers.

    The model is loaded and tried here, then loaded and compared in a clean process. The version is not deployed.
    Where it can be compiled and the plan is shown to be equal, it serves compiled; else in a process of its own.

    Args:
        platform: The project.
        source: A folder with `MLmodel`, or an address that MLflow knows: "models:/NAME/1", "runs:/ID/model".
        name: The model's name here.
        inputs: Name -> type of what it takes, where its signature does not say so.

    Raises:
        NotFound: There is no model at `source`.
        Conflict: The project declares a model of that name, whose versions are trained.
        RequestError: The name or a type is none.
        VersionRefused: It cannot be loaded, does not say what it takes, or answers otherwise in a clean process.
    """
    from millpond.registry.foreign import describe, fetched

    if not is_name(name):
        raise RequestError(f"{name!r} is no name for a model", hint=NAME_RULE)
    if name in platform.definitions.models:
        what = f"The project declares model {name!r}: its versions are trained, with features and gates"
        raise Conflict(what, hint=f"register it under another name, or train: millpond train {name}")
    for column, kind in (inputs or {}).items():
        if kind not in INPUT_TYPES:
            raise RequestError(f"Input {column!r} is of type {kind!r}", hint=f"types: {', '.join(INPUT_TYPES)}")
    with fetched(source) as directory:
        with step(platform.listener, f"try {source}") as current:
            found = describe(directory, inputs)
            current.detail = f"{len(found.inputs)} inputs, {len(found.outputs)} outputs"
        with step(platform.listener, f"register {name}") as current:
            files, tier = _tier(found)
            version = platform.store.register(_candidate(platform, source, name, found, files, tier))
            current.detail = f"version {version.number}, loaded and tried in a clean process; serves {tier['tier']}"
    platform.audit(action="register", object=str(version), details={"source": source})
    return version


def _tier(found: ForeignModel) -> tuple[dict[str, bytes], dict[str, Any]]:
    """How it can be served: compiled where its library's model gives numbers, and a plan gives the same ones."""
    numbers = len(found.outputs) == 1 and found.outputs[0][:2] == ("output", "float64")
    if found.estimator is None or not numbers or "instant" in found.inputs.values():
        return {}, asdict(Tier("native", f"there are no plans for {_kind(found)}"))
    sample, original = _sample(found), _original(found)
    return prepare(found.estimator, found.inputs, "other", sample, original)


def _kind(found: ForeignModel) -> str:
    outputs = ", ".join(f"{name} ({kind})" for name, kind, _ in found.outputs)
    return f"a model of the flavour {found.flavour} that gives {outputs}"


def _sample(found: ForeignModel) -> pa.Table:
    """The model's example, and rows around it: nothing else is known of its data."""
    import numpy as np
    import pyarrow as pa

    draw = np.random.default_rng(0)
    rows = np.arange(_DRAWN)
    columns: dict[str, Any] = {}
    for place, (name, kind) in enumerate(found.inputs.items()):
        given = found.example[:, place] if found.matrix else found.example[name].to_numpy()
        if kind in ("float64", "int64"):
            numbers = given.astype("float64")
            near = numbers[rows % len(numbers)]
            drawn = np.where(rows % 2, near, near + draw.normal(scale=1 + np.abs(near)))
            values = np.concatenate([numbers, np.round(drawn) if kind == "int64" else drawn])
        else:
            values = given[np.arange(len(given) + _DRAWN) % len(given)]
        columns[name] = values
    return pa.table({name: pa.array(values, from_pandas=True) for name, values in columns.items()})


def _original(found: ForeignModel) -> Callable[[pa.Table], Sequence[float]]:
    """What the model itself gives for rows of raw inputs, as MLflow asks it."""

    def original(rows: pa.Table) -> Any:
        import numpy as np

        from millpond.training.frame import to_frame

        frame = to_frame(rows, found.inputs)
        return np.asarray(found.predict(frame.to_numpy() if found.matrix else frame), dtype="float64")

    return original


def make_spec(found: ForeignModel, tier: Mapping[str, Any]) -> dict[str, Any]:
    """What serving needs of a registered version, as plain JSON; see `versions.make_spec`."""
    columns = [RequestColumn(name, kind, name in found.required, "input") for name, kind in found.inputs.items()]
    return {
        "task": "other",
        "threshold": None,
        "at": None,
        "inputs": dict(found.inputs),
        "columns": [asdict(column) for column in columns],
        "outputs": [asdict(OutputColumn(*each)) for each in found.outputs],
        "matrix": found.matrix,
        "definitions": None,
        "tier": dict(tier),
    }


def _candidate(
    platform: Platform,
    source: str,
    name: str,
    found: ForeignModel,
    files: Mapping[str, bytes],
    tier: Mapping[str, Any],
) -> Candidate:
    from millpond.registry.git import code_state

    lineage = Lineage(
        training_set="",
        training_set_snapshot=0,
        sources={},
        definitions={},
        fingerprint=fingerprint([source, name, time.time_ns()]),
        code=code_state(platform.settings.root),
        packages=found.requirements,
        python=machine.python_version(),
        platform=machine.platform(),
    )
    return Candidate(
        model=name,
        task="other",
        estimator=None,
        inputs=found.inputs,
        threshold=None,
        metrics={},
        params={"source": source, "flavour": found.flavour},
        input_example=found.example,
        expected=found.expected,
        spec=make_spec(found, tier),
        files=files,
        lineage=lineage,
        trained_by=platform.user,
        tags={"millpond.source": source},
        source=found.directory,
    )
