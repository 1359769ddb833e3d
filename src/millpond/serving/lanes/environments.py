"""Environments of versions: the interpreter that has what a model needs, made by uv where this one has not."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from millpond.core.child_processes import WATCH, guarded
from millpond.core.errors import MillpondError, Unavailable

_LAST_LINES = 12
_LOCAL = re.compile(r"(-e|--editable|-r|--requirement|-c|--constraint)\b|\.{0,2}/|file:|[^ ]+ @ file:")
_OPTION = re.compile(r"-")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Needs(NamedTuple):
    """What a model needs.

    Attributes:
        requirements: A requirements file's text.
        python: Version of Python, such as "3.11.7"; "" where none is told.
    """

    requirements: str
    python: str


def needs_of(directory: Path) -> Needs:
    """What the model in an MLflow directory says it needs: the few packages that its pickle refers to.

    `requirements.txt` says it, else the pip part of `conda.yaml`; the version of Python is that of `python_env.yaml`,
    else of `conda.yaml`. The full lock of a version that was trained here (`millpond/environment.txt`) is for
    reproducing its training; it is used where nothing else is told.
    """
    conda = list(_yaml(directory / "conda.yaml").get("dependencies") or ())
    listed = [line for each in conda if isinstance(each, Mapping) for line in each.get("pip") or ()]
    python = str(_yaml(directory / "python_env.yaml").get("python") or "")
    if not python:
        told = (re.fullmatch(r"python\s*=+\s*([\d.]+)", each) for each in conda if isinstance(each, str))
        python = next((found.group(1) for found in told if found), "")
    for path in (directory / "requirements.txt", directory / "millpond" / "environment.txt"):
        if path.name == "environment.txt" and listed:
            break
        if path.exists():
            return Needs(path.read_text(), python)
    return Needs("".join(f"{line}\n" for line in listed), python)


def environment_for(lock_text: str, python: str, root: Path) -> Path:
    """The interpreter of an environment with these packages.

    It is the present one where that has them all. Otherwise an environment below `root` is used or, the first time,
    built, which takes seconds to minutes: not in an event loop. Builders of the same environment wait for each other,
    also across processes; one that is killed leaves nothing that counts.

    Args:
        lock_text: A requirements file. Lines for Millpond itself, and for local or editable packages, are left out.
        python: Version of Python, of which the first two numbers count; "" is the present one.
        root: Directory of environments.

    Raises:
        Unavailable: There is no uv, or it cannot build the environment; with its last lines.
    """
    lines = _lines(lock_text)
    wanted = ".".join(python.split(".")[:2]) or _present()
    if wanted == _present() and all(_satisfied(line) for line in lines):
        return Path(sys.executable)
    text = "".join(f"{line}\n" for line in lines)
    identity = f"{wanted}\n{platform.system()} {platform.machine()}\n{text}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:20]
    place = root / key
    interpreter = place / "bin" / "python"
    if interpreter.exists():
        return interpreter
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root / f"{key}.lock"):
        if not interpreter.exists():
            _build(place, text, wanted)
    return interpreter


def _build(place: Path, text: str, python: str) -> None:
    """Build beside, then rename: under the lock of its key."""
    for left in place.parent.glob(f"{place.name}.building-*"):
        shutil.rmtree(left, ignore_errors=True)
    uv = _uv()
    building = place.with_name(f"{place.name}.building-{uuid.uuid4().hex[:8]}")
    try:
        base = sys.executable if python == _present() else python
        _run([uv, "venv", "--no-project", "--relocatable", "--python", base, str(building)], text, python)
        requirements = building / "requirements.txt"
        requirements.write_text(text)
        if text:
            interpreter = str(building / "bin" / "python")
            _run([uv, "pip", "install", "--python", interpreter, "-r", str(requirements)], text, python)
        os.sync()
        building.rename(place)
    except OSError as error:
        raise Unavailable(
            f"an environment cannot be written: {error.strerror}",
            where=str(place),
            hint="look at the free space and the permissions there",
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _run(command: list[str], text: str, python: str) -> None:
    command = guarded(command) if WATCH == "kernel" else command
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-_LAST_LINES:])
    packages = text.replace("\n", " ").strip()
    raise Unavailable(
        f"the environment of the version cannot be built: uv said:\n{said}",
        where=f"Python {python} with {packages[:500]}",
        hint="make these packages available to uv (its index, its network), or register the model with others",
    )


def _uv() -> str:
    beside = [Path(sys.executable).with_name("uv"), Path(".tools/bin/uv").absolute()]
    found = shutil.which("uv") or next((str(path) for path in beside if os.access(path, os.X_OK)), None)
    if found is None:
        raise Unavailable(
            "the version needs an environment of its own, and there is no uv to build it",
            where="PATH, the folder of this Python, .tools/bin",
            hint="install it: pip install uv; or install the version's packages beside Millpond",
        )
    return found


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _lines(text: str) -> list[str]:
    """The lines that count, in order."""
    found = []
    for each in text.replace("\\\n", " ").splitlines():
        line = re.sub(r"(^|\s)#.*", "", each).strip()
        name = _NAME.match(line)
        if line and not _LOCAL.match(line) and not (name and name.group().lower() == "millpond"):
            found.append(line)
    return found


def _satisfied(line: str) -> bool:
    """Whether the present environment has what a line of requirements asks for."""
    from packaging.requirements import InvalidRequirement, Requirement

    if _OPTION.match(line):
        return True
    try:
        wanted = Requirement(re.sub(r"\s--hash=\S+", "", line))
        if wanted.marker is not None and not wanted.marker.evaluate():
            return True
        version = importlib.metadata.version(wanted.name)
    except (InvalidRequirement, importlib.metadata.PackageNotFoundError):
        return False
    return wanted.url is None and not wanted.extras and wanted.specifier.contains(version, prereleases=True)


def _present() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _yaml(path: Path) -> dict[str, Any]:
    import yaml  # type: ignore[import-untyped]

    if not path.exists():
        return {}
    try:
        return dict(yaml.safe_load(path.read_text()) or {})
    except (yaml.YAMLError, ValueError) as error:
        raise MillpondError(
            f"{path.name} of the model cannot be read: {error}",
            where=str(path),
            hint="register the model again; MLflow writes this file",
        ) from error
