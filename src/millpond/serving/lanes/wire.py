"""What a lane and its child process say to each other, and the loop of the child that answers.

This file stands alone: standard library and NumPy, Python 3.9 or later, so that a version's own environment can run it
by path.

A frame is a prefix (magic, bytes of the head, bytes of the body), a head in JSON, and a body of raw buffers, each
padded to 8 bytes, in the byte order of the machine that both ends share. NumPy arrays, and lists of numbers without
nulls, lie in the body; strings, booleans in lists, numbers with nulls and very short lists lie in the head.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import socket
import struct
import traceback
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

#: Environment variable that tells a child the file descriptor of its end of the socket pair.
FD_VARIABLE = "MILLPOND_LANE_FD"
#: A frame is never larger, in bytes.
MAX_HEAD, MAX_BODY = 1 << 28, 1 << 30

_PREFIX = struct.Struct("<4sIQ")
_MAGIC = b"MPL1"
#: How a column lies in the body; "i" is one that is a list of whole numbers, such as instants, at either end.
_DTYPES = {"d": np.float64, "q": np.int64, "i": np.int64, "?": np.bool_}
_OOM_SCORE = b"500"
#: Values from which on a list of numbers is quicker as raw bytes than as JSON, which is as exact.
_RAW_FROM = 8


class Frame(NamedTuple):
    """One message.

    Attributes:
        kind: "ready" or "failed" once from the child; then "call" to it, and "answer" or "error" from it.
        number: Of the call; an answer has that of its call.
        rows: How many.
        names: Names of the columns.
        columns: Lists (None is null) or arrays: float64 of shape (rows,) or (rows, width), int64 or bool.
        matrix: float64 of shape (rows, columns), instead of `columns`.
        meta: JSON values. Of "failed" and "error": "type", "what", "where", "hint".
    """

    kind: str
    number: int = 0
    rows: int = 0
    names: tuple[str, ...] = ()
    columns: tuple[Any, ...] = ()
    matrix: Any = None
    meta: Any = None


class WireError(Exception):
    """What came is no frame."""


def encode(frame: Frame) -> bytes:
    """A frame as bytes.

    Raises:
        TypeError: A value is not one that a frame carries.
        ValueError: It would be larger than a frame may be.
    """
    body: list[Any] = []
    head: dict[str, Any] = {"kind": frame.kind, "number": frame.number, "rows": frame.rows}
    if frame.names:
        head["names"] = frame.names
    if frame.matrix is not None:
        body.append(np.ascontiguousarray(frame.matrix, dtype=np.float64).data.cast("B"))
        head["matrix"] = True
    elif frame.columns:
        head["columns"] = [_packed(column, body) for column in frame.columns]
    if frame.meta:
        head["meta"] = frame.meta
    start = json.dumps(head, separators=(",", ":")).encode()
    padded = b"".join(part for each in body for part in (each, bytes(-len(each) % 8)))
    if len(start) > MAX_HEAD or len(padded) > MAX_BODY:
        raise ValueError(f"{len(start) + len(padded)} bytes are more than one call carries")
    return b"".join((_PREFIX.pack(_MAGIC, len(start), len(padded)), start, padded))


def _packed(column: Any, body: list[Any]) -> list[Any]:
    """How the head describes a column whose values, if raw, are appended to the body."""
    if isinstance(column, list):
        first = column[0] if len(column) >= _RAW_FROM else None
        code = "d" if type(first) is float else "i" if type(first) is int else None
        if code is not None:
            with suppress(TypeError, OverflowError):  # a null, or a number of another type
                body.append(memoryview(array("q" if code == "i" else code, column)).cast("B"))
                return [code, 0]
        return ["json", column]
    values: Any = np.asarray(column)
    code = {"f": "d", "i": "q", "u": "q", "b": "?"}.get(values.dtype.kind)
    if code is None:
        return ["json", values.tolist()]
    values = np.ascontiguousarray(values, dtype=_DTYPES[code])
    body.append(values.reshape(-1).view(np.uint8).data)
    return [code, values.shape[1] if values.ndim == 2 else 0]


def decode(head: bytes, body: Any) -> Frame:
    """The frame of a head and a body.

    Args:
        head: JSON.
        body: A writable buffer, which the arrays of the frame share.

    Raises:
        WireError: They do not fit together.
    """
    try:
        found = json.loads(head)
        count, names = int(found["rows"]), tuple(found.get("names", ()))
        meta = found.get("meta", {})
        if count < 0:
            raise WireError(f"there cannot be {count} rows")
        if found.get("matrix"):
            matrix = np.frombuffer(body, np.float64, count * len(names)).reshape(count, len(names))
            return Frame(found["kind"], found["number"], count, names, (), matrix, meta)
        columns, offset = [], 0
        for code, told in found.get("columns", ()):
            if code == "json":
                columns.append(told)
                continue
            values: Any = np.frombuffer(body, _DTYPES[code], count * (told or 1), offset)
            offset += values.nbytes + -values.nbytes % 8
            columns.append(values.reshape(count, told) if told else values.tolist() if code == "i" else values)
        if len(columns) != len(names) or any(len(each) != count for each in columns):
            raise WireError("the columns do not have the length that was told")
        return Frame(found["kind"], found["number"], count, names, tuple(columns), None, meta)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WireError(f"{type(error).__name__}: {error}") from error


class Reader:
    """Cuts what is received into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete with `data`.

        Raises:
            WireError: What came is no frame; nothing after it can be read.
        """
        buffer = self._buffer
        buffer += data
        frames = []
        while len(buffer) >= _PREFIX.size:
            head, body = _sizes(buffer)
            end = _PREFIX.size + head + body
            if len(buffer) < end:
                break
            middle = _PREFIX.size + head
            frames.append(decode(bytes(buffer[_PREFIX.size : middle]), buffer[middle:end]))
            del buffer[:end]
        return frames


def _sizes(prefix: Any) -> tuple[int, int]:
    magic, head, body = _PREFIX.unpack_from(prefix)
    if magic != _MAGIC or head > MAX_HEAD or body > MAX_BODY:
        raise WireError(f"a frame cannot begin with {bytes(prefix[: _PREFIX.size])!r}")
    return head, body


class Connection:
    """The child's end. Made first thing, before a model is loaded.

    The descriptor is not inherited by programs that the model starts, and a fork of this process that comes back from
    the model's code ends there, so that nobody else answers in its place.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(fileno=int(os.environ.pop(FD_VARIABLE)))
        os.set_inheritable(self._socket.fileno(), False)
        self._pid = os.getpid()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        faulthandler.enable()
        with suppress(OSError), open("/proc/self/oom_score_adj", "wb") as file:  # noqa: PTH123
            file.write(_OOM_SCORE)  # where memory runs out, this process is to go, and not the server

    def refuse(self, error: BaseException) -> None:
        """Say why nothing can be answered here; the process should end then."""
        traceback.print_exception(type(error), error, error.__traceback__)
        self._send(Frame("failed", meta=described(error)))

    def serve(self, handler: Callable[[Frame], Frame]) -> None:
        """Answer calls, one at a time, until the lane closes the connection. What the handler raises is the answer."""
        self._send(Frame("ready"))
        while True:
            call = self._receive()
            if call is None:
                return
            try:
                reply = encode(handler(call)._replace(kind="answer", number=call.number))
            except BaseException as error:  # also the SystemExit of a model
                if os.getpid() == self._pid:
                    traceback.print_exc()
                reply = encode(Frame("error", call.number, meta=described(error)))
            if os.getpid() != self._pid:
                os._exit(0)
            self._socket.sendall(reply)

    def _send(self, frame: Frame) -> None:
        self._socket.sendall(encode(frame))

    def _receive(self) -> Frame | None:
        prefix = self._exactly(_PREFIX.size)
        if prefix is None:
            return None
        head, body = _sizes(prefix)
        start, rest = self._exactly(head), self._exactly(body)
        return None if start is None or rest is None else decode(bytes(start), rest)

    def _exactly(self, size: int) -> bytearray | None:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            received = self._socket.recv_into(view)
            if not received:
                return None
            view = view[received:]
        return data


def described(error: BaseException) -> dict[str, str]:
    """An exception as a frame carries it; `what`, `where` and `hint` as the exception has them, if it does."""
    what = getattr(error, "what", None)
    if isinstance(what, str):
        texts: Sequence[Any] = (what, getattr(error, "where", ""), getattr(error, "hint", ""))
    else:
        texts = (f"{type(error).__name__}: {error}", _place(error), "")
    return dict(zip(("type", "what", "where", "hint"), (type(error).__name__, *map(str, texts))))  # noqa: B905


def _place(error: BaseException) -> str:
    """The innermost line of the traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
