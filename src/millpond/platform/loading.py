"""Running a project's definition files."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from millpond.core.errors import DefinitionError, MillpondError, NotFound
from millpond.core.fingerprints import fingerprint
from millpond.definitions.project import Definitions, collect

_CODE_SUFFIXES = {".py", ".sql", ".toml", ".yaml", ".yml"}
_CODE_FILE_BYTES = 256 << 10
_NOT_CODE = {"__pycache__", "node_modules", "venv", "env", "site-packages"}


def load_definitions(source: Path) -> Definitions:
    """Run a definitions file, or every module of a definitions folder, and validate what they declare.

    The folder that holds `source` is importable meanwhile. Each call runs the files anew, under module names of
    their own, so that the definitions of several versions of a project can live side by side.

    Raises:
        NotFound: There is no such file or folder.
        DefinitionError: A file does not run, or what it declares is wrong.
    """
    if not source.exists():
        hint = "set project.definitions in millpond.toml to the file with your mp.Table, mp.Model and so on"
        raise NotFound(f"There are no definitions at {source}", hint=hint)
    return collect(value for module in _modules(source) for value in vars(module).values())


def definition_files(source: Path) -> dict[str, bytes]:
    """The project's code: small text files in the folder that holds `source`, and below it.

    Python, SQL and settings files of at most 256 KiB each; hidden folders and environments are left out.

    Returns:
        Path relative to that folder, with forward slashes -> content.
    """
    folder = source.parent
    found = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if any(part.startswith(".") or part in _NOT_CODE for part in parts) or path.suffix not in _CODE_SUFFIXES:
            continue
        if path.is_file() and path.stat().st_size <= _CODE_FILE_BYTES:
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found


def _modules(source: Path) -> Iterator[ModuleType]:
    with _importable(source.parent):
        if source.is_dir():
            for path in sorted(source.rglob("*.py")):
                yield _run(path)
        else:
            yield _run(source)


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Put `folder` first on the path, and forget afterwards what was imported from it."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).is_relative_to(folder) and "site-packages" not in file:
                del sys.modules[name]


def _run(path: Path) -> ModuleType:
    name = f"millpond_definitions_{fingerprint(str(path))}_{path.stem}"
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise DefinitionError(f"{path} is not a Python file", hint="definitions are .py files")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    try:
        specification.loader.exec_module(module)
    except MillpondError:
        raise
    except Exception as error:
        raise DefinitionError(
            f"{path.name} does not run: {type(error).__name__}: {error}",
            where=_user_line(error, path),
            hint="mend the line above; nothing was run",
        ) from error
    finally:
        del sys.modules[name]
    return module


def _user_line(error: Exception, path: Path) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path}:{lines[-1].lineno}" if lines else str(path)
