"""A server of linear models, asked by the clients that people use."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import numpy as np
import pytest
import uvloop

from millpond.core.errors import DeadlineExceeded, NotAuthenticated, NotFound, Overloaded
from millpond.server.grpc.limits import GrpcLimits
from millpond.server.grpc.server import serve_grpc
from millpond.serving.ports import Answer, ModelState, RequestColumn, ServedModel
from millpond.serving.rows import Rows

WIDTH = 30
TOKEN = "mp_known"


def served_model(name: str, inputs: dict[str, str], task: str = "classification") -> ServedModel:
    columns = tuple(RequestColumn(each, kind, False, "input") for each, kind in inputs.items())
    return ServedModel(name, 3, task, 0.5 if task == "classification" else None, columns, None, inputs)


class Linear:
    """Answers with a linear model of the numbers among the inputs; text counts by its length.

    "late" answers after 0.3 seconds, and "full" never.
    """

    def __init__(self) -> None:
        numbers = {f"f{index:02}": "float64" for index in range(WIDTH)}
        mixed = {"x": "float64", "n": "int64", "b": "bool", "s": "string", "t": "instant"}
        self.models = {
            "late": served_model("late", numbers),
            "full": served_model("full", numbers),
            "linear": served_model("linear", numbers),
            "mixed": served_model("mixed", mixed, "regression"),
        }
        self.unloaded: set[str] = set()
        self.users: list[str] = []
        self.deadlines: list[float | None] = []
        self.dropped = 0
        self.pending = 0

    def ask(self, question) -> None:
        self.users.append(question.user)
        self.deadlines.append(question.deadline)
        try:
            request = question.read(served := self.served(question.model, question.version))
        except Exception as error:
            question.done(None, error)
            return
        if question.model == "full":
            question.done(None, Overloaded("too many requests wait", where="model 'full'", hint="ask later"))
        elif question.model == "late":
            self.pending += 1
            asyncio.get_running_loop().call_later(0.3, self._late, question, request, served)
        else:
            question.done(request, self.answer(request, served))

    def _late(self, question, request, served) -> None:
        self.pending -= 1
        if question.gone():
            self.dropped += 1
            question.done(None, DeadlineExceeded("nobody waits any more"))
        else:
            question.done(request, self.answer(request, served))

    def answer(self, request, served) -> Answer:
        scores = score(request.rows)
        count = request.rows.count
        answers = [bool(each) for each in scores >= 0.5] if served.threshold is not None else None
        ids = [f"p_{row}" for row in range(count)]
        return Answer(served, "live", ids, {"output": scores}, answers, [1_385_856_000_000_000] * count)

    def served(self, model, version=None) -> ServedModel:
        if model not in self.models or model in self.unloaded or version not in (None, "3"):
            raise NotFound(f"there is no model {model!r} in version {version}", where="models", hint="deploy it")
        return self.models[model]

    def state(self, model, version=None) -> ModelState:
        self.served(model, version)
        return ModelState(model, "3", "READY")

    def index(self):
        return [
            ModelState(name, "3", "UNLOADED" if name in self.unloaded else "READY", "taken off")
            for name in sorted(self.models)
        ]

    def load(self, model) -> None:
        if model not in self.models:
            raise NotFound(f"there is no model {model!r}")
        self.unloaded.discard(model)

    def unload(self, model) -> None:
        self.served(model)
        self.unloaded.add(model)


def score(rows: Rows) -> np.ndarray:
    if rows.matrix is not None:
        return linear(rows.matrix)
    values = [
        [np.nan if value is None else len(value) if isinstance(value, str) else float(value) for value in column]
        for column in rows.given
    ]
    return linear(np.ascontiguousarray(np.array(values).T))


def linear(matrix: np.ndarray) -> np.ndarray:
    """What the models answer, for who wants to check."""
    weights = np.arange(1, matrix.shape[1] + 1) / 1000
    return np.nan_to_num(matrix) @ weights


class Counts:
    """Keeps what is observed."""

    def __init__(self) -> None:
        self.waiting = 0
        self.seen: list[tuple[str, str, str, int, int]] = []

    def observe(self, model, version, variant, code, rows, seconds) -> None:
        assert 0 <= seconds < 60
        self.seen.append((model, version, variant, code, rows))


class Server:
    def __init__(self, limits: GrpcLimits) -> None:
        self.models = Linear()
        self.counts = Counts()
        self.ending = False
        self.loop = uvloop.new_event_loop()
        self.problems: list[dict] = []
        self.loop.set_exception_handler(lambda _loop, context: self.problems.append(context))
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        sock.bind(("127.0.0.1", 0))
        self.url = f"127.0.0.1:{sock.getsockname()[1]}"
        started = threading.Event()

        async def serve():
            told = {"metrics": self.counts, "ending": lambda: self.ending}
            return await serve_grpc(self.models, self.identify, sock, limits, **told)

        def run() -> None:
            asyncio.set_event_loop(self.loop)
            self.wire = self.loop.run_until_complete(serve())
            started.set()
            self.loop.run_forever()
            self.loop.run_until_complete(asyncio.sleep(0.02))
            self.loop.close()

        self.thread = threading.Thread(target=run)
        self.thread.start()
        assert started.wait(5)

    def identify(self, token, done) -> None:
        self.loop.call_soon(done, "ann" if token == TOKEN else NotAuthenticated("the token is not valid"))

    def drain(self, seconds: float):
        return asyncio.run_coroutine_threadsafe(self.wire.drain(seconds), self.loop)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.wire.abort)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)

    def until(self, fact) -> None:
        deadline = time.monotonic() + 5
        while not fact():
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.fixture
def start():
    running: list[Server] = []

    def start(**limits) -> Server:
        running.append(Server(GrpcLimits(**limits)))
        return running[-1]

    yield start
    for each in running:
        each.stop()
        assert each.problems == []


@pytest.fixture(scope="module")
def server():
    running = Server(GrpcLimits())
    yield running
    running.stop()
    assert running.problems == []


@pytest.fixture
def expected():
    return linear
