"""Header blocks of HTTP/2: reading them with HPACK, and writing the few that a server of calls sends.

What is written never uses the dynamic table, so that no setting of the peer's bears on it.

Source: RFC 7541; RFC 9113, section 8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from hpack import Decoder, HPACKError, OversizedHeaderListError

from millpond.server.grpc.frames import COMPRESSION_ERROR, ENHANCE_YOUR_CALM, ConnectionFault

Head = TypeVar("Head")
Field = tuple[bytes, bytes]

#: Header blocks that one connection remembers.
_REMEMBERED = 128
_PSEUDO = frozenset({b":method", b":scheme", b":path", b":authority"})
_OF_CONNECTIONS = frozenset({b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"})
_UPPER_CASE = frozenset(range(ord("A"), ord("Z") + 1))
#: Static table entries: whole fields, and names.
_STATUSES = {b"200": 8, b"204": 9, b"206": 10, b"304": 11, b"400": 12, b"404": 13, b"500": 14}
_NAMES = {b":status": 8, b"content-type": 31}


class HeaderReader(Generic[Head]):
    """Reads the header blocks of one connection, in the order of their arrival.

    Clients send nearly the same block with each request. A block that neither adds to the dynamic table nor changes
    its size means the same again until another block does, so its meaning is remembered.

    Args:
        interpret: What a request's fields mean; None where they are no well-formed request.
        limit: Most bytes of a header list, as RFC 9113 counts them (32 for each field besides its text).
    """

    def __init__(self, interpret: Callable[[Sequence[Field]], Head | None], limit: int) -> None:
        self._interpret = interpret
        self._decoder = Decoder(max_header_list_size=limit)
        self._known: dict[bytes, Head | None] = {}

    def request(self, block: bytes) -> Head | None:
        """The meaning of a request's header block; None where it is malformed.

        Raises:
            ConnectionFault: The block cannot be decoded, so that no later one can be.
        """
        try:
            return self._known[block]
        except KeyError:
            pass
        entries = self._decoder.header_table.dynamic_entries
        count, size = len(entries), self._decoder.header_table_size
        newest = entries[0] if entries else None
        fields = self._decode(block)
        head = self._interpret(fields) if well_formed(fields) else None
        # What is added comes in front, as a new object; a smaller table drops entries.
        untouched = (
            len(entries) == count
            and self._decoder.header_table_size == size
            and (entries[0] if entries else None) is newest
        )
        if not untouched or len(self._known) >= _REMEMBERED:
            self._known.clear()
        if untouched:
            self._known[block] = head
        return head

    def trailers(self, block: bytes) -> bool:
        """Whether a block is well-formed trailers.

        Raises:
            ConnectionFault: The block cannot be decoded, so that no later one can be.
        """
        self._known.clear()
        return not any(name.startswith(b":") or not _UPPER_CASE.isdisjoint(name) for name, _ in self._decode(block))

    def _decode(self, block: bytes) -> list[Field]:
        try:
            return [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        except OversizedHeaderListError as error:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "the header list is too long") from error
        except (HPACKError, IndexError, ValueError) as error:
            raise ConnectionFault(COMPRESSION_ERROR, "the header block cannot be decoded") from error


def well_formed(fields: Iterable[Field]) -> bool:
    """Whether fields make a request that RFC 9113, section 8.3.1, allows."""
    pseudo: set[bytes] = set()
    regular = False
    for name, value in fields:
        if name.startswith(b":"):
            if regular or name in pseudo or name not in _PSEUDO:
                return False
            pseudo.add(name)
            if name == b":path" and not value:
                return False
            continue
        regular = True
        if not name or name in _OF_CONNECTIONS or not _UPPER_CASE.isdisjoint(name):
            return False
        if name == b"te" and value != b"trailers":
            return False
        if not value.isascii() and name.startswith(b"grpc-"):
            return False
    return {b":method", b":scheme", b":path"} <= pseudo


def header_block(fields: Iterable[Field]) -> bytes:
    """Fields as a header block of literals that are not indexed, and of the static table's entries."""
    return b"".join(_literal(name, value) for name, value in fields)


def _literal(name: bytes, value: bytes) -> bytes:
    if name == b":status" and value in _STATUSES:
        return bytes((0x80 | _STATUSES[value],))
    if name in _NAMES:
        return _integer(_NAMES[name], 4) + _integer(len(value), 7) + value
    return b"\0" + _integer(len(name), 7) + name + _integer(len(value), 7) + value


def _integer(number: int, bits: int) -> bytes:
    most = (1 << bits) - 1
    if number < most:
        return bytes((number,))
    found, number = bytearray((most,)), number - most
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
