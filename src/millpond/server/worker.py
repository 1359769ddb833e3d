"""The serving worker: the process in which predictions run, with its event loop and its wires.

Started as `python -m millpond.server.worker --project FOLDER --profile NAME --socket PATH [--http FD]`; FD is a
listening socket that the control process made, and keeps open whatever becomes of a worker.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import uvloop

from millpond.access.ports import Authenticator
from millpond.platform.gateway import Gateway
from millpond.platform.platform import Platform, open_project
from millpond.server.http.doors import TokenDoor, TrustedDoor
from millpond.server.http.limits import Limits
from millpond.server.http.routes import Routes
from millpond.server.http.server import HttpServer
from millpond.server.inference_metrics import InferenceMetrics
from millpond.server.sockets import part_listener
from millpond.serving.log.spool import PredictionLog
from millpond.serving.ports import Answering

#: Seconds that answers under way are given when the worker is told to stop.
GRACE_SECONDS = 10.0


def main() -> None:
    """Serve the champions of a project until the process is ended."""
    parser = argparse.ArgumentParser(description="Serve the champions of a project.")
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--profile", required=True)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--http", type=int, help="descriptor of a listening socket")
    arguments = parser.parse_args()
    logging.basicConfig(stream=sys.stdout, format="%(asctime)s %(message)s", level=logging.WARNING)
    platform = open_project(arguments.project, profile=arguments.profile)
    limits = Limits(body_bytes=platform.settings.profile.body_limit)
    with ExitStack() as stack:
        trusted = stack.enter_context(part_listener(arguments.socket))
        port = stack.enter_context(socket.socket(fileno=arguments.http)) if arguments.http is not None else None
        uvloop.run(_run(platform, trusted, port, limits))


async def _run(platform: Platform, trusted: socket.socket, port: socket.socket | None, limits: Limits) -> None:
    loop = asyncio.get_running_loop()
    log = PredictionLog(platform.settings.spool, loop=loop, sync=platform.settings.profile.prediction_log)
    gateway = Gateway(platform, log, loop)
    gateway.start()
    try:
        await serve(gateway.engine, trusted, port, platform.access, limits, traffic=gateway.traffic)
    finally:
        await gateway.close()
        log.close()


async def serve(
    answering: Answering,
    trusted: socket.socket,
    port: socket.socket | None,
    access: Authenticator | None,
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
        port: A listening socket for anybody, or None.
        access: Knows who comes by `port`; None where there is none.
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
    routes = Routes(answering, InferenceMetrics(), most_seconds=seconds, traffic=traffic, ending=stop.is_set)
    server = HttpServer(routes, limits)
    await server.listen(trusted, TrustedDoor())
    if port is not None and access is not None:
        await server.listen(port, TokenDoor(access, server.threads, loop))
    started()
    await stop.wait()
    await server.stop(grace)


if __name__ == "__main__":
    main()
