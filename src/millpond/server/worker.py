"""The serving worker: the process in which predictions run, with its event loop and its wires.

Started as `python -m millpond.server.worker --project FOLDER --profile NAME --socket PATH [--http FD] [--grpc FD]`;
FD is a listening socket that the control process made, and keeps open whatever becomes of a worker.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from millpond.access.ports import Authenticator
from millpond.platform.gateway import Gateway
from millpond.platform.platform import Platform, open_project
from millpond.server.allocator import give_back_large_blocks
from millpond.server.http.doors import TokenCache, TokenDoor, TrustedDoor
from millpond.server.http.limits import Limits
from millpond.server.http.routes import Routes
from millpond.server.http.server import HttpServer
from millpond.server.inference_metrics import InferenceMetrics
from millpond.server.sockets import part_listener
from millpond.serving.log.spool import PredictionLog
from millpond.serving.ports import Answering

#: Seconds that answers under way are given when the worker is told to stop.
GRACE_SECONDS = 10.0

#: Objects that come alive between two looks for cycles. Requests leave none, so what lives is what is under way: with
#: the usual 700, it would be looked through with every few answers.
GARBAGE_THRESHOLD = 20_000


def main() -> None:
    """Serve the champions of a project until the process is ended."""
    parser = argparse.ArgumentParser(description="Serve the champions of a project.")
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--profile", required=True)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--http", type=int, help="descriptor of a listening socket")
    parser.add_argument("--grpc", type=int, help="descriptor of a listening socket")
    arguments = parser.parse_args()
    logging.basicConfig(stream=sys.stdout, format="%(asctime)s %(message)s", level=logging.WARNING)
    give_back_large_blocks()
    platform = open_project(arguments.project, profile=arguments.profile)
    limits = Limits(body_bytes=platform.settings.profile.body_limit)
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 20)
    with ExitStack() as stack:
        trusted = stack.enter_context(part_listener(arguments.socket))
        ports = Ports(*(_inherited(stack, number) for number in (arguments.http, arguments.grpc)))
        uvloop.run(_run(platform, trusted, ports, limits))


@dataclass(frozen=True)
class Ports:
    """Listening sockets for anybody who holds a token; None where a wire has none."""

    http: socket.socket | None = None
    grpc: socket.socket | None = None


def _inherited(stack: ExitStack, number: int | None) -> socket.socket | None:
    return stack.enter_context(socket.socket(fileno=number)) if number is not None else None


async def _run(platform: Platform, trusted: socket.socket, ports: Ports, limits: Limits) -> None:
    loop = asyncio.get_running_loop()
    log = PredictionLog(platform.settings.spool, loop=loop, sync=platform.settings.profile.prediction_log)
    gateway = Gateway(platform, log, loop)
    gateway.start()
    try:
        await serve(gateway.engine, trusted, ports, platform.access, limits, traffic=gateway.traffic)
    finally:
        await gateway.close()
        log.close()


async def serve(
    answering: Answering,
    trusted: socket.socket,
    ports: Ports,
    access: Authenticator,
    limits: Limits,
    *,
    traffic: Callable[[], Sequence[Mapping[str, Any]]] | None = None,
    grace: float = GRACE_SECONDS,
    started: Callable[[], None] = lambda: None,
) -> None:
    """Answer on the wires until SIGTERM or SIGINT; then answer what was read, for at most `grace` seconds.

    Args:
        answering: Answers.
        trusted: A listening socket that only the platform's user can open.
        ports: Listening sockets for anybody.
        access: Knows who comes by `ports`.
        limits: Bounds on what callers may ask.
        traffic: What the release keeper is told.
        grace: See above.
        started: Called once the wires listen.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    seconds = limits.deadline_seconds
    metrics = InferenceMetrics()
    routes = Routes(answering, metrics, most_seconds=seconds, traffic=traffic, ending=stop.is_set)
    server = HttpServer(routes, limits)
    tokens = TokenCache(access, server.threads, loop)
    await server.listen(trusted, TrustedDoor())
    if ports.http is not None:
        await server.listen(ports.http, TokenDoor(tokens))
    ends: list[Callable[[float], Awaitable[None]]] = [server.stop]
    if ports.grpc is not None:
        from millpond.server.grpc.limits import GrpcLimits
        from millpond.server.grpc.server import serve_grpc

        bounds = GrpcLimits(message_bytes=limits.body_bytes, deadline_seconds=seconds)
        grpc = await serve_grpc(answering, tokens.identify, ports.grpc, bounds, metrics=metrics, ending=stop.is_set)
        ends.append(grpc.drain)
    started()
    await stop.wait()
    await asyncio.gather(*(end(grace) for end in ends))


if __name__ == "__main__":
    main()
