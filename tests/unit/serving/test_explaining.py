"""Explanations are made beside the event loop: whoever asks something else does not wait for them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from millpond.core.errors import DeadlineExceeded, MillpondError, Overloaded, Unavailable
from millpond.serving.engine.engine import Deployed, Engine
from millpond.serving.engine.explaining import MOST_WAITING, ROWS_AT_ONCE, THREADS, Explainer
from millpond.serving.engine.loaded import Loaded
from millpond.serving.ports import Explanation, InferRequest, RequestColumn, ServedModel
from millpond.serving.rows import Rows
from millpond.serving.traffic.deployment import Deployment
from millpond.serving.traffic.statistics import Statistics

SECONDS = 20.0


class Gated:
    """A plan whose explanations wait until they are let go; a row's contribution is its input."""

    def __init__(self) -> None:
        self.begun, self.gate = threading.Semaphore(0), threading.Event()
        self.error: Exception | None = None
        self.asked: list[int] = []

    def predict(self, rows: Rows) -> dict[str, Any]:
        return {"output": [float(each) for each in rows.columns["a"]]}

    def explain(self, rows: Rows) -> Explanation:
        self.asked.append(rows.count)
        self.begun.release()
        assert self.gate.wait(SECONDS)
        if self.error is not None:
            raise self.error
        return Explanation(0.5, np.array([[each] for each in rows.columns["a"]]), "output")


class Memory:
    """A log in memory."""

    def __init__(self) -> None:
        self.records: list[Any] = []

    def append(self, record: Any, done: Callable[[Exception | None], None]) -> None:
        self.records.append(record)
        done(None)


class Running:
    """Two models in one event loop: `slow`, whose explanations wait, and `other`."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.explainer = Explainer(loop)
        self.plan, self.log = Gated(), Memory()
        self.engine = Engine(None, self.log, Statistics(), loop)  # type: ignore[arg-type]  # nobody asks by number
        self.engine.deploy({name: self._deployed(name) for name in ("slow", "other")})

    def _deployed(self, name: str) -> Deployed:
        columns = (RequestColumn("a", "float64", False, "input"),)
        served = ServedModel(name, 1, "regression", None, columns, None, {"a": "float64"})
        return Deployed(Deployment(name, 1), {1: Loaded(served, plan=self.plan, explainer=self.explainer)})

    def ask(self, model: str, count: int = 1, *, explain: bool = False, **more: Any) -> asyncio.Future[Any]:
        told = asyncio.get_running_loop().create_future()
        request = InferRequest(Rows.of({"a": [float(each) for each in range(count)]}), True, explain=explain)
        done = lambda _request, answer: told.set_result(answer)  # noqa: E731
        asked = {"deadline": None, "gone": lambda: False, **more}
        self.engine.ask(
            SimpleNamespace(model=model, version=None, user="ada", read=lambda _served: request, done=done, **asked)
        )
        return told

    async def begun(self) -> None:
        assert await asyncio.to_thread(self.plan.begun.acquire, timeout=SECONDS)


Test = Callable[[Running], Any]


@pytest.fixture
def run() -> Callable[[Test], None]:
    def running(test: Test) -> None:
        async def within() -> None:
            made = Running()
            try:
                await asyncio.wait_for(test(made), SECONDS)
            finally:
                made.plan.gate.set()
                made.explainer.close()

        asyncio.run(within())

    return running


def test_others_are_answered_while_one_is_explained(run: Callable[[Test], None]) -> None:
    async def test(made: Running) -> None:
        explained = made.ask("slow", 3, explain=True)
        await made.begun()
        for model in ("other", "slow"):
            assert list((await made.ask(model)).outputs["output"]) == [0.0]
        assert not explained.done()
        assert len(made.log.records) == 2  # an answer is logged once it is whole
        made.plan.gate.set()
        answer = await explained
        assert answer.explanation.contributions.tolist() == [[0.0], [1.0], [2.0]]
        assert (answer.explanation.base, answer.explanation.unit) == (0.5, "output")
        assert made.log.records[-1].answer is answer

    run(test)


def test_many_rows_are_explained_in_pieces(run: Callable[[Test], None]) -> None:
    async def test(made: Running) -> None:
        made.plan.gate.set()
        count = 2 * ROWS_AT_ONCE + 1
        answer = await made.ask("slow", count, explain=True)
        assert answer.explanation.contributions[:, 0].tolist() == list(range(count))
        assert made.plan.asked == [ROWS_AT_ONCE, ROWS_AT_ONCE, 1]

    run(test)


def test_nothing_goes_on_for_who_waits_no_longer(run: Callable[[Test], None]) -> None:
    async def test(made: Running) -> None:
        left: list[str] = []
        late = made.ask("slow", 3 * ROWS_AT_ONCE, explain=True, deadline=time.monotonic() + 0.05)
        away = made.ask("slow", 3 * ROWS_AT_ONCE, explain=True, gone=lambda: bool(left))
        await made.begun()
        await made.begun()
        left.append("gone")
        await asyncio.sleep(0.06)
        made.plan.gate.set()
        assert isinstance(await late, DeadlineExceeded)
        assert isinstance(await away, Unavailable)
        assert made.plan.asked == [ROWS_AT_ONCE, ROWS_AT_ONCE]
        assert made.log.records == []

    run(test)


def test_more_than_may_wait_are_refused(run: Callable[[Test], None]) -> None:
    async def test(made: Running) -> None:
        waiting = [made.ask("slow", explain=True) for _ in range(MOST_WAITING)]
        assert isinstance(await made.ask("slow", explain=True), Overloaded)
        assert list((await made.ask("slow")).outputs["output"]) == [0.0]
        assert len(made.plan.asked) <= THREADS
        made.plan.gate.set()
        assert all(each.explanation is not None for each in await asyncio.gather(*waiting))
        assert (await made.ask("slow", explain=True)).explanation is not None

    run(test)


def test_errors_are_told(run: Callable[[Test], None]) -> None:
    async def test(made: Running) -> None:
        made.plan.gate.set()
        made.plan.error = MillpondError("contributions cannot be told")
        assert await made.ask("slow", explain=True) is made.plan.error
        made.plan.error = ValueError("planted")
        failed = await made.ask("slow", explain=True)
        assert "version 1 of model 'slow' failed: ValueError: planted" in failed.what
        made.explainer.close()
        assert isinstance(await made.ask("slow", explain=True), Unavailable)

    run(test)
