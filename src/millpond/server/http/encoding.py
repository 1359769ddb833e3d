"""Compressed bodies, as tritonclient sends and asks for them: gzip, and deflate in its zlib form (RFC 9110, 8.4.1)."""

from __future__ import annotations

import gzip
import zlib

from millpond.core.errors import PayloadTooLarge, RequestError
from millpond.server.http.errors import Refusal

#: Answers below this many bytes are not compressed.
WORTH_COMPRESSING = 1024

_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


def known_encoding(name: str) -> str:
    """The name of an encoding that can be undone, in small letters; "" for none.

    Raises:
        Refusal: 415: there is no such encoding here.
    """
    encoding = name.strip().lower()
    if encoding in ("", "identity"):
        return ""
    if encoding not in _WINDOWS:
        what = f"the body is encoded as {name!r}"
        raise Refusal(415, RequestError(what, where="Content-Encoding", hint="send it as gzip, deflate, or as it is"))
    return encoding


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """A body without its encoding; no more than `limit` bytes and one are ever made of it.

    Raises:
        PayloadTooLarge: It is longer than `limit` bytes.
        RequestError: It is not encoded so, or not complete.
    """
    try:
        found, whole = _inflate(body, _WINDOWS[encoding], limit)
    except zlib.error as error:
        if encoding != "deflate":
            raise _broken(encoding, str(error)) from error
        try:
            found, whole = _inflate(body, -15, limit)  # some clients leave zlib's header out
        except zlib.error:
            raise _broken(encoding, str(error)) from error
    if len(found) > limit:
        raise too_large(limit, "is longer once decompressed")
    if not whole:
        raise _broken(encoding, "it ends early")
    return found


def _inflate(body: bytes, window: int, limit: int) -> tuple[bytes, bool]:
    machine = zlib.decompressobj(window)
    return machine.decompress(body, limit + 1), machine.eof


def compress(body: bytes, encoding: str) -> bytes:
    """A body as "gzip" or "deflate"."""
    return gzip.compress(body, 1, mtime=0) if encoding == "gzip" else zlib.compress(body, 1)


def too_large(limit: int, found: str) -> PayloadTooLarge:
    """The error that a body is longer than `limit` bytes."""
    return PayloadTooLarge(
        f"the body {found}, and at most {limit} bytes are taken",
        where="request body",
        hint="send fewer rows at once, or predict a whole table with `millpond predict --batch`",
    )


def _broken(encoding: str, why: str) -> RequestError:
    what = f"the body is not {encoding}: {why}"
    return RequestError(what, where="Content-Encoding", hint=f"compress it whole, as {encoding}")
