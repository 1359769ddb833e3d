"""Asking the serving workers behind their Unix sockets: any of them, and another where one is not there."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from millpond.core.errors import Unavailable

if TYPE_CHECKING:
    import httpx

#: Seconds for which a question waits for a worker that can be reached, as when a lone one is started again; and between
#: two looks for one.
PATIENCE, LOOK_EVERY = 5.0, 0.05


def ask_worker(
    sockets: Sequence[Path],
    method: str,
    path: str,
    *,
    content: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float,
    patience: float = PATIENCE,
) -> httpx.Response:
    """What one of the workers answers. Only a question that has reached none is put to another, or again.

    Args:
        sockets: Where the workers listen.
        method: Such as "GET".
        path: Such as "/v2/models/late/ready".
        content: The body, if any.
        headers: Headers of the request.
        timeout: Seconds for which a worker may be silent.
        patience: Seconds for which to wait for a worker that can be reached.

    Raises:
        Unavailable: None can be reached, or the one that was did not answer.
    """
    import httpx

    until = time.monotonic() + patience
    failure: Exception | None = None
    while True:
        for socket in random.sample(sockets, len(sockets)):
            try:
                with client_of(socket, timeout=timeout) as client:
                    return client.request(method, path, content=content, headers=headers)
            except httpx.ConnectError as error:
                failure = error  # nothing was asked yet
            except httpx.TransportError as error:
                raise _silent() from error
        if time.monotonic() >= until:
            raise _silent() from failure
        time.sleep(LOOK_EVERY)


def _silent() -> Unavailable:
    hint = "it starts within some seconds of `millpond up`; see .millpond/logs"
    return Unavailable("The serving worker does not answer", hint=hint)


def client_of(socket: Path, *, timeout: float) -> httpx.Client:
    """A client of the worker behind a socket; to be closed.

    Args:
        socket: Where the worker listens.
        timeout: Seconds for which it may be silent.
    """
    import ssl

    import httpx

    # Nothing is encrypted here; left to itself, a transport reads the certificates of all authorities, for 40 ms.
    transport = httpx.HTTPTransport(uds=str(socket), verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    return httpx.Client(transport=transport, base_url="http://worker", timeout=timeout)
