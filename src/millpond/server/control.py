"""The control process: serves the application on its one port, and keeps the children while it does."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from millpond.server.app import Services, create_app, parts
from millpond.server.lock import InstanceLock
from millpond.server.logs import log_to
from millpond.server.processes import Child, Supervisor
from millpond.server.sockets import listen

_GRACE_SECONDS = 3


@dataclass(frozen=True)
class Banner:
    """What is said once the server answers.

    Attributes:
        url: The server's address, such as "http://127.0.0.1:8200".
        login_url: Opens the console in a browser; works once, for ten minutes.
        serving_url: Where predictions are asked for directly, or None.
            grpc_address: The same over gRPC, such as "127.0.0.1:8323".
    """

    url: str
    login_url: str
    serving_url: str | None = None
    grpc_address: str | None = None


def serve(
    services: Services,
    *,
    state: Path,
    announce: Callable[[Banner], None],
    children: Sequence[Child] = (),
    load_mlflow: Callable[[], ASGIApp] | None = None,
    host: str = "127.0.0.1",
    port: int = 8200,
    admin: str = "admin",
    serving: socket.socket | None = None,
    grpc: socket.socket | None = None,
) -> None:
    """Run the platform until SIGINT, SIGTERM or SIGHUP; then end it, with all children, within a few seconds.

    Must be called in the main thread. The server answers before MLflow is loaded and before the children are ready.

    Args:
        services: What is served; already open.
        state: The project's state directory, `.millpond`.
        announce: Called once, when the server answers.
        children: Kept running meanwhile.
        load_mlflow: Makes MLflow's application; called in a thread of its own.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        admin: Identity that the login address is for.
        serving: The listening socket that the children answer predictions on; only told of here.
        grpc: The same over gRPC.

    Raises:
        Conflict: The platform of this project runs already, or the port is in use. Nothing was started.
    """
    with InstanceLock(state / "run") as lock, listen(host, port) as listener:
        url = _url(host, listener)
        serving_url = _url(host, serving) if serving is not None else None
        grpc_address = _url(host, grpc).removeprefix("http://") if grpc is not None else None
        handler = log_to(state / "logs" / "server.log")
        supervisor = Supervisor(state / "logs", grace=_GRACE_SECONDS)
        running = parts(services, supervisor.status)
        server = uvicorn.Server(_config(create_app(services, running)))
        try:
            with _signals(server):
                for child in children:
                    supervisor.start(child)
                if load_mlflow is not None:
                    threading.Thread(target=running.mlflow.load, args=(load_mlflow,), daemon=True).start()

                def answering() -> None:
                    lock.publish(url, serving_url, grpc_address)
                    code = services.access.issue_login_code(admin)
                    announce(Banner(url, f"{url}/login?code={code}", serving_url, grpc_address))

                asyncio.run(_serve(server, listener, answering))
        finally:
            supervisor.stop()
            logging.getLogger().removeHandler(handler)
            handler.close()


async def _serve(server: Any, listener: socket.socket, answering: Callable[[], None]) -> None:
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if server.started:
        await asyncio.to_thread(answering)
    await serving


def _config(app: ASGIApp) -> Any:
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on",
        ws="none",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )


@contextmanager
def _signals(server: Any) -> Iterator[None]:
    """Take the signals that end the process. uvicorn raises them again after its shutdown; then it is too late to
    die of them, as the children are yet to be ended.
    """

    def stop(_number: int, _frame: Any) -> None:
        server.should_exit = True

    watched = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in watched}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _url(host: str, listener: socket.socket) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listener.getsockname()[1]}"
