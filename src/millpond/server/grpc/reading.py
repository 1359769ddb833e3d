"""What comes in on an HTTP/2 connection, as whole frames: the greeting checked, header blocks joined.

Source: RFC 9113, sections 3.4, 4 and 6.10.
"""

from __future__ import annotations

from collections.abc import Iterator

from millpond.server.grpc import frames
from millpond.server.grpc.frames import ConnectionFault

#: Largest payload of a frame that clients may send; bytes.
FRAME_BYTES = 1 << 16
#: Frames that one header block may come in.
_BLOCK_FRAMES = 16


class FrameReader:
    """Cuts the bytes of a connection into frames.

    Args:
        header_bytes: Longest header block.

    Attributes:
        complete: Whether the client has greeted and no header block is open.
    """

    def __init__(self, header_bytes: int) -> None:
        self._header_bytes = header_bytes
        self._rest = b""
        self._greeted = self._settled = False
        self._stream = self._flags = 0
        self._block: list[bytes] = []

    @property
    def complete(self) -> bool:
        return self._settled and not self._block

    def read(self, data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
        """The frames that `data` completes: type, flags, stream and payload, which is without padding.

        A HEADERS frame has the whole block, without a priority; CONTINUATION is never told. Padding and length of DATA
        are left alone, as windows count them.

        Raises:
            ConnectionFault: The bytes are no frames, or not in an order that is allowed.
        """
        if self._rest:
            data = self._rest + data
        offset, length = 0, len(data)
        if not self._greeted:
            if not frames.PREFACE.startswith(data[:24]):
                raise ConnectionFault(frames.PROTOCOL_ERROR, "this port speaks gRPC: HTTP/2 with prior knowledge")
            if length < 24:
                self._rest = data
                return
            self._greeted, offset = True, 24
        unpack = frames.FRAME_HEADER.unpack_from
        while length - offset >= 9:
            word, flags, stream = unpack(data, offset)
            size, kind = word >> 8, word & 0xFF
            stream &= frames.LAST_STREAM
            if size > FRAME_BYTES:
                raise ConnectionFault(frames.FRAME_SIZE_ERROR, f"a frame of {size} bytes")
            end = offset + 9 + size
            if end > length:
                break
            payload = data[offset + 9 : end]
            offset = end
            if kind == frames.DATA and not self._block:
                yield kind, flags, stream, payload
            elif kind in (frames.HEADERS, frames.CONTINUATION) or self._block or not self._settled:
                if (whole := self._ordered(kind, flags, stream, payload)) is not None:
                    yield whole
            else:
                yield kind, flags, stream, payload
        self._rest = data[offset:]

    def _ordered(self, kind: int, flags: int, stream: int, payload: bytes) -> tuple[int, int, int, bytes] | None:
        """A frame whose place among the others matters; None where it is a part of one."""
        if not self._settled:
            if kind != frames.SETTINGS or flags & frames.ACK:
                raise ConnectionFault(frames.PROTOCOL_ERROR, "the first frame is not SETTINGS")
            self._settled = True
            return kind, flags, stream, payload
        if bool(self._block) != (kind == frames.CONTINUATION) or (self._block and stream != self._stream):
            raise ConnectionFault(frames.PROTOCOL_ERROR, "CONTINUATION of nothing, or a header block is not finished")
        if kind == frames.HEADERS:
            payload = _header_fragment(flags, stream, payload)
            if flags & frames.END_HEADERS and len(payload) <= self._header_bytes:
                return kind, flags, stream, payload
            self._stream, self._flags = stream, flags
        self._block.append(payload)
        if sum(map(len, self._block)) > self._header_bytes or len(self._block) > _BLOCK_FRAMES:
            raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "the header block is too long")
        if not flags & frames.END_HEADERS:
            return None
        block, self._block = b"".join(self._block), []
        return frames.HEADERS, self._flags, stream, block


def _header_fragment(flags: int, stream: int, payload: bytes) -> bytes:
    if stream % 2 == 0:
        raise ConnectionFault(frames.PROTOCOL_ERROR, f"HEADERS of stream {stream}")
    if flags & frames.PADDED:
        payload = frames.without_padding(payload)
    if flags & frames.PRIORITIZED:
        if len(payload) < 5:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "HEADERS without the priority it announces")
        payload = payload[5:]
    return payload
