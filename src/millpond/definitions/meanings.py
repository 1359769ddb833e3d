"""What declared objects mean, as plain data, each by itself: what has versions, and what plans compare."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from millpond.core.errors import DefinitionError
from millpond.definitions.features import Features, RequestFeatures
from millpond.definitions.models import Model
from millpond.definitions.project import Definitions
from millpond.definitions.tables import Table

Kind = Literal["table", "view", "request_features", "model", "release"]

#: Plain JSON: what an object's `describe()` says, read back from JSON.
Meaning = Mapping[str, Any]

#: Fields of a model that its training set does not depend on.
FIT_FIELDS = frozenset({"estimator", "params", "tune", "split", "seed", "threshold"})


class Key(NamedTuple):
    """Names a declared object."""

    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.kind.replace('_', ' ')} {self.name}"


Meanings = Mapping[Key, Meaning]


def meanings(definitions: Definitions) -> dict[Key, Meaning]:
    """The meaning of everything that a project declares: tables, views, request features, models, their releases.

    A model's meaning names its inputs instead of holding what they mean. How its versions are released is a meaning of
    its own, as nothing is trained for it. Documentation is in none of them.

    Raises:
        DefinitionError: The source text of a function cannot be read.
    """
    found: dict[Key, Meaning] = {Key("table", each.name): meaning(each) for each in definitions.tables.values()}
    found |= {Key("view", each.name): meaning(each) for each in definitions.views.values()}
    functions = definitions.request_features.values()
    found |= {Key("request_features", each.name): meaning(each) for each in functions}
    for model in definitions.models.values():
        found |= model_meaning(model)
    return found


def meaning(each: Table | Features | RequestFeatures | Model) -> Meaning:
    """The meaning of one object.

    Raises:
        DefinitionError: The source text of its function cannot be read.
    """
    described = _described(each)
    return _by_reference(described) if isinstance(each, Model) else described


def model_meaning(model: Model) -> dict[Key, Meaning]:
    """The meaning of a model, and of how it is released where it declares that.

    Raises:
        DefinitionError: The source text of a function cannot be read.
    """
    found = {Key("model", model.name): meaning(model)}
    if model.release is not None:
        found[Key("release", model.name)] = model.release.describe()
    return found


def model_meanings(model: Model, tables: Iterable[Table]) -> dict[Key, Meaning]:
    """The meaning of a model and of all that its training reads, as `parts_of` gives it for a trained version."""
    return parts_of({"model": _described(model), "tables": {each.name: _described(each) for each in tables}})


def parts_of(kept: Mapping[str, Any]) -> dict[Key, Meaning]:
    """What a version keeps of the meanings that it was trained with, taken apart.

    Args:
        kept: "model" -> the model's description with its inputs' descriptions in it, "tables" -> name -> description.
    """
    model = kept["model"]
    parts: dict[Key, Meaning] = {Key("table", name): each for name, each in kept["tables"].items()}
    for each in model["inputs"]:
        if isinstance(each, Mapping) and "features" in each:
            parts[Key("view", each["features"])] = each
        elif isinstance(each, Mapping):
            parts[Key("request_features", each["request_features"])] = each
    parts[Key("model", model["model"])] = _by_reference(model)
    return parts


def _described(each: Table | Features | RequestFeatures | Model) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = json.loads(json.dumps(each.describe(), allow_nan=False))
    except (OSError, TypeError, ValueError) as error:
        raise DefinitionError(
            f"The meaning of {each.subject} cannot be written down: {error}",
            where=str(each.declared_at),
            hint="define its function in a file of the project, and give it plain values",
        ) from error
    return plain


def _by_reference(model: Mapping[str, Any]) -> dict[str, Any]:
    return {**model, "inputs": [_reference(each) for each in model["inputs"]]}


def _reference(each: Any) -> dict[str, str]:
    if isinstance(each, str):
        return {"column": each}
    return {"view": each["features"]} if "features" in each else {"request_features": each["request_features"]}
