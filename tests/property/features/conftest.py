from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

_QUIET = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("default", max_examples=40, derandomize=True, database=None, **_QUIET)
settings.register_profile("full", max_examples=1500, print_blob=True, **_QUIET)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def load(name: str) -> ModuleType:
    """A helper module that lies beside this file."""
    full = f"features_property_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, Path(__file__).with_name(f"{name}.py"))
        module = importlib.util.module_from_spec(spec)
        sys.modules[full] = module
        spec.loader.exec_module(module)
    return sys.modules[full]


@pytest.fixture(scope="session")
def oracle() -> ModuleType:
    return load("oracle")


@pytest.fixture(scope="session")
def worlds() -> ModuleType:
    return load("worlds")


@pytest.fixture(scope="session")
def cases() -> ModuleType:
    return load("cases")


@pytest.fixture(scope="session")
def engine() -> Iterator[object]:
    engine = load("memory_engine").MemoryEngine()
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def spark(spark_options: dict[str, Any]) -> Iterator[object]:
    engine = load("spark_engine").SparkMemoryEngine(load("memory_engine").columns_of, **spark_options)
    yield engine
    engine.close()
