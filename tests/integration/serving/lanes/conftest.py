from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from millpond.serving.lanes.lane import Lane
from millpond.serving.lanes.ports import LaneLimits, Reply
from millpond.serving.rows import Rows

CHILD = Path(__file__).with_name("child.py")


class Asking:
    """A lane, and questions to it."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane

    def submit(self, rows: Rows, **options: Any) -> asyncio.Future[Reply | Exception]:
        answered = asyncio.get_running_loop().create_future()
        self.lane.submit(rows, answered.set_result, **options)
        return answered

    def ask(self, *values: float, **options: Any) -> asyncio.Future[Reply | Exception]:
        return self.submit(Rows.of({"x": [float(each) for each in values]}), **options)

    async def outputs(self, *values: float) -> list[Any]:
        """One request a value, all at once: its output, or its error."""
        replies = await asyncio.gather(*(self.ask(each) for each in values))
        return [each if isinstance(each, Exception) else float(each.rows.columns["output"][0]) for each in replies]


@pytest.fixture
def with_lane(tmp_path: Path) -> Callable[..., Any]:
    """Runs a coroutine with a lane whose process is `child.py`; no process is left afterwards."""

    def run(
        test: Callable[[Asking], Coroutine[Any, Any, Any]],
        *how: str,
        command: tuple[str, ...] | None = None,
        env: dict[str, str] | None = None,
        **limits: Any,
    ) -> Any:
        async def main() -> Any:
            lane = Lane(
                command or (sys.executable, str(CHILD), *how),
                name="version 3 of model 'x'",
                limits=LaneLimits(**limits),
                log=tmp_path / "lane.log",
                env=env,
            )
            try:
                return await asyncio.wait_for(test(Asking(lane)), 120)
            finally:
                await lane.close(1.0)

        return uvloop.run(main())

    return run
