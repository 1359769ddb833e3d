"""What one caller, and all callers together, may ask of a serving worker."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of the HTTP wire.

    Attributes:
        body_bytes: Longest body, also once decompressed; a longer one is answered with 413 and never held.
        held_bytes: Bytes of bodies that have come in part, over all connections; 503 for a body beyond them.
        head_bytes: Longest request line and headers, together; else 431.
        message_seconds: Seconds from the first byte of a request within which all of it must have come; else 408.
            A caller that does not take its answers for so long is cut off.
        idle_seconds: Seconds that a connection without a request is kept.
        linger_seconds: Seconds for which the rest of a refused request is taken and thrown away, so that its caller
            gets to read why.
        deadline_seconds: Seconds after which a request is answered with 504 if no answer is there; a request may ask
            for less.
        pipelined: Requests of one connection that may wait for answers; further ones are not read meanwhile.
        connections: Most connections at a time; one more is closed at once.
    """

    body_bytes: int = 16 << 20
    held_bytes: int = 512 << 20
    head_bytes: int = 32 << 10
    message_seconds: float = 30.0
    idle_seconds: float = 75.0
    linger_seconds: float = 2.0
    deadline_seconds: float = 60.0
    pipelined: int = 64
    connections: int = 10_000
