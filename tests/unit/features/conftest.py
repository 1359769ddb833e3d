from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_ENGINE = Path(__file__).parents[2] / "property" / "features" / "memory_engine.py"


@pytest.fixture(scope="session")
def _session_engine() -> Iterator[Any]:
    spec = importlib.util.spec_from_file_location("features_unit_memory_engine", _ENGINE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    engine = module.MemoryEngine()
    yield engine
    engine.close()


@pytest.fixture
def engine(_session_engine: Any) -> Any:
    """An engine within a session."""
    with _session_engine.session():
        yield _session_engine


@pytest.fixture
def idle_engine(_session_engine: Any) -> Any:
    """An engine outside a session."""
    return _session_engine
