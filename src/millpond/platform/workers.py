"""Asking the serving workers behind their Unix sockets: any of them, and another where one is not there."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from millpond.core.errors import Unavailable

if TYPE_CHECKING:
    import httpx


def ask_worker(
    sockets: Sequence[Path],
    method: str,
    path: str,
    *,
    content: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float,
) -> httpx.Response:
    """What one of the workers answers.

    Args:
        sockets: Where the workers listen.
        method: Such as "GET".
        path: Such as "/v2/models/late/ready".
        content: The body, if any.
        headers: Headers of the request.
        timeout: Seconds for which a worker may be silent.

    Raises:
        Unavailable: None can be reached, or the one that was did not answer.
    """
    import httpx

    failure: Exception | None = None
    for socket in random.sample(sockets, len(sockets)):
        try:
            with client_of(socket, timeout=timeout) as client:
                return client.request(method, path, content=content, headers=headers)
        except httpx.ConnectError as error:
            failure = error  # nothing was asked yet: another one may
        except httpx.TransportError as error:
            failure = error
            break
    hint = "it starts within some seconds of `millpond up`; see .millpond/logs"
    raise Unavailable("The serving worker does not answer", hint=hint) from failure


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
