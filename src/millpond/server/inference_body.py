"""Reading a request body with a limit on its size and on its time."""

from __future__ import annotations

import anyio
from starlette.requests import Request

from millpond.core.errors import PayloadTooLarge, RequestError


async def read_body(request: Request, *, limit: int, seconds: float) -> bytes:
    """The body, read in pieces; at most `limit` bytes and one piece more are ever held.

    Raises:
        PayloadTooLarge: The body is, or says it is, longer than `limit` bytes.
        TimeoutError: It was not there after `seconds`.
        RequestError: It is compressed.
        ClientDisconnect: The caller went away.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise RequestError(
            f"the body is encoded as {encoding!r}", where="Content-Encoding", hint="send it uncompressed"
        )
    said = request.headers.get("content-length", "0")
    if said.isdecimal() and int(said) > limit:
        raise _too_large(limit, f"has {said} bytes")
    body = bytearray()
    with anyio.fail_after(seconds):
        async for piece in request.stream():
            body += piece
            if len(body) > limit:
                raise _too_large(limit, "is longer")
    return bytes(body)


def _too_large(limit: int, found: str) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"the body {found}, and at most {limit} bytes are taken",
        where="request body",
        hint="send fewer rows at once, or predict a whole table with `millpond predict --batch`",
    )
