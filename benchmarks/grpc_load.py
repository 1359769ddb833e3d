"""Load for a gRPC server: prepared ModelInfer calls over many connections, each answer at once followed by a new call.

`python -m benchmarks.grpc_load PORT CONNECTIONS STREAMS ROWS SECONDS` prints how many calls were answered, in how many
seconds, and the medians and 99th percentiles of their times.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import time

import numpy as np
import uvloop
from hpack import Encoder

from millpond.server.grpc import frames, messages

WIDTH = 30
PATH = "/inference.GRPCInferenceService/ModelInfer"
_WINDOW = (1 << 31) - 1


def request(rows: int) -> bytes:
    """A ModelInferRequest of so many rows, raw."""
    values = np.random.default_rng(1).normal(size=(rows, WIDTH))
    tensor = {"name": "rows", "datatype": "FP64", "shape": [rows, WIDTH]}
    message = messages.ModelInferRequest(model_name="linear", inputs=[tensor], raw_input_contents=[values.tobytes()])
    encoded: bytes = message.SerializeToString()
    return encoded


class Connection(asyncio.Protocol):
    """Keeps `streams` calls under way."""

    def __init__(self, port: int, streams: int, message: bytes) -> None:
        self.streams = streams
        self.body = b"\0" + len(message).to_bytes(4) + message
        self.encoder = Encoder()
        self.fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", PATH),
            (":authority", f"127.0.0.1:{port}"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "load/1"),
            ("grpc-accept-encoding", "identity, deflate, gzip"),
            ("authorization", "Bearer mp_bench"),
        ]
        self.number = 1
        self.room = self.room_at_first = frames.DEFAULT_WINDOW
        self.rooms: dict[int, int] = {}
        self.left: dict[int, bytes] = {}
        self.rest = b""
        self.begun: dict[int, float] = {}
        self.times: list[float] = []
        self.filled: set[int] = set()
        self.failed = 0
        self.taken = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        greeting = frames.settings_frame({frames.INITIAL_WINDOW_SIZE: _WINDOW, frames.ENABLE_PUSH: 0})
        transport.write(frames.PREFACE + greeting + frames.window_update(0, _WINDOW - frames.DEFAULT_WINDOW))
        transport.write(b"".join(self.call() for _ in range(self.streams)))

    def call(self) -> bytes:
        number, self.number = self.number, self.number + 2
        self.begun[number] = time.perf_counter()
        block = self.encoder.encode(self.fields) if number < 5 else self.block
        self.block = block
        self.rooms[number], self.left[number] = self.room_at_first, self.body
        return frames.frame(frames.HEADERS, frames.END_HEADERS, number, block) + self.more()

    def more(self) -> bytes:
        """As much of the requests as the server's windows allow."""
        parts = []
        for number in list(self.left):
            left = self.left[number]
            while left and (size := min(16_384, len(left), self.room, self.rooms[number])) > 0:
                self.room -= size
                self.rooms[number] -= size
                piece, left = left[:size], left[size:]
                parts.append(frames.frame(frames.DATA, 0 if left else frames.END_STREAM, number, piece))
            if left:
                self.left[number] = left
            else:
                del self.left[number], self.rooms[number]
        return b"".join(parts)

    def control(self, kind: int, flags: int, number: int, payload: bytes) -> bytes:
        """The answer to a frame that is about the connection."""
        if kind == frames.WINDOW_UPDATE:
            if number == 0:
                self.room += int.from_bytes(payload)
            elif number in self.rooms:
                self.rooms[number] += int.from_bytes(payload)
            return self.more() if self.left else b""
        if flags & frames.ACK:
            return b""
        if kind == frames.SETTINGS:
            sizes = dict(frames.read_settings(payload))
            change = sizes.get(frames.INITIAL_WINDOW_SIZE, self.room_at_first) - self.room_at_first
            self.room_at_first += change
            self.rooms = {stream: room + change for stream, room in self.rooms.items()}
            return frames.frame(frames.SETTINGS, frames.ACK, 0) + self.more()
        return frames.frame(kind, frames.ACK, 0, payload)

    def data_received(self, data: bytes) -> None:
        data, offset, out = self.rest + data, 0, []
        while len(data) - offset >= 9:
            word, flags, number = struct.unpack_from(">IBI", data, offset)
            end = offset + 9 + (word >> 8)
            if end > len(data):
                break
            kind = word & 0xFF
            if kind == frames.DATA:
                self.taken += end - offset - 9
                self.filled.add(number)
            elif kind == frames.HEADERS and flags & frames.END_STREAM:
                self.times.append(time.perf_counter() - self.begun.pop(number))
                # An error is an answer without a message.
                self.failed += number not in self.filled
                self.filled.discard(number)
                out.append(self.call())
            elif kind in (frames.PING, frames.SETTINGS, frames.WINDOW_UPDATE):
                out.append(self.control(kind, flags, number, data[offset + 9 : end]))
            elif kind in (frames.RST_STREAM, frames.GOAWAY):
                self.failed += 1
            offset = end
        self.rest = data[offset:]
        if self.taken > _WINDOW // 4:
            out.append(frames.window_update(0, self.taken))
            self.taken = 0
        if answer := b"".join(out):
            self.transport.write(answer)


async def load(port: int, connections: int, streams: int, rows: int, seconds: float) -> dict[str, float]:
    loop, message = asyncio.get_running_loop(), request(rows)
    made = [
        (await loop.create_connection(lambda: Connection(port, streams, message), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    await asyncio.sleep(0.3)
    for each in made:
        each.times.clear()
    begun = time.perf_counter()
    print("begin", flush=True)
    await asyncio.sleep(seconds)
    times = np.concatenate([each.times for each in made])
    took = time.perf_counter() - begun
    p50, p99 = (float(np.percentile(times, share)) for share in (50, 99))
    return {"calls": len(times), "failed": sum(e.failed for e in made), "seconds": took, "p50": p50, "p99": p99}


if __name__ == "__main__":
    port, connections, streams, rows = map(int, sys.argv[1:5])
    print(json.dumps(uvloop.run(load(port, connections, streams, rows, float(sys.argv[5])))), flush=True)
