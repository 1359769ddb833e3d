"""Unary gRPC calls over HTTP/2 streams.

Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md and doc/compression.md beside it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from millpond.core.errors import MillpondError, NotAuthenticated, PayloadTooLarge
from millpond.server.grpc.headers import Field, header_block
from millpond.server.grpc.limits import GrpcLimits
from millpond.server.grpc.sending import Stream
from millpond.server.grpc.status import INTERNAL, UNIMPLEMENTED, Status, status_of, trailers_only

#: Establishes who holds a token: calls back, at once or later in the same thread, with the user's name or an error.
Identify: TypeAlias = Callable[[str, Callable[[str | Exception], None]], None]

#: Answers a call: with the stream, who asks ("" where nobody must be known) and the request message's bytes.
Run: TypeAlias = Callable[[Stream, str, bytes], None]

_ENCODINGS = b"identity,gzip,deflate"
_ACCEPTED = ((b"grpc-accept-encoding", _ENCODINGS),)
_WINDOW_BITS: Mapping[bytes, int] = {b"gzip": 31, b"deflate": 15}
_UNITS: Mapping[bytes, float] = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_HEAD = header_block(((b":status", b"200"), (b"content-type", b"application/grpc")))
_TRAILERS = header_block(((b"grpc-status", b"0"),))
_PREFIX_BYTES = 5


class Method(NamedTuple):
    """A method of a service.

    Attributes:
        run: Answers a call.
        open: Whether it answers without an identity.
    """

    run: Run
    open: bool = False


class Head(NamedTuple):
    """What the header fields of a call mean.

    Attributes:
        method: The method that is called; None where there is a refusal.
        timeout: Seconds after which the caller is told that there is no answer.
        token: The token of `authorization: Bearer`, or None.
        encoding: How a compressed message is compressed.
        refusal: The status of a call that cannot be answered, or None.
    """

    method: Method | None
    timeout: float = 0.0
    token: str | None = None
    encoding: bytes = b"identity"
    refusal: Status | None = None


class Calls:
    """The methods that a server answers, as the service of its HTTP/2 connections.

    Args:
        methods: By path, such as b"/inference.GRPCInferenceService/ModelInfer".
        identify: Establishes who asks.
        limits: What one client may ask for.
    """

    def __init__(self, methods: Mapping[bytes, Method], identify: Identify, limits: GrpcLimits) -> None:
        self._methods = methods
        self._identify = identify
        self._message_bytes = limits.message_bytes
        self._most_seconds = limits.deadline_seconds

    def interpret(self, fields: Sequence[Field]) -> Head:
        """What a call's header fields mean."""
        found = dict(fields)
        if found[b":method"] != b"POST":
            return Head(None, refusal=Status(INTERNAL, "a gRPC call is a POST", ((b"allow", b"POST"),), http=405))
        kind = found.get(b"content-type", b"")
        if kind != b"application/grpc" and not kind.startswith((b"application/grpc+", b"application/grpc;")):
            return Head(None, refusal=Status(INTERNAL, "the content type is not application/grpc", http=415))
        path = found[b":path"]
        method = self._methods.get(path)
        if method is None:
            return Head(None, refusal=Status(UNIMPLEMENTED, f"there is no method {path.decode(errors='replace')}"))
        encoding = found.get(b"grpc-encoding", b"identity")
        if encoding != b"identity" and encoding not in _WINDOW_BITS:
            what = f"messages compressed with {encoding.decode(errors='replace')} are not understood"
            return Head(None, refusal=Status(UNIMPLEMENTED, what, _ACCEPTED))
        timeout = self._most_seconds
        if text := found.get(b"grpc-timeout"):
            stated = read_timeout(text)
            if stated is None:
                return Head(None, refusal=Status(INTERNAL, "grpc-timeout is no time"))
            timeout = min(timeout, stated)
        return Head(method, timeout, bearer_token(found.get(b"authorization", b"")), encoding)

    def timeout(self, head: Head) -> float:
        """Seconds after which the caller is told that there is no answer; 0 where it need not be told."""
        return head.timeout

    def fail(self, stream: Stream, error: MillpondError) -> None:
        """Give an error as the answer, whatever becomes of the call."""
        stream.end_early(trailers_only(status_of(error)))

    def call(self, stream: Stream, body: bytes) -> None:
        """Answer a call."""
        head: Head = stream.head
        method = head.method
        if method is None:
            assert head.refusal is not None
            return stream.end(trailers_only(head.refusal))
        if len(body) < _PREFIX_BYTES or int.from_bytes(body[1:_PREFIX_BYTES]) != len(body) - _PREFIX_BYTES:
            return stream.end(trailers_only(Status(UNIMPLEMENTED, "a unary call carries exactly one message")))
        try:
            message = body[_PREFIX_BYTES:] if body[0] == 0 else self._decompressed(head.encoding, body)
        except MillpondError as error:
            return fail(stream, error)
        except zlib.error:
            return stream.end(trailers_only(Status(INTERNAL, "the message cannot be decompressed")))
        if method.open:
            return run(method, stream, "", message)
        if head.token is None:
            hint = "send the metadata `authorization: Bearer mp_...`; the project's token lies in .millpond/token"
            return fail(stream, NotAuthenticated("the call needs an identity, and carries none", hint=hint))

        def known(user: str | Exception) -> None:
            if isinstance(user, Exception):
                fail(stream, user)
            else:
                run(method, stream, user, message)

        try:
            self._identify(head.token, known)
        except Exception as error:
            fail(stream, error)
        return None

    def _decompressed(self, encoding: bytes, body: bytes) -> bytes:
        bits = _WINDOW_BITS.get(encoding)
        if body[0] != 1 or bits is None:
            raise zlib.error("not compressed")
        reader = zlib.decompressobj(bits)
        message = reader.decompress(body[_PREFIX_BYTES:], self._message_bytes + 1)
        if len(message) > self._message_bytes:
            what = f"the message is longer than {self._message_bytes} bytes when decompressed"
            raise PayloadTooLarge(what, where="request message", hint="send fewer rows at once")
        if not reader.eof:
            raise zlib.error("incomplete")
        return message


def run(method: Method, stream: Stream, user: str, message: bytes) -> None:
    """Run a method; what it raises is the answer."""
    try:
        method.run(stream, user, message)
    except Exception as error:
        fail(stream, error)


def reply(stream: Stream, message: bytes) -> None:
    """Answer a call with a message."""
    stream.answer(_HEAD, b"\0" + len(message).to_bytes(4) + message, _TRAILERS)


def fail(stream: Stream, error: Any) -> None:
    """Answer a call with an error."""
    stream.end(trailers_only(status_of(error)))


def read_timeout(text: bytes) -> float | None:
    """The seconds of a `grpc-timeout`: at most eight digits and a unit; None where it is none."""
    digits, unit = text[:-1], _UNITS.get(text[-1:])
    if unit is None or not 1 <= len(digits) <= 8 or not digits.isdigit():
        return None
    return int(digits) * unit


def bearer_token(authorization: bytes) -> str | None:
    """The token of an `authorization` field; None where there is none, or it is of another scheme."""
    scheme, _, token = authorization.strip().partition(b" ")
    if scheme.lower() != b"bearer" or not token.isascii():
        return None
    return token.strip().decode() or None
