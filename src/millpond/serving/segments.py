"""The file format of the prediction log: frames that are there whole or not at all.

A segment begins with `MAGIC`. Each frame is the answers of one request: a little-endian header (payload length in
bytes, CRC-32 of that length and the payload; 4 bytes each), then the payload, a JSON array of predictions. Reading
stops at the first frame that is not whole, so what a crash tore off is never counted.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

from millpond.core.time import format_instant, parse_instant
from millpond.serving.ports import Prediction

MAGIC = b"MPPL\x00\x00\x00\x01"
_HEADER = struct.Struct("<II")


def encode_frame(predictions: Sequence[Prediction]) -> bytes:
    """The predictions of one request as a frame."""
    payload = f"[{','.join(_to_json(each) for each in predictions)}]".encode()
    return _HEADER.pack(len(payload), _checksum(payload)) + payload


def decode_payload(payload: bytes) -> list[Prediction]:
    """The predictions of a frame, in order."""
    return [_from_json(record) for record in json.loads(payload)]


def read_payloads(path: Path) -> Iterator[bytes]:
    """The payloads of all whole frames of a segment, in order, one in memory at a time.

    Raises:
        FileNotFoundError: The segment is gone (drained meanwhile).
    """
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            return
        while (payload := _read_frame(file)) is not None:
            yield payload


def frames_length(payloads: Sequence[bytes]) -> int:
    """The length in bytes of a segment that holds exactly these payloads."""
    return len(MAGIC) + sum(_HEADER.size + len(payload) for payload in payloads)


def json_text(values: Mapping[str, Any]) -> str:
    """Column values as a JSON object: instants and dates as ISO 8601, NaN as null, infinities as strings."""
    return json.dumps({name: plain(value) for name, value in values.items()}, allow_nan=False, ensure_ascii=False)


def plain(value: Any) -> Any:
    """A column value as something JSON has."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None if math.isnan(value) else str(value)
    if isinstance(value, datetime):
        return format_instant(value) if value.tzinfo else value.isoformat()
    return value.isoformat() if isinstance(value, date) else str(value)


def _read_frame(file: Any) -> bytes | None:
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    length, checksum = _HEADER.unpack(header)
    payload: bytes = file.read(length)
    return payload if len(payload) == length and _checksum(payload) == checksum else None


def _checksum(payload: bytes) -> int:
    # The length is summed too, so that a tail of zero bytes is no endless row of empty frames.
    return zlib.crc32(payload, zlib.crc32(struct.pack("<I", len(payload))))


def _to_json(prediction: Prediction) -> str:
    record = {
        **vars(prediction),
        "snapshots": dict(prediction.snapshots),
        "predicted_at": format_instant(prediction.predicted_at),
        "as_of": format_instant(prediction.as_of),
        "request": {name: plain(value) for name, value in prediction.request.items()},
        "inputs": {name: plain(value) for name, value in prediction.inputs.items()},
    }
    return json.dumps(record, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def _from_json(record: dict[str, Any]) -> Prediction:
    instants = {name: parse_instant(record[name]) for name in ("predicted_at", "as_of")}
    return Prediction(**{**record, **instants})
