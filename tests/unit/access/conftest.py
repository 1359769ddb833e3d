from collections.abc import Iterator
from pathlib import Path

import pytest

from millpond.access.store import AccessStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AccessStore]:
    opened = AccessStore.open(tmp_path / "platform.db")
    opened.create_identity("ann")
    yield opened
    opened.close()
