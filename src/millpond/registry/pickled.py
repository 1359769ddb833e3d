"""What a pickled estimator needs from its environment: distributions to pin, and project code to carry along."""

from __future__ import annotations

import importlib.metadata
import pickletools
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from threading import Lock
from typing import Any

from millpond.registry.environment import canonical_name

_registry_of_cloudpickle = Lock()
_MAX_PASSES = 5

#: What every version needs, whatever its pickle names: MLflow to load it, the rest for the frame it is given.
BASE_REQUIREMENTS = ("mlflow", "cloudpickle", "numpy", "pandas", "scikit-learn")


def referenced_modules(pickled: bytes) -> set[str]:
    """Full names of the modules that unpickling would import. Nothing is loaded."""
    modules: set[str] = set()
    strings: list[str] = []
    memo: dict[int, str | None] = {}
    after_subimport = False
    last: str | None = None
    opcodes: Iterator[tuple[str, Any]] = ((code.name, argument) for code, argument, _ in pickletools.genops(pickled))
    for name, argument in opcodes:
        if name == "MEMOIZE":
            memo[len(memo)] = last
            continue
        if name in {"PUT", "BINPUT", "LONG_BINPUT"}:
            memo[int(argument)] = last
            continue
        last = None
        if name in {"GET", "BINGET", "LONG_BINGET"}:
            last = memo.get(int(argument))
        elif isinstance(argument, str) and "UNICODE" in name:
            last = argument
        elif name == "GLOBAL":
            module, _, attribute = argument.partition(" ")
            modules.add(module)
            after_subimport = attribute == "subimport"
        elif name == "STACK_GLOBAL":
            module, attribute = strings[-2:]
            modules.add(module)
            after_subimport = attribute == "subimport"
        if last is not None:
            strings.append(last)
            if after_subimport:
                modules.add(last)
                after_subimport = False
    return modules


@lru_cache(maxsize=1)
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def pinned_requirements(modules: set[str]) -> list[str]:
    """Exact pins of the distributions that own `modules`, and of `BASE_REQUIREMENTS`; sorted."""
    names = set(BASE_REQUIREMENTS)
    for top in {module.partition(".")[0] for module in modules}:
        # Several distributions can share a top-level package ("google"); without one, Python itself or the project.
        names.update(canonical_name(name) for name in _distributions().get(top, ())[:1])
        if top == "millpond":
            names.add(top)
    pins = []
    for name in sorted(names - {"mlflow-skinny", "mlflow-tracing"}):
        try:
            pins.append(f"{name}=={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return pins


def _is_project_code(module: str) -> bool:
    """Whether `module` is neither Python's, nor Millpond's, nor of an installed distribution."""
    top = module.partition(".")[0]
    known = top in sys.stdlib_module_names or top in {"millpond", "__main__"} or top in _distributions()
    return not known and (top in sys.modules or module in sys.modules)


def _outermost(module: str) -> str:
    """The package around `module`, which stands for all that is in it; or `module` where that was never imported."""
    top = module.partition(".")[0]
    return top if top in sys.modules else module


@contextmanager
def project_code_by_value(estimator: Any) -> Iterator[set[str]]:
    """While this holds, cloudpickle writes the project's own classes and functions into the pickle of `estimator`
    instead of a reference to modules that other processes cannot import. Yields the modules that still are referenced.

    One at a time across threads: cloudpickle's registry belongs to the process.

    Raises:
        Exception: Whatever pickling the estimator raises.
    """
    import cloudpickle  # type: ignore[import-untyped]

    registered: list[Any] = []
    with _registry_of_cloudpickle:
        try:
            for _ in range(_MAX_PASSES):
                modules = referenced_modules(cloudpickle.dumps(estimator, protocol=4))
                tops = {_outermost(module) for module in modules if _is_project_code(module)}
                found = [sys.modules[top] for top in sorted(tops) if sys.modules[top] not in registered]
                if not found:
                    break
                for module in found:
                    cloudpickle.register_pickle_by_value(module)
                    registered.append(module)
            yield modules
        finally:
            for module in registered:
                cloudpickle.unregister_pickle_by_value(module)
