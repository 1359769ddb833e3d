"""What serving processes are told: the routing document, made from what is deployed and written as a whole."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

from millpond.access.ports import ReleaseRecord
from millpond.core.durable import locked, sync_directory
from millpond.core.errors import MillpondError
from millpond.core.time import format_instant, now
from millpond.definitions.release import release_from
from millpond.platform import versions as registered
from millpond.platform.bundles import describe_features
from millpond.platform.platform import Platform
from millpond.platform.versions import CHAMPION, LoadedVersion
from millpond.registry.ports import Version
from millpond.serving.routing import (
    DOCUMENT,
    FORMAT,
    ServedVersion,
    deployment_to_json,
    served_to_json,
    version_from_json,
)
from millpond.serving.traffic.deployment import Deployment
from millpond.serving.traffic.ladder import TRIED

#: Versions whose code was run to see where their inputs come from; it is never another.
_known: dict[Path, LoadedVersion] = {}

_log = logging.getLogger("millpond.serving")


def publish(platform: Platform) -> int:
    """Tell serving processes what is deployed now; the generation of the document that says it.

    Made anew from the model store and the releases, under a lock, so that whoever comes last has seen everything; and
    written only where it differs. It appears whole or not at all, and is durable. Idempotent; a process that is killed
    on the way leaves the document before, and the next call makes up for it.
    """
    folder = platform.settings.serving
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with locked(folder / "routing.lock"):
        before = _read(folder / DOCUMENT)
        content = _content(platform, before)
        if before is not None and {name: before.get(name) for name in content} == content:
            return int(before["generation"])
        generation = _next_generation(before, folder / DOCUMENT)
        _write(folder / DOCUMENT, {**content, "generation": generation, "published_at": format_instant(now())})
    return generation


def find(platform: Platform, model: str, number: int) -> ServedVersion:
    """A version as the routing document would tell of it, whether or not it is deployed.

    Raises:
        NotFound: There is no such version.
    """
    told = _version(platform, platform.store.version(model, number))
    return version_from_json(told, platform.settings.state)


def deployment_of(model: str, live: int, release: ReleaseRecord | None) -> Deployment:
    """How a model is deployed while `live` answers and `release` is under way."""
    if release is None or release.state not in TRIED or release.version == live:
        return Deployment(model, live)
    told = {"salt": crc32(f"{model}/{release.id}".encode()), "epoch": f"{release.id}.{release.step}"}
    if release.state == "shadowing":
        return Deployment(model, live, shadows=(release.version,), **told)  # type: ignore[arg-type]
    compares = release_from(release.plan).compares
    return Deployment(model, live, release.version, release.share, compares=compares, **told)  # type: ignore[arg-type]


def _content(platform: Platform, before: Mapping[str, Any] | None) -> dict[str, Any]:
    models: dict[str, Any] = {}
    versions: dict[str, Any] = {}
    under_way = {each.model: each for each in platform.access.releases.all_active()}
    for name in platform.store.models():
        found = platform.store.versions(name)
        champion = next((each for each in found if CHAMPION in each.aliases), None)
        if champion is None:
            continue
        deployment = deployment_of(name, champion.number, under_way.get(name))
        told = dict(_told(platform, _needed(platform, deployment, found), before))
        if str(champion) in told:
            versions |= told
            models[name] = deployment_to_json(deployment)
    return json.loads(json.dumps({"format": FORMAT, "models": models, "versions": versions}))  # type: ignore[no-any-return]


def _needed(platform: Platform, deployment: Deployment, found: Sequence[Version]) -> list[Version]:
    """The versions in use, and those that may be next: with an alias, or live before."""
    numbers = {deployment.live, *deployment.shadows}
    if deployment.canary is not None:
        numbers.add(deployment.canary)
    last = next((each for each in platform.access.releases.of(deployment.model, 5) if each.state == "promoted"), None)
    if last is not None and last.against is not None:
        numbers.add(last.against)
    return [each for each in found if each.number in numbers or each.aliases]


def _told(
    platform: Platform, versions: Sequence[Version], before: Mapping[str, Any] | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    for version in versions:
        try:
            yield str(version), _version(platform, version)
        except MillpondError as error:
            _log.warning("serving processes cannot be told of %s: %s", version, error)
            kept = (before or {}).get("versions", {}).get(str(version))
            if kept is not None:
                yield str(version), kept


def _version(platform: Platform, version: Version) -> dict[str, Any]:
    spec = platform.store.spec(version)
    directory = platform.store.directory(version)
    plan = directory / "millpond" / "plan"
    return {
        "served": served_to_json(registered.served_model(platform, version)),
        "directory": _relative(platform, directory),
        "plan": _relative(platform, plan) if plan.is_dir() else None,
        "tier": spec.get("tier"),
        "environment": spec.get("environment"),
        "extras": {"features": _features(platform, version, directory)},
    }


def _features(platform: Platform, version: Version, directory: Path) -> Mapping[str, Any]:
    found = _known.get(directory)
    if found is None:
        found = _known[directory] = registered.load(platform, version)
    return describe_features(platform, found)


def _relative(platform: Platform, path: Path) -> str:
    """Within the state folder, so that a copy of that has moved; else whole."""
    state = platform.settings.state.resolve()
    path = path.resolve()
    return str(path.relative_to(state) if path.is_relative_to(state) else path)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("generation"), int) else None


def _next_generation(before: Mapping[str, Any] | None, path: Path) -> int:
    if before is not None:
        return int(before["generation"]) + 1
    # Of a damaged document the generation is lost: seconds are ahead of any count of changes.
    return int(time.time()) if path.exists() else 1


def _write(path: Path, document: Mapping[str, Any]) -> None:
    draft = path.with_name(f".{path.name}")
    with draft.open("wb") as file:
        file.write(json.dumps(document, indent=1, ensure_ascii=False).encode())
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_directory(path.parent)
