"""A project with a model of three versions, of which the first answers."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from millpond.platform import release  # noqa: E402
from millpond.platform.platform import Platform, open_project  # noqa: E402
from millpond.platform.tables import ingest_declared  # noqa: E402
from millpond.platform.train import train  # noqa: E402

DEFINITIONS = """
import millpond as mp

orders = mp.Table("orders", source="orders.csv", key="order_id", time="ordered_at")
plain = mp.Model("plain", task=mp.Classification(label="returned"), examples=orders, inputs=["amount"],
                 estimator="linear")
"""


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    lines = ["order_id,ordered_at,amount,returned"]
    for number in range(400):
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(1_700_000_000 + number * 3600))
        lines.append(f"o{number},{moment},{number % 97 + 0.5},{int(number % 97 > 60) ^ int(number % 7 == 0)}")
    (folder / "orders.csv").write_text("\n".join(lines) + "\n")
    (folder / "millpond.toml").write_text('[project]\nname = "shop"\n')
    (folder / "definitions.py").write_text(DEFINITIONS)
    platform = open_project(folder)
    ingest_declared(platform)
    train(platform, "plain")
    # Training costs ten times what registering does, and says nothing of releases: two more versions of the same model.
    client = platform.store._connection.client  # type: ignore[attr-defined]
    first = client.get_model_version("plain", "1")
    for _ in range(2):
        client.create_model_version("plain", first.source, first.run_id, tags=first.tags, model_id=first.model_id)
    release.promote(platform, "plain", 1, why="the tests begin here")
    return folder


@pytest.fixture
def shop(trained: Path, tmp_path: Path) -> Platform:
    """A project of the test's own: version 1 answers, 2 and 3 wait."""
    shutil.copytree(trained, tmp_path / "shop")
    return open_project(tmp_path / "shop", user="ann")


@pytest.fixture(scope="session")
def spawn() -> Callable[..., Any]:
    """Run `moving.act` in a process of its own, in which everything is imported already; its exit code."""
    import multiprocessing

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["moving", "mlflow", "mlflow.store.tracking.sqlalchemy_store"])

    def run(platform: Platform, move: str, at: tuple[str, str] | None = None, *, wait: bool = True) -> Any:
        from moving import act

        process = context.Process(target=act, args=(str(platform.settings.root), move, at))
        process.start()
        if not wait:
            return process
        process.join(60)
        return process.exitcode

    return run
