"""What one client may ask of the gRPC wire."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GrpcLimits:
    """Limits of a gRPC server; times in seconds, sizes in bytes.

    Attributes:
        message_bytes: Longest message, as sent and decompressed; a longer one is RESOURCE_EXHAUSTED.
        waiting_bytes: Most that bodies still arriving may hold, over all connections of the server.
        streams: Calls of a connection at the same time, with those that were cancelled but are still worked on;
            one more is refused, and clients send it again by themselves.
        connections: Connections at the same time; one more is closed at once.
        header_bytes: Longest header list of a request.
        deadline_seconds: Longest that a caller is left without an answer; less where its own deadline is earlier.
        body_seconds: Within which a request must have arrived whole.
        stall_seconds: For which a client may take none of what it is sent.
        greeting_seconds: Within which a new connection must have said that it speaks HTTP/2.
        idle_seconds: After which a connection without calls is closed.
        ping_seconds: Of silence after which a client is asked whether it is still there.
        pong_seconds: Within which it must then be heard.
    """

    message_bytes: int = 16 << 20
    waiting_bytes: int = 128 << 20
    streams: int = 256
    connections: int = 4096
    header_bytes: int = 16 << 10
    deadline_seconds: float = 60.0
    body_seconds: float = 30.0
    stall_seconds: float = 30.0
    greeting_seconds: float = 10.0
    idle_seconds: float = 3600.0
    ping_seconds: float = 60.0
    pong_seconds: float = 20.0
