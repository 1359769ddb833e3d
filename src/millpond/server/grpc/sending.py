"""What goes out on an HTTP/2 connection: answers within the windows that the client gives, in few writes.

Source: RFC 9113, sections 5.2 and 6.9.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

from millpond.server.grpc import frames
from millpond.server.grpc.frames import ConnectionFault, StreamFault, frame, frame_header

#: Bytes of queued answers that are handed to the transport at once.
_BATCH = 1 << 18
#: Bytes that may wait in the transport before a client counts as slow.
_HIGH_WATER = 1 << 18

_ANSWERED = frames.END_HEADERS | frames.END_STREAM


class Stream:
    """A request and the answer to it.

    Attributes:
        number: The stream's identifier.
        head: What the service made of the request's header fields.
        deadline: `time.monotonic()` at which the caller is told that there is no answer.
        gone: Whether nobody waits for an answer any more.
        arrived: Whether the whole request is there.
        answered: Whether an answer was given, though maybe not sent yet.
        working: Whether the service has the request and gave no answer yet.
        parts, size: What has arrived of the body, and its length in bytes.
        allowance: Bytes that the client may still send.
        window: Bytes that the client will still take.
        rest, trailers: What is still to be sent.
        began, moved_at: `time.monotonic()` of the request's begin and of the last bytes of the answer.
        left: Called when the service answers a stream that is gone.
    """

    __slots__ = (
        "allowance",
        "answered",
        "arrived",
        "began",
        "deadline",
        "gone",
        "head",
        "left",
        "moved_at",
        "number",
        "parts",
        "rest",
        "sender",
        "size",
        "trailers",
        "window",
        "working",
    )

    def __init__(self, sender: Sender, number: int, head: Any, allowance: int, began: float, deadline: float) -> None:
        self.sender = sender
        self.number = number
        self.head = head
        self.deadline = deadline
        self.began = self.moved_at = began
        self.gone = self.arrived = self.answered = self.working = False
        self.parts: list[bytes] = []
        self.size = 0
        self.allowance = allowance
        self.window = sender.stream_window
        self.rest = memoryview(b"")
        self.trailers = b""
        self.left: Callable[[], None] | None = None

    def is_gone(self) -> bool:
        return self.gone

    def answer(self, head: bytes, data: bytes, trailers: bytes) -> None:
        """Give the answer: two header blocks and the data between. Without effect where nobody waits for it."""
        self.working = False
        if self.left is not None:
            self.left()
            self.left = None
        if not (self.gone or self.answered):
            self.answered = True
            self.sender.send(self, head, data, trailers)

    def end(self, trailers: bytes) -> None:
        """Give an answer that is one header block. Without effect where nobody waits for it."""
        self.working = False
        if self.left is not None:
            self.left()
            self.left = None
        self.end_early(trailers)

    def end_early(self, trailers: bytes) -> None:
        """Answer with one header block in the place of the service, which still works on the request."""
        if not (self.gone or self.answered):
            self.answered = True
            self.sender.send_trailers(self, trailers)


class Sender:
    """The sending side of a connection.

    Args:
        transport: Where to.
        finished: Called with each stream whose whole answer was handed over.

    Attributes:
        paused: Whether the transport has more than it can send.
        held: Whether the caller will flush by itself at the end of this turn.
        window: Bytes that the client will still take, over all streams.
        stream_window: The window that new streams begin with.
        frame_bytes: Largest payload that the client takes.
        ended: Whether all was said; nothing is written any more.
    """

    def __init__(self, transport: asyncio.Transport, finished: Callable[[Stream], None]) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._finished = finished
        self._out: list[bytes | memoryview] = []
        self._blocked: dict[int, Stream] = {}
        self._scheduled = False
        self._paused_at: float | None = None
        self.held = self.ended = False
        self.window = frames.DEFAULT_WINDOW
        self.stream_window = frames.DEFAULT_WINDOW
        self.frame_bytes = frames.DEFAULT_FRAME
        transport.set_write_buffer_limits(_HIGH_WATER)

    @property
    def paused(self) -> bool:
        return self._paused_at is not None

    @paused.setter
    def paused(self, value: bool) -> None:
        self._paused_at = time.monotonic() if value else None

    def stalled(self, now: float, seconds: float) -> bool:
        """Whether the client has taken nothing for so long."""
        return self._paused_at is not None and now - self._paused_at > seconds

    def control(self, data: bytes) -> None:
        """Send whole frames that no window bounds."""
        self._out.append(data)
        if not (self.held or self._scheduled):
            self._schedule()

    def send(self, stream: Stream, head: bytes, data: bytes, trailers: bytes) -> None:
        """Send an answer as far as the windows allow, and the rest when they do."""
        number, size = stream.number, len(data)
        opening = frame_header(frames.HEADERS, frames.END_HEADERS, number, len(head))
        if size > self.window or size > stream.window or size > self.frame_bytes or self._blocked:
            self._out.append(opening + head)
            stream.rest, stream.trailers = memoryview(data), trailers
            stream.moved_at = time.monotonic()
            self._blocked[number] = stream
            self.pump()
        else:
            self.window -= size
            middle = frame_header(frames.DATA, 0, number, size)
            closing = frame_header(frames.HEADERS, _ANSWERED, number, len(trailers))
            self._out.append(b"".join((opening, head, middle, data, closing, trailers)))
            self._finished(stream)
        if not (self.held or self._scheduled):
            self._schedule()

    def send_trailers(self, stream: Stream, trailers: bytes) -> None:
        """Send an answer that is one header block."""
        self.control(frame(frames.HEADERS, _ANSWERED, stream.number, trailers))
        self._finished(stream)

    def forget(self, stream: Stream) -> None:
        """Send nothing more of a stream."""
        self._blocked.pop(stream.number, None)
        stream.rest = memoryview(b"")

    def close(self) -> None:
        """The connection is gone."""
        self._blocked.clear()
        self._out.clear()

    def widen(self, increment: int) -> None:
        """The client takes more over all streams.

        Raises:
            ConnectionFault: More than a window can be.
        """
        self.window += increment
        if self.window > frames.LARGEST_WINDOW:
            raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "the connection's window is too large")
        self.pump()

    def widen_stream(self, stream: Stream, increment: int) -> None:
        """The client takes more of a stream.

        Raises:
            StreamFault: More than a window can be.
        """
        stream.window += increment
        if stream.window > frames.LARGEST_WINDOW:
            raise StreamFault(stream.number, frames.FLOW_CONTROL_ERROR)
        self.pump()

    def resize(self, window: int, streams: Iterable[Stream]) -> None:
        """Streams begin with another window, and so did those that are open; it may become negative by that.

        Raises:
            ConnectionFault: More than a window can be.
        """
        change = window - self.stream_window
        self.stream_window = window
        for stream in streams:
            stream.window += change
            if stream.window > frames.LARGEST_WINDOW:
                raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "a stream's window is too large")

    def pump(self) -> None:
        """Send what waits, a frame of each stream in turn, until the windows or the transport are full."""
        moved = True
        while moved and self._blocked and not self.paused:
            moved, batch = False, 0
            for stream in list(self._blocked.values()):
                size = min(len(stream.rest), self.window, stream.window, self.frame_bytes)
                if size > 0:
                    moved = True
                    batch += size
                    self._advance(stream, size)
                if batch >= _BATCH:
                    break
            self.flush()

    def _advance(self, stream: Stream, size: int) -> None:
        number = stream.number
        self.window -= size
        stream.window -= size
        stream.moved_at = time.monotonic()
        self._out += (frame_header(frames.DATA, 0, number, size), stream.rest[:size])
        stream.rest = stream.rest[size:]
        if stream.rest:
            # The next turn is another stream's.
            self._blocked[number] = self._blocked.pop(number)
        else:
            del self._blocked[number]
            self._out.append(frame(frames.HEADERS, _ANSWERED, number, stream.trailers))
            self._finished(stream)

    def flush(self) -> None:
        """Hand everything to the transport in one write."""
        out = self._out
        if out and not (self.ended or self._transport.is_closing()):
            self._transport.write(b"".join(out) if len(out) > 1 else out[0])
        out.clear()

    def _schedule(self) -> None:
        self._scheduled = True
        self._loop.call_soon(self._flush_later)

    def _flush_later(self) -> None:
        self._scheduled = False
        self.flush()
