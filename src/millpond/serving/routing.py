"""The routing document: all that a serving process needs to know of what is deployed, as one JSON file.

It is written as a whole, by whoever deploys (`platform.deployments`), and read again when it has changed. A serving
process needs nothing else of the project to answer: neither definitions nor the model store.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, unquote

from millpond.core.durable import sync_directory
from millpond.serving.ports import LogPolicy, OutputColumn, RequestColumn, ServedModel
from millpond.serving.traffic.deployment import Deployment

#: Of the document; one that is written otherwise is not read.
FORMAT = 1

DOCUMENT = "routing.json"
_UNLOADED = "unloaded"

_log = logging.getLogger("millpond.serving")


@dataclass(frozen=True)
class ServedVersion:
    """A version as a serving process finds it.

    Attributes:
        served: What it takes and gives.
        directory: Its MLflow model, with Millpond's files below `millpond/`.
        plan: Directory of its compiled plan, or None.
        tier: What was found out about how it can be served, as its spec keeps it; None where nothing was.
        environment: Its locked environment, as its spec keeps it; None where it needs none of its own.
        extras: Further plain JSON by name; "features" as `platform.bundles` describes them.
    """

    served: ServedModel
    directory: Path
    plan: Path | None = None
    tier: Mapping[str, Any] | None = None
    environment: Mapping[str, Any] | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RoutingTable:
    """What is deployed.

    Attributes:
        generation: Grows with every change of the document.
        deployments: By model.
        versions: By model and number: those in use, and those that may be in use next.
    """

    generation: int = 0
    deployments: Mapping[str, Deployment] = field(default_factory=lambda: MappingProxyType({}))
    versions: Mapping[tuple[str, int], ServedVersion] = field(default_factory=lambda: MappingProxyType({}))


class Routing:
    """Reads the document of a project; for one thread.

    A document that is not there, half a one, or one of another format leaves the last good one in force.

    Args:
        folder: The project's serving folder, `.millpond/serving`.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / DOCUMENT
        self._unloaded = folder / _UNLOADED
        self._state = folder.parent
        self._seen: tuple[int, int, int] | None = None
        self._read = RoutingTable()
        self._markers: frozenset[str] = frozenset()
        self._table = self._read

    def current(self) -> RoutingTable:
        """What is deployed now; the same object while nothing changes. Takes some microseconds then."""
        read, markers = self._document(), unloaded(self._unloaded)
        if read is not self._read or markers != self._markers:
            self._read, self._markers = read, markers
            self._table = _with_markers(read, markers)
        return self._table

    def _document(self) -> RoutingTable:
        try:
            found = self._path.stat()
            stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
            if stamp == self._seen:
                return self._read
            document = json.loads(self._path.read_bytes())
            table = table_from_json(document, self._state)
        except FileNotFoundError:
            return self._read
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s cannot be read, the deployments before stay in force: %r", self._path, error)
            return self._read
        self._seen = stamp
        return table


def set_loaded(folder: Path, model: str, loaded: bool) -> None:
    """Let a model answer, or stop it, in every serving process of the project, until it is told otherwise.

    A marker file a model, so that a serving process needs no lock for it, and no model store. Idempotent, durable.

    Args:
        folder: The project's serving folder.
        model: The model's name.
        loaded: Whether it is to answer.
    """
    directory = folder / _UNLOADED
    directory.mkdir(parents=True, exist_ok=True)
    marker = directory / quote(model, safe="")
    if loaded:
        marker.unlink(missing_ok=True)
    else:
        marker.touch()
    sync_directory(directory)


def unloaded(directory: Path) -> frozenset[str]:
    """The models that are told not to answer."""
    with suppress(FileNotFoundError):
        return frozenset(unquote(each.name) for each in os.scandir(directory))
    return frozenset()


def served_to_json(served: ServedModel) -> dict[str, Any]:
    """A served model as plain JSON."""
    return asdict(replace(served, inputs=dict(served.inputs)))


def served_from_json(said: Mapping[str, Any]) -> ServedModel:
    """What `served_to_json` said."""
    columns = tuple(RequestColumn(**each) for each in said["columns"])
    outputs = tuple(OutputColumn(**each) for each in said["outputs"])
    kept = said["logging"]
    policy = LogPolicy(kept["sample"], tuple(kept["redact"]))
    return ServedModel(**{**said, "columns": columns, "outputs": outputs, "logging": policy})


def deployment_to_json(deployment: Deployment) -> dict[str, Any]:
    """A deployment as plain JSON, without its model's name; whether it is loaded is told by the markers."""
    said = deployment._asdict()
    return {name: value for name, value in said.items() if name not in ("model", "loaded")}


def table_from_json(document: Mapping[str, Any], state: Path) -> RoutingTable:
    """The routing table of a document; relative directories lie in `state`.

    Raises:
        ValueError, KeyError, TypeError: It is none.
    """
    if document["format"] != FORMAT:
        raise ValueError(f"its format is {document['format']!r}, not {FORMAT}")
    deployments = {
        name: Deployment(model=name, **{**said, "shadows": tuple(said["shadows"])})
        for name, said in document["models"].items()
    }
    versions = [version_from_json(said, state) for said in document["versions"].values()]
    return RoutingTable(
        generation=int(document["generation"]),
        deployments=MappingProxyType(deployments),
        versions=MappingProxyType({(each.served.model, each.served.version): each for each in versions}),
    )


def version_from_json(said: Mapping[str, Any], state: Path) -> ServedVersion:
    """A version that a routing document tells of; relative directories lie in `state`."""
    return ServedVersion(
        served=served_from_json(said["served"]),
        directory=state / said["directory"],
        plan=state / said["plan"] if said["plan"] is not None else None,
        tier=said["tier"],
        environment=said["environment"],
        extras=said["extras"],
    )


def _with_markers(table: RoutingTable, markers: frozenset[str]) -> RoutingTable:
    if not markers:
        return table
    deployments = {name: each._replace(loaded=name not in markers) for name, each in table.deployments.items()}
    return RoutingTable(table.generation, MappingProxyType(deployments), table.versions)
