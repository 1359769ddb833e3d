"""A child process of a version that is called by one caller, who waits: for batches, beside the lanes of serving."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from millpond.core.capped_log import CappedLog
from millpond.core.child_processes import WATCH, guarded, kill_group
from millpond.core.errors import MillpondError, Unavailable
from millpond.serving.lanes.host import frame_of, rows_of
from millpond.serving.lanes.lane import child_environment, error_told
from millpond.serving.lanes.process import how_ended
from millpond.serving.lanes.wire import FD_VARIABLE, Frame, Reader, WireError, encode
from millpond.serving.rows import Rows

_RECEIVE = 1 << 20
_TAIL = 2000
_CLOSING_SECONDS = 2.0


class BlockingProcess:
    """Answers rows by a child process that speaks `lanes.wire`, as that of a lane does; used by one thread.

    A context manager: the process starts when it is entered, and is ended, with its group, when it is left. It ends
    with this process too. A call may take as long as it takes. What it prints goes to a log.

    Args:
        command: The program and its arguments.
        name: What errors call it, such as "version 3 of model 'x'".
        log: File for what it prints, capped in size.
    """

    def __init__(self, command: Sequence[str], *, name: str, log: Path) -> None:
        self._command, self._name, self._log_path = tuple(command), name, log
        self._log = CappedLog(log)
        self._number = 0
        self._tail = b""
        self._reader = Reader()

    def __enter__(self) -> BlockingProcess:
        """Start it, and wait until it is ready.

        Raises:
            Unavailable: It cannot be started, or its model cannot be loaded.
        """
        self._socket, theirs = socket.socketpair()
        with theirs:
            try:
                self._popen = subprocess.Popen(
                    guarded(self._command),
                    stdin=subprocess.PIPE if WATCH == "pipe" else subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **child_environment(), FD_VARIABLE: str(theirs.fileno())},
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            except OSError as error:
                self._socket.close()
                raise Unavailable(f"{self._name} does not start: {error.strerror}", where=self._command[0]) from error
        self._output = threading.Thread(target=self._copy_output, name=f"output of {self._popen.pid}", daemon=True)
        self._output.start()
        try:
            self._wait_until_ready()
        except BaseException:
            self._close()
            raise
        return self

    @property
    def pid(self) -> int:
        """Of the process, which leads a group of its own."""
        return self._popen.pid

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def call(self, rows: Rows) -> Rows:
        """The outputs of some rows, in order.

        Raises:
            MillpondError: The model failed, or gave another number of rows.
            Unavailable: Its process has ended.
        """
        self._number += 1
        try:
            self._socket.sendall(encode(frame_of("call", self._number, rows)))
        except OSError as error:
            raise self._ended() from error
        except ValueError as error:
            raise MillpondError(f"{self._name} cannot be asked: {error}", where=self._name) from error
        answer = self._receive()
        if answer.kind != "answer":
            raise error_told(answer.meta or {}, self._name)
        if answer.rows != rows.count:
            raise error_told({"what": f"it gave {answer.rows} rows for {rows.count}"}, self._name)
        return rows_of(answer)

    def _wait_until_ready(self) -> None:
        first = self._receive()
        if first.kind != "ready":
            told = error_told(first.meta or {}, self._name)
            what = f"{self._name} does not start: {(first.meta or {}).get('what', first.kind)}"
            hint = "its log says more; restore its files from a copy, or use another version"
            raise Unavailable(what, where=str(self._log_path), hint=hint) from told

    def _receive(self) -> Frame:
        while True:
            try:
                data = self._socket.recv(_RECEIVE)
            except OSError as error:
                raise self._ended() from error
            if not data:
                raise self._ended()
            try:
                frames = self._reader.feed(data)
            except WireError as error:
                what = f"{self._name} sent what is no answer: {error}"
                raise MillpondError(what, where=str(self._log_path)) from error
            if frames:
                return frames[0]

    def _ended(self) -> Unavailable:
        code = self._close()
        last = self._tail.decode(errors="replace").strip().splitlines()
        return Unavailable(
            f"{self._name} ended its process ({how_ended(code)})" + (f": {last[-1]}" if last else ""),
            where=str(self._log_path),
            hint="its log says more; run the command again: what is finished is kept",
        )

    def _close(self) -> int:
        """End the process, by itself where it does so within two seconds; its exit code."""
        self._socket.close()
        if self._popen.stdin is not None:
            self._popen.stdin.close()
        try:
            code = self._popen.wait(_CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            kill_group(self._popen.pid, signal.SIGKILL)
            code = self._popen.wait()
        kill_group(self._popen.pid, signal.SIGKILL)  # what it has left behind
        self._output.join(_CLOSING_SECONDS)
        return code

    def _copy_output(self) -> None:
        assert self._popen.stdout is not None
        with self._popen.stdout as source:
            while chunk := os.read(source.fileno(), 1 << 16):
                self._tail = (self._tail + chunk)[-_TAIL:]
                self._log.write(chunk)
