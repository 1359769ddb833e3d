"""What the serving processes of a project count, asked of each through its Unix socket."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from millpond.core.errors import Unavailable
from millpond.platform.workers import client_of
from millpond.server.sockets import part_socket

#: Where a serving process says what it counted: a JSON list of `Statistics.snapshot`.
PATH = "/internal/traffic"

_TIMEOUT_SECONDS = 0.5


@dataclass(frozen=True)
class Traffic:
    """What was said.

    Attributes:
        snapshots: Of every process that answered.
        silent: Number of sockets at which nobody answered in time.
    """

    snapshots: Sequence[Mapping[str, Any]]
    silent: int


def serving_sockets(run: Path) -> list[Path]:
    """The sockets of the serving processes that there are: `serving.sock`, `serving-1.sock` ..."""
    return sorted(part_socket(run, "serving").parent.glob("serving*.sock"))


def fetch_traffic(run: Path) -> Traffic:
    """Ask every serving process what it counted; takes half a second at most for each that does not answer."""
    snapshots: dict[str, Mapping[str, Any]] = {}
    silent = 0
    for socket in serving_sockets(run):
        try:
            with client_of(socket, timeout=_TIMEOUT_SECONDS) as client:
                answer = client.get(PATH)
            for each in answer.json() if answer.is_success else ():
                snapshots[each["boot"]] = each
        except (httpx.TransportError, ValueError, KeyError, TypeError):
            silent += 1
    return Traffic(list(snapshots.values()), silent)


def wait_until_served(run: Path, generation: int, seconds: float = 60.0) -> int:
    """Return when every serving process answers by this routing document, or a newer one; how many do.

    Raises:
        Unavailable: Some do not within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while True:
        traffic = fetch_traffic(run)
        behind = [each for each in traffic.snapshots if each["generation"] < generation]
        if not behind and not traffic.silent:
            return len(traffic.snapshots)
        if time.monotonic() > deadline:
            raise Unavailable(
                f"It is deployed, but {len(behind) + traffic.silent} of the serving processes do not answer by it yet",
                hint="they take it as soon as they can; see .millpond/logs, and `millpond status`",
            )
        time.sleep(0.1)
