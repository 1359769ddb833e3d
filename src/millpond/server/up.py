"""Starting the platform: the control process with everything that it puts a face on."""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import httpx
from starlette.types import ASGIApp

from millpond import __version__
from millpond.access.local import local_admin
from millpond.core.errors import MillpondError
from millpond.platform.log_policies import take_over
from millpond.platform.operations import PlatformOperations
from millpond.platform.platform import Platform
from millpond.platform.reader import PlatformReader
from millpond.platform.release import resume
from millpond.platform.workers import client_of
from millpond.server.app import Services, session_cookie
from millpond.server.control import Banner, serve
from millpond.server.grpc import available as grpc_available
from millpond.server.lock import refuse_second
from millpond.server.processes import Child
from millpond.server.sockets import listen, part_socket
from millpond.settings.project import Settings

_WORKER_FIRST_SECONDS = 30.0
_WORKER_GRACE = 12.0  # its own, and some for its end
_log = logging.getLogger("millpond.server")


def up(platform: Platform, *, port: int | None = None, ready: Callable[[Banner], None]) -> None:
    """Serve a project until it is told to stop; see `control.serve`.

    Args:
        platform: The project. Its definitions are read once, now.
        port: Port to listen on; 0 takes a free one, also for predictions; None takes the profile's.
        ready: Called with the server's addresses, once it answers.
    """
    settings = platform.settings
    admin = local_admin(settings.state, platform.user)
    sockets = tuple(part_socket(settings.run, f"serving-{number}") for number in range(settings.profile.workers))
    services = Services(
        access=platform.access,
        reader=PlatformReader(settings, platform.definitions, sockets),
        operations=PlatformOperations(settings, platform.definitions, sockets),
        workers=sockets,
        version=__version__,
        cookie=session_cookie(settings.state),
    )
    upkeep = [sys.executable, "-m", "millpond.server.upkeep", "--project", str(settings.root)]
    upkeep += ["--profile", settings.profile_name]
    keeper = [sys.executable, "-m", "millpond.server.release_keeper", "--project", str(settings.root)]
    keeper += ["--profile", settings.profile_name]
    # Serving processes find what is deployed; the keeper makes up for what cannot be told yet.
    try:
        take_over(platform, platform.definitions.models)
        resume(platform)
    except MillpondError as error:
        _log.warning("what is deployed is told later: %s", error.what)

    def load_mlflow() -> ASGIApp:
        from millpond.registry.mlflow_app import mlflow_application

        _wait_for(sockets[0])
        return mlflow_application(settings.tracking_database, settings.artifacts)

    with _listeners(settings, free=port == 0) as ports:
        serve(
            services,
            state=settings.state,
            announce=ready,
            children=[
                *_workers(settings, sockets, ports),
                Child("upkeep", upkeep),
                Child("releases", keeper),
            ],
            load_mlflow=load_mlflow,
            host=settings.profile.host,
            port=settings.profile.port if port is None else port,
            admin=admin.name,
            serving=ports.get("http"),
            grpc=ports.get("grpc"),
        )


def _workers(settings: Settings, sockets: Sequence[Path], ports: Mapping[str, socket.socket]) -> list[Child]:
    """The serving workers: each has a Unix socket of its own, and all accept from the same ports."""
    command = [sys.executable, "-m", "millpond.server.worker", "--project", str(settings.root)]
    command += ["--profile", settings.profile_name]
    for wire, listener in ports.items():
        command += [f"--{wire}", str(listener.fileno())]
    inherited = [listener.fileno() for listener in ports.values()]
    return [
        Child(path.stem, [*command, "--socket", str(path)], socket=path, inherited=inherited, grace=_WORKER_GRACE)
        for path in sockets
    ]


@contextlib.contextmanager
def _listeners(settings: Settings, *, free: bool) -> Iterator[dict[str, socket.socket]]:
    """The sockets that workers accept from, by wire: made here, they outlive each worker."""
    profile = settings.profile
    wanted = {"http": ("serving_port", profile.serving_port)}
    if grpc_available():
        wanted["grpc"] = ("grpc_port", profile.grpc_port)
    refuse_second(settings.run)  # before its ports are found to be in use
    with contextlib.ExitStack() as stack:
        found = {}
        for wire, (name, port) in wanted.items():
            if port is not None:
                setting = f"`{name}` of profile {settings.profile_name!r}"
                found[wire] = stack.enter_context(listen(profile.host, 0 if free else port, setting))
        yield found


def _wait_for(path: Path) -> None:
    """Let the serving worker start first: importing MLflow takes seconds of processor time, and nobody waits for it."""
    deadline = time.monotonic() + _WORKER_FIRST_SECONDS
    with client_of(path, timeout=1.0) as client:
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                if client.get("/v2/health/ready").is_success:
                    return
            time.sleep(0.1)
