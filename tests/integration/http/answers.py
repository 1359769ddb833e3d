"""A serving worker that adds numbers, in several moods: answers.py SOCKET [--http FD | --port PORT] [--grace SECONDS]

Models: "sum" answers at once; "later" after `a` seconds; "never" does not; "broken" fails.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop

from millpond.access.ports import Identity
from millpond.core.errors import NotFound
from millpond.core.names import did_you_mean
from millpond.core.time import now
from millpond.server.http.doors import TokenCache, TokenDoor, TrustedDoor
from millpond.server.http.limits import Limits
from millpond.server.http.routes import Routes
from millpond.server.http.server import HttpServer
from millpond.server.inference_metrics import InferenceMetrics
from millpond.server.sockets import listen, part_listener
from millpond.serving.ports import Answer, ModelState, Question, RequestColumn, ServedModel

LIMITS = Limits(
    body_bytes=1 << 20,
    head_bytes=8 << 10,
    message_seconds=1.0,
    idle_seconds=1.5,
    linger_seconds=1.0,
    deadline_seconds=1.5,
    pipelined=16,
)
NAMES = ("broken", "later", "never", "sum")


def served(model: str) -> ServedModel:
    columns = (RequestColumn("a", "float64", True, "input"), RequestColumn("b", "float64", False, "input"))
    return ServedModel(model, 3, "regression", None, columns, None, {"a": "float64", "b": "float64"})


class Adding:
    """Implements `Answering`."""

    def __init__(self) -> None:
        self.unloaded: set[str] = set()
        self.asked = self.gone = 0
        self.waiting: list[Question] = []

    def ask(self, question: Question) -> None:
        self.asked += 1
        try:
            version = self.served(question.model, question.version)
            request = question.read(version)
        except Exception as error:
            question.done(None, error)
            return
        if question.model == "broken":
            question.done(None, KeyError("a secret of the house"))
            return
        columns = request.rows.columns
        a = list(columns["a"])
        b = list(columns["b"]) if "b" in columns else [0.0] * len(a)
        sums = [float(x) + (0.0 if y is None or y != y else float(y)) for x, y in zip(a, b, strict=True)]
        ids = [f"p_{question.user}_{row}" for row in range(len(a))]
        answer = Answer(version, "live", ids, {"output": sums}, None, [0] * len(a))
        if question.model == "sum":
            question.done(request, answer)
        elif question.model == "later":
            asyncio.get_running_loop().call_later(a[0], self._later, question, request, answer)
        else:
            self.waiting.append(question)

    def _later(self, question: Question, request: Any, answer: Answer) -> None:
        self.gone += question.gone()
        question.done(request, answer)

    def served(self, model: str, version: str | None = None) -> ServedModel:
        if model not in NAMES or model in self.unloaded:
            raise NotFound(f"there is no model {model!r}", hint=did_you_mean(model, NAMES, noun="models"))
        if version not in (None, "3"):
            raise NotFound(f"model {model!r} has no version {version!r}", hint="versions: 3")
        return served(model)

    def state(self, model: str, version: str | None = None) -> ModelState:
        self.served(model, version)
        return ModelState(model, "3", "READY")

    def index(self) -> Sequence[ModelState]:
        return [ModelState(each, "3", "UNLOADED" if each in self.unloaded else "READY") for each in NAMES]

    def load(self, model: str) -> None:
        if model not in NAMES:
            raise NotFound(f"there is no model {model!r}")
        self.unloaded.discard(model)

    def unload(self, model: str) -> None:
        self.served(model)
        self.unloaded.add(model)

    def traffic(self) -> dict[str, int]:
        garbage = 0 if gc.isenabled() else gc.collect()
        return {"asked": self.asked, "gone": self.gone + sum(each.gone() for each in self.waiting), "garbage": garbage}


class FromFile:
    """Tokens are good while a file lists them; each is the name of its owner. Counts how often it was asked."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._calls = file.with_name("calls")

    def authenticate_token(self, secret: str) -> Identity | None:
        with self._calls.open("a") as calls:
            calls.write(f"{secret}\n")
        return Identity(secret, "user", now()) if secret in self._file.read_text().split() else None

    def authenticate_session(self, secret: str) -> Identity | None:
        return None


async def run(arguments: argparse.Namespace, trusted: socket.socket, port: socket.socket | None) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    adding = Adding()
    routes = Routes(
        adding,
        InferenceMetrics(),
        most_seconds=LIMITS.deadline_seconds,
        traffic=adding.traffic,
        ending=stop.is_set,
    )
    server = HttpServer(routes, LIMITS)
    await server.listen(trusted, TrustedDoor())
    if port is not None:
        access = FromFile(arguments.socket.with_name("tokens"))
        await server.listen(port, TokenDoor(TokenCache(access, server.threads, loop)))
    sys.stdout.write(f"{port.getsockname()[1] if port else 0}\n")
    sys.stdout.flush()
    await stop.wait()
    await server.stop(arguments.grace)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("socket", type=Path)
    parser.add_argument("--http", type=int)
    parser.add_argument("--port", type=int)
    parser.add_argument("--grace", type=float, default=5.0)
    parser.add_argument("--count-garbage", action="store_true")
    given = parser.parse_args()
    if given.count_garbage:
        gc.disable()
    listener = None
    if given.http is not None:
        listener = socket.socket(fileno=given.http)
    elif given.port is not None:
        listener = listen("127.0.0.1", given.port)
    with part_listener(given.socket) as unix:
        uvloop.run(run(given, unix, listener))
