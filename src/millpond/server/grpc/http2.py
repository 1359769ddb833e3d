"""A server's end of an HTTP/2 connection, for requests and answers that are whole messages.

It speaks HTTP/2 with prior knowledge and without TLS, neither pushes nor prioritises, and hands a request on when all
of it is there. What goes out within one turn of the event loop is written at once.

Source: RFC 9113.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from millpond.core.errors import DeadlineExceeded, MillpondError, Overloaded, PayloadTooLarge
from millpond.server.grpc import frames
from millpond.server.grpc.frames import ConnectionFault, StreamFault, frame, rst_stream, window_update
from millpond.server.grpc.headers import Field, HeaderReader
from millpond.server.grpc.reading import FRAME_BYTES, FrameReader
from millpond.server.grpc.sending import Sender, Stream

if TYPE_CHECKING:
    from millpond.server.grpc.limits import GrpcLimits

#: Flow-control windows that clients get: of a stream, and of a connection; bytes.
STREAM_WINDOW = 1 << 20
CONNECTION_WINDOW = 16 << 20
#: Between two sweeps a client may reset so many streams, and send so many frames that ask for nothing (as small updates
#: of windows do); of the latter, some more with each request.
_RESETS = 1000
_NOISE = 2000
_NOISE_OF_REQUEST = 8
_SMALL_UPDATE = 1024
#: Streams that were ended here and whose frames may still be under way.
_ENDED = 1024
#: What the pings of keep-alive and of a drain carry.
_STILL_THERE = b"millpond"
_DRAINING = b"draining"
#: Within which a client must answer the ping of a drain, and take the last bytes of a connection.
_DRAIN_SECONDS = 1.0
_CLOSING_SECONDS = 2.0


class Service(Protocol):
    """What a connection's requests are for. No method raises."""

    def interpret(self, fields: Sequence[Field]) -> Any | None:
        """What a request's header fields mean; pure, as it is remembered. None ends the stream as malformed."""
        ...

    def timeout(self, head: Any) -> float:
        """Seconds after which `fail` is called with DeadlineExceeded where there is no answer."""
        ...

    def call(self, stream: Stream, body: bytes) -> None:
        """A request is there. Exactly one of `stream.answer` and `stream.end` must be called, now or later."""
        ...

    def fail(self, stream: Stream, error: MillpondError) -> None:
        """Give an error as the answer, with `stream.end_early`, whatever becomes of the call."""
        ...


class Waiting:
    """Bytes of requests that are still arriving, over all connections."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = 0


class Http2Connection(asyncio.Protocol):
    """One connection. Used in the thread of its event loop.

    Args:
        service: What its requests are for.
        limits: What its client may ask for.
        waiting: Shared by all connections of a server.
        open: The server's open connections; this one puts itself in, and takes itself out.
    """

    def __init__(self, service: Service, limits: GrpcLimits, waiting: Waiting, open: set[Http2Connection]) -> None:
        self._service = service
        self._limits = limits
        self._waiting = waiting
        self._open = open
        self._heads: HeaderReader[Any] = HeaderReader(service.interpret, limits.header_bytes)
        self._streams: dict[int, Stream] = {}
        self._ended: dict[int, None] = {}
        self._last = 0
        self._last_taken = frames.LAST_STREAM
        self._abandoned = 0
        self._allowance = CONNECTION_WINDOW
        self._reader = FrameReader(limits.header_bytes)
        self._closing_since: float | None = None
        self._draining = False
        self._drain_at = 0.0
        self._heard = True
        self._heard_at = self._busy_at = self._swept_at = time.monotonic()
        self._pinged = False
        self._resets = self._noise = self._opened = 0

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._sender = Sender(self._transport, self._finished)
        if len(self._open) >= self._limits.connections:
            self._transport.close()
            self._closing_since = time.monotonic()
            return
        self._open.add(self)
        settings = {
            frames.MAX_CONCURRENT_STREAMS: self._limits.streams,
            frames.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            frames.MAX_FRAME_SIZE: FRAME_BYTES,
            frames.MAX_HEADER_LIST_SIZE: self._limits.header_bytes,
        }
        self._sender.control(
            frames.settings_frame(settings) + window_update(0, CONNECTION_WINDOW - frames.DEFAULT_WINDOW)
        )

    def connection_lost(self, _error: Exception | None) -> None:
        self._open.discard(self)
        self._sender.close()
        self._closing_since = self._closing_since or time.monotonic()
        for stream in list(self._streams.values()):
            self._drop(stream)

    def pause_writing(self) -> None:
        """The client takes less than it is sent: take nothing more from it either."""
        self._sender.paused = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._sender.paused = False
        if self._closing_since is None:
            self._transport.resume_reading()
        self._sender.pump()

    def eof_received(self) -> bool:
        return False

    def data_received(self, data: bytes) -> None:
        if self._closing_since is not None:
            return
        self._heard = True
        sender = self._sender
        sender.held = True
        try:
            for kind, flags, stream, payload in self._reader.read(data):
                try:
                    self._take(kind, flags, stream, payload)
                except StreamFault as fault:
                    self._noisy()
                    self._reset(fault.stream, fault.code)
                if self._closing_since is not None:
                    break
        except ConnectionFault as fault:
            self._die(fault.code, fault.reason)
        finally:
            sender.held = False
        sender.flush()

    # Frames of requests.

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == frames.DATA:
            self._data(flags, stream, payload)
        elif kind == frames.HEADERS:
            self._headers(flags, stream, payload)
        else:
            if kind != frames.WINDOW_UPDATE:
                self._noisy()
            if kind < len(_OTHERS) and (other := _OTHERS[kind]) is not None:
                other(self, flags, stream, payload)

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._allowance -= size
        if self._allowance < CONNECTION_WINDOW // 2:
            if self._allowance < 0:
                raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "more data than the connection's window")
            self._sender.control(window_update(0, CONNECTION_WINDOW - self._allowance))
            self._allowance = CONNECTION_WINDOW
        stream = self._streams.get(number)
        if stream is None or stream.arrived:
            return self._stray_data(number, stream)
        stream.allowance -= size
        if stream.allowance < 0:
            raise StreamFault(number, frames.FLOW_CONTROL_ERROR)
        if flags & frames.PADDED:
            payload = frames.without_padding(payload)
        last = flags & frames.END_STREAM
        if last and not stream.parts:
            if len(payload) > self._limits.message_bytes + 5:
                return self._refuse(stream, self._too_large())
            return self._arrived(stream, payload)
        if not size:
            self._noisy()
        stream.parts.append(payload)
        stream.size += len(payload)
        self._waiting.held += len(payload)
        if stream.size > self._limits.message_bytes + 5:
            return self._refuse(stream, self._too_large())
        if self._waiting.held > self._limits.waiting_bytes:
            hint = "ask again in a moment, or send fewer rows at once"
            return self._refuse(stream, Overloaded("too many large requests are arriving at once", hint=hint))
        if last:
            return self._arrived(stream, b"".join(stream.parts))
        if stream.allowance < STREAM_WINDOW // 2:
            self._sender.control(window_update(number, STREAM_WINDOW - stream.allowance))
            stream.allowance = STREAM_WINDOW
        return None

    def _stray_data(self, number: int, stream: Stream | None) -> None:
        """DATA of a stream that takes none. What was under way when the stream was ended here is let pass."""
        if number == 0 or number > self._last or number % 2 == 0:
            raise ConnectionFault(frames.PROTOCOL_ERROR, f"DATA of stream {number}, which is not open")
        self._noisy()
        if stream is not None or (number not in self._ended and number <= self._last_taken):
            raise StreamFault(number, frames.STREAM_CLOSED)

    def _headers(self, flags: int, number: int, block: bytes) -> None:
        if number <= self._last:
            return self._trailers(flags, number, block)
        # The block must be read whatever becomes of the stream: later ones build on it.
        head = self._heads.request(block)
        self._last = number
        self._opened += 1
        if number > self._last_taken:
            return None
        if len(self._streams) + self._abandoned >= self._limits.streams:
            raise StreamFault(number, frames.REFUSED_STREAM)
        if head is None:
            raise StreamFault(number, frames.PROTOCOL_ERROR)
        deadline = time.monotonic() + self._service.timeout(head)
        stream = self._streams[number] = Stream(self._sender, number, head, STREAM_WINDOW, self._swept_at, deadline)
        if flags & frames.END_STREAM:
            self._arrived(stream, b"")
        return None

    def _trailers(self, flags: int, number: int, block: bytes) -> None:
        self._noisy()
        fine = self._heads.trailers(block)
        stream = self._streams.get(number)
        if stream is None or stream.arrived:
            if number in self._ended or number > self._last_taken:
                return None
            raise ConnectionFault(frames.STREAM_CLOSED, f"HEADERS of stream {number}, which is closed")
        if not fine or not flags & frames.END_STREAM:
            raise StreamFault(number, frames.PROTOCOL_ERROR)
        return self._arrived(stream, b"".join(stream.parts))

    def _arrived(self, stream: Stream, body: bytes) -> None:
        self._waiting.held -= stream.size
        stream.size = 0
        stream.parts = []
        stream.arrived = stream.working = True
        self._service.call(stream, body)

    # The other frames.

    def _rst_stream(self, _flags: int, number: int, payload: bytes) -> None:
        frames.read_word(payload, "RST_STREAM")
        self._known(number, "RST_STREAM")
        self._resets += 1
        if self._resets > _RESETS:
            raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "too many streams are reset")
        if stream := self._streams.get(number):
            self._drop(stream)

    def _settings(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "SETTINGS of a stream")
        if flags & frames.ACK:
            if payload:
                raise ConnectionFault(frames.FRAME_SIZE_ERROR, "an acknowledgement of settings with settings")
            return
        for name, value in frames.read_settings(payload):
            if name == frames.INITIAL_WINDOW_SIZE:
                self._sender.resize(value, self._streams.values())
            elif name == frames.MAX_FRAME_SIZE:
                self._sender.frame_bytes = value
        self._sender.control(frame(frames.SETTINGS, frames.ACK, 0))
        self._sender.pump()

    def _ping(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "PING of a stream")
        if len(payload) != 8:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "PING is not 8 bytes long")
        if not flags & frames.ACK:
            self._sender.control(frame(frames.PING, frames.ACK, 0, payload))
        elif payload == _DRAINING and self._draining and self._last_taken == frames.LAST_STREAM:
            self._take_no_more()

    def _goaway(self, _flags: int, number: int, payload: bytes) -> None:
        if number:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "GOAWAY of a stream")
        if len(payload) < 8:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "GOAWAY is too short")
        self._take_no_more()

    def _window_update(self, _flags: int, number: int, payload: bytes) -> None:
        increment = frames.read_word(payload, "WINDOW_UPDATE") & frames.LAST_STREAM
        if increment < _SMALL_UPDATE:  # larger ones are bounded by the largest window
            self._noisy()
        if number == 0:
            if not increment:
                raise ConnectionFault(frames.PROTOCOL_ERROR, "WINDOW_UPDATE by nothing")
            self._sender.widen(increment)
            return
        self._known(number, "WINDOW_UPDATE")
        stream = self._streams.get(number)
        if not increment:
            raise StreamFault(number, frames.PROTOCOL_ERROR)
        if stream is not None:
            self._sender.widen_stream(stream, increment)

    def _priority(self, _flags: int, number: int, payload: bytes) -> None:
        if number == 0:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "PRIORITY of no stream")
        if len(payload) != 5:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "PRIORITY is not 5 bytes long")

    def _push_promise(self, _flags: int, _number: int, _payload: bytes) -> None:
        raise ConnectionFault(frames.PROTOCOL_ERROR, "a client does not push")

    def _known(self, number: int, kind: str) -> None:
        if number == 0 or number % 2 == 0 or number > self._last:
            raise ConnectionFault(frames.PROTOCOL_ERROR, f"{kind} of stream {number}, which is idle")

    def _noisy(self) -> None:
        self._noise += 1
        if self._noise > _NOISE + _NOISE_OF_REQUEST * self._opened:
            raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "too many frames that ask for nothing")

    # The ends of streams and of the connection.

    def _too_large(self) -> PayloadTooLarge:
        what = f"the message is longer than {self._limits.message_bytes} bytes"
        hint = "send fewer rows at once, or predict a whole table with `millpond predict --batch`"
        return PayloadTooLarge(what, where="request message", hint=hint)

    def _refuse(self, stream: Stream, error: MillpondError) -> None:
        """Answer a request that has not arrived, and take no more of it."""
        self._service.fail(stream, error)

    def _finished(self, stream: Stream) -> None:
        """The whole answer was handed to the transport."""
        if not stream.arrived:
            self._sender.control(rst_stream(stream.number, frames.NO_ERROR))
            self._remember_end(stream.number)
        self._drop(stream)

    def _reset(self, number: int, code: int) -> None:
        self._sender.control(rst_stream(number, code))
        self._remember_end(number)
        if stream := self._streams.get(number):
            self._drop(stream)

    def _drop(self, stream: Stream) -> None:
        """Nobody waits for the stream's answer any more."""
        stream.gone = True
        if stream.working:
            self._abandoned += 1
            stream.left = self._left
        self._sender.forget(stream)
        self._forget(stream)
        if self._last_taken < frames.LAST_STREAM and not self._streams:
            self._die_gently()

    def _left(self) -> None:
        self._abandoned -= 1

    def _forget(self, stream: Stream) -> None:
        self._streams.pop(stream.number, None)
        self._waiting.held -= stream.size
        stream.size = 0
        stream.parts = []
        self._busy_at = self._swept_at

    def _remember_end(self, number: int) -> None:
        self._ended[number] = None
        if len(self._ended) > _ENDED:
            del self._ended[next(iter(self._ended))]

    def _die(self, code: int, reason: str) -> None:
        """End the connection for a fault of the client's."""
        if self._closing_since is None:
            self._closing_since = time.monotonic()
            self._sender.control(frames.goaway(min(self._last, self._last_taken), code, reason))
            self._sender.flush()
            for stream in list(self._streams.values()):
                self._drop(stream)
            self._say_no_more()

    def _die_gently(self) -> None:
        """Close a connection on which all is said."""
        if self._closing_since is None:
            self._closing_since = time.monotonic()
            self._sender.flush()
            self._say_no_more()

    def _say_no_more(self) -> None:
        """End our side. The client's is read on for a while: to close on unread bytes would tear up our last ones."""
        self._sender.ended = True
        if not self._transport.is_closing():
            self._transport.resume_reading()
            self._transport.write_eof()

    def _take_no_more(self) -> None:
        """Open no further stream; close when those that are open have ended."""
        self._draining = True
        self._last_taken = min(self._last_taken, self._last)
        self._sender.control(frames.goaway(self._last_taken, frames.NO_ERROR))
        if not self._streams:
            self._die_gently()

    def drain(self) -> None:
        """Ask the client to open no more streams; close when those that are open have ended.

        The client has one ping's time to learn of it, so that what it sent meanwhile is still answered.
        """
        if self._draining or self._closing_since is not None:
            return
        self._draining, self._drain_at = True, time.monotonic()
        self._sender.control(frames.goaway(frames.LAST_STREAM, frames.NO_ERROR, "the server is closing"))
        self._sender.control(frame(frames.PING, 0, 0, _DRAINING))

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    def sweep(self, now: float) -> None:
        """What time brings: deadlines, slow clients, silence. Called a few times a second."""
        self._swept_at = now
        self._resets = self._noise = self._opened = 0
        limits = self._limits
        if self._closing_since is not None:
            if now - self._closing_since > _CLOSING_SECONDS:
                self.abort()
            return
        if self._heard:
            self._heard, self._heard_at, self._pinged = False, now, False
        silence = now - self._heard_at
        if self._sender.stalled(now, limits.stall_seconds):
            self.abort()
        elif not self._reader.complete and now - self._busy_at > limits.greeting_seconds:
            self._die(frames.PROTOCOL_ERROR, "the greeting, or a header block, does not come")
        elif self._streams:
            self._busy_at = now
            self._sweep_streams(now)
        elif now - self._busy_at > limits.idle_seconds:
            self.drain()
        if self._draining and self._last_taken == frames.LAST_STREAM and now - self._drain_at > _DRAIN_SECONDS:
            self._take_no_more()
        if silence > limits.ping_seconds + limits.pong_seconds:
            self.abort()
        elif silence > limits.ping_seconds and not self._pinged:
            self._pinged = True
            self._sender.control(frame(frames.PING, 0, 0, _STILL_THERE))

    def _sweep_streams(self, now: float) -> None:
        for stream in list(self._streams.values()):
            if not stream.answered and stream.deadline < now:
                self._service.fail(stream, DeadlineExceeded("there was no answer within the time that was given"))
            elif not stream.arrived and now - stream.began > self._limits.body_seconds:
                what = f"the request did not arrive within {self._limits.body_seconds:g} seconds"
                self._service.fail(stream, DeadlineExceeded(what))
            elif stream.answered and now - stream.moved_at > self._limits.stall_seconds:
                self._reset(stream.number, frames.CANCEL)


#: By type; DATA and HEADERS are taken before.
_OTHERS = (
    None,
    None,
    Http2Connection._priority,
    Http2Connection._rst_stream,
    Http2Connection._settings,
    Http2Connection._push_promise,
    Http2Connection._ping,
    Http2Connection._goaway,
    Http2Connection._window_update,
)
