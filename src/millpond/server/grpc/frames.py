"""Frames of HTTP/2: their layout, their numbers, and the two ways in which a peer can break the rules.

Source: RFC 9113, sections 4, 6 and 7.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITIZED = 0x20

NO_ERROR = 0x0
PROTOCOL_ERROR = 0x1
INTERNAL_ERROR = 0x2
FLOW_CONTROL_ERROR = 0x3
STREAM_CLOSED = 0x5
FRAME_SIZE_ERROR = 0x6
REFUSED_STREAM = 0x7
CANCEL = 0x8
COMPRESSION_ERROR = 0x9
ENHANCE_YOUR_CALM = 0xB

HEADER_TABLE_SIZE = 0x1
ENABLE_PUSH = 0x2
MAX_CONCURRENT_STREAMS = 0x3
INITIAL_WINDOW_SIZE = 0x4
MAX_FRAME_SIZE = 0x5
MAX_HEADER_LIST_SIZE = 0x6

#: Flow-control window of a connection, and of a stream until settings say otherwise; bytes.
DEFAULT_WINDOW = 65_535
#: Largest flow-control window.
LARGEST_WINDOW = (1 << 31) - 1
#: Largest payload that a peer takes until its settings say otherwise, and the largest that they may say; bytes.
DEFAULT_FRAME = 1 << 14
LARGEST_FRAME = (1 << 24) - 1
#: The greatest stream identifier.
LAST_STREAM = (1 << 31) - 1

FRAME_HEADER = struct.Struct(">IBI")
_LENGTH_AND_TYPE = 8
_SETTING = struct.Struct(">HI")


class ConnectionFault(Exception):
    """The peer broke a rule in a way that ends the connection: GOAWAY with `code`."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class StreamFault(Exception):
    """The peer broke a rule in a way that ends one stream: RST_STREAM with `code`."""

    def __init__(self, stream: int, code: int) -> None:
        super().__init__(f"stream {stream}: error code {code}")
        self.stream = stream
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    return FRAME_HEADER.pack(len(payload) << _LENGTH_AND_TYPE | kind, flags, stream) + payload


def frame_header(kind: int, flags: int, stream: int, length: int) -> bytes:
    """The nine bytes before a payload of `length` bytes."""
    return FRAME_HEADER.pack(length << _LENGTH_AND_TYPE | kind, flags, stream)


def settings_frame(values: dict[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(name, value) for name, value in values.items()))


def rst_stream(stream: int, code: int) -> bytes:
    return frame(RST_STREAM, 0, stream, code.to_bytes(4))


def window_update(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, increment.to_bytes(4))


def goaway(last_stream: int, code: int, reason: str = "") -> bytes:
    return frame(GOAWAY, 0, 0, last_stream.to_bytes(4) + code.to_bytes(4) + reason.encode())


def read_settings(payload: bytes) -> Iterator[tuple[int, int]]:
    """The settings of a SETTINGS frame, in order, valid ones only; unknown ones are told too.

    Raises:
        ConnectionFault: The length, or a value, is not allowed.
    """
    if len(payload) % _SETTING.size:
        raise ConnectionFault(FRAME_SIZE_ERROR, "SETTINGS of a length that is no multiple of 6")
    for name, value in _SETTING.iter_unpack(payload):
        if name == ENABLE_PUSH and value > 1:
            raise ConnectionFault(PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1")
        if name == INITIAL_WINDOW_SIZE and value > LARGEST_WINDOW:
            raise ConnectionFault(FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is too large")
        if name == MAX_FRAME_SIZE and not DEFAULT_FRAME <= value <= LARGEST_FRAME:
            raise ConnectionFault(PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of range")
        yield name, value


def without_padding(payload: bytes) -> bytes:
    """The payload of a PADDED frame without its padding.

    Raises:
        ConnectionFault: There is more padding than payload.
    """
    if not payload:
        raise ConnectionFault(FRAME_SIZE_ERROR, "a padded frame without its padding's length")
    if payload[0] >= len(payload):
        raise ConnectionFault(PROTOCOL_ERROR, "more padding than payload")
    return payload[1 : len(payload) - payload[0]]


def read_word(payload: bytes, kind: str) -> int:
    """The one 32-bit number that a frame consists of.

    Raises:
        ConnectionFault: The frame is not four bytes long.
    """
    if len(payload) != 4:
        raise ConnectionFault(FRAME_SIZE_ERROR, f"{kind} is not 4 bytes long")
    return int.from_bytes(payload)
