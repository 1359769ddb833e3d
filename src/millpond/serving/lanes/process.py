"""One child process of a lane: its connection, its output, its memory and its end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from millpond.core.capped_log import CappedLog
from millpond.core.child_processes import WATCH, guarded, kill_group
from millpond.serving.lanes.wire import FD_VARIABLE, Frame, Reader, WireError, encode

_RECEIVE = 1 << 18
_TAIL = 4096
_READ_OUTPUT = 1 << 16
#: Seconds between two reads of the output: what a process prints costs this one little, however much it is.
_OUTPUT_PAUSE = 0.01
_CLOSING_SECONDS = 1.0


class LaneProcess:
    """A child, from its start to its end. Used in the thread of one event loop.

    It leads a process group, which is killed whole; it ends with this process, whatever ends that. Processes that it
    starts in groups of their own must see to themselves.

    Args:
        command: The program and its arguments; it speaks `lanes.wire`.
        environment: All of its environment.
        directory: Where it runs; None means where this process does.
        log: Takes what it prints.
        loop: The event loop.
        heard: Called with each frame that it sends.
        ended: Called once with how it ended, when nothing of its group is left.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        directory: Path | None,
        log: CappedLog | None,
        loop: asyncio.AbstractEventLoop,
        heard: Callable[[LaneProcess, Frame], None],
        ended: Callable[[LaneProcess, str], None],
    ) -> None:
        self._loop, self._log, self._heard, self._ended = loop, log, heard, ended
        self._socket, theirs = socket.socketpair()
        self._reader = Reader()
        self._unsent = memoryview(b"")
        self._tail = b""
        self._killed_for = ""
        self.began = time.monotonic()
        self.ready = False
        self.gone: asyncio.Future[None] = loop.create_future()
        with theirs:
            try:
                self._popen = subprocess.Popen(
                    guarded(command),
                    stdin=subprocess.PIPE if WATCH == "pipe" else subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    cwd=directory,
                    env={**environment, FD_VARIABLE: str(theirs.fileno())},
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            except BaseException:
                self._socket.close()
                raise
        self.pid = self._popen.pid
        self._socket.setblocking(False)
        loop.add_reader(self._socket.fileno(), self._readable)
        output = threading.Thread(target=self._copy_output, name=f"output of {self.pid}", daemon=True)
        output.start()
        threading.Thread(target=self._wait, args=(output,), name=f"end of {self.pid}", daemon=True).start()

    @property
    def log_tail(self) -> str:
        """The last that it printed."""
        return self._tail.decode(errors="replace")

    def send(self, frame: Frame) -> None:
        """Send a frame; what the socket does not take at once follows by itself. The one before has been answered."""
        data = memoryview(encode(frame))
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:  # it has just ended, and `ended` will say so
            return
        if sent < len(data):
            self._unsent = data[sent:]
            self._loop.add_writer(self._socket.fileno(), self._writable)

    def resident_bytes(self) -> int:
        """Memory that it occupies; 0 where this system does not tell."""
        try:
            pages = Path(f"/proc/{self.pid}/statm").read_bytes().split()[1]
        except (OSError, IndexError):
            return 0
        return int(pages) * _PAGE

    def close(self) -> None:
        """Let it end by itself: it sees the end of its input. It is killed a second later."""
        self._disconnect()
        self._loop.call_later(_CLOSING_SECONDS, self._kill_unless_gone)

    def kill(self, reason: str) -> None:
        """End it and its group now; `ended` is told the reason."""
        self._killed_for = self._killed_for or reason
        self._disconnect()
        self._kill_unless_gone()

    def _kill_unless_gone(self) -> None:
        if not self.gone.done() and self._popen.returncode is None:
            kill_group(self.pid, signal.SIGKILL)

    def _readable(self) -> None:
        try:
            data = self._socket.recv(_RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            # It ends, or has closed its end; which of the two, its exit code will say.
            self._disconnect()
            self._loop.call_later(_CLOSING_SECONDS, self._kill_unless_gone)
            return
        try:
            frames = self._reader.feed(data)
        except WireError as error:
            self.kill(f"sent what is no answer: {error}")
            return
        for frame in frames:
            self._heard(self, frame)

    def _writable(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._unsent)
        self._unsent = self._unsent[sent:]
        if not self._unsent:
            self._loop.remove_writer(self._socket.fileno())

    def _disconnect(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()

    def _copy_output(self) -> None:
        assert self._popen.stdout is not None
        with self._popen.stdout as source:
            while chunk := os.read(source.fileno(), _READ_OUTPUT):
                self._tail = (self._tail + chunk)[-_TAIL:]
                if self._log is not None:
                    self._log.write(chunk)
                time.sleep(_OUTPUT_PAUSE)

    def _wait(self, output: threading.Thread) -> None:
        code = self._popen.wait()
        if self._popen.stdin is not None:
            self._popen.stdin.close()
        kill_group(self.pid, signal.SIGKILL)  # what it has left behind
        output.join(_CLOSING_SECONDS)
        with suppress(RuntimeError):  # the loop is closed, and nobody is interested
            self._loop.call_soon_threadsafe(self._gone, code)

    def _gone(self, code: int) -> None:
        self._disconnect()
        if self._log is not None:
            self._log.note(f"process {self.pid} ended: {self._killed_for or how_ended(code)}")
        if not self.gone.done():
            self.gone.set_result(None)
        self._ended(self, self._killed_for or f"ended its process ({how_ended(code)})")


_PAGE = os.sysconf("SC_PAGE_SIZE")


def how_ended(code: int) -> str:
    """Such as "SIGSEGV" or "exit code 3"."""
    number = -code if code < 0 else code - 128 if WATCH == "pipe" and code > 128 else 0
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"exit code {code}"
