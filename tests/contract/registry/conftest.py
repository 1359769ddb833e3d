from __future__ import annotations

from pathlib import Path

import pytest

from millpond.registry.ports import ModelStore


@pytest.fixture(scope="session", params=["mlflow"])
def model_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    """An empty store of each kind."""
    from millpond.registry.mlflow_store import MLflowStore

    folder: Path = tmp_path_factory.mktemp(request.param)
    return MLflowStore(folder / "mlflow.db", folder / "artifacts")
