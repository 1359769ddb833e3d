"""Asking a clean process whether a written model works."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

TIME_LIMIT_SECONDS = 120.0
_PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "TZ", "SYSTEMROOT", "LD_LIBRARY_PATH")
_PASSED_ON_PREFIXES = ("LC_", "OMP_", "MKL_", "OPENBLAS_")


class CleanProcess:
    """A process that has nothing of this one but the installed packages: no project, no environment, an empty folder.

    It starts at once and imports while the caller writes the model. It ends when this object is closed, and when this
    process ends.
    """

    def __init__(self, time_limit: float = TIME_LIMIT_SECONDS) -> None:
        self._time_limit = time_limit
        self._folder = tempfile.TemporaryDirectory(prefix="millpond-verify-", ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-m", "millpond.registry.verify"],
            cwd=self._folder.name,
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def check(self, directory: Path) -> str | None:
        """Whether the model in `directory` loads and predicts its input example as expected. Once per process.

        Returns:
            None if so; otherwise why not, the first line readable by itself.
        """
        try:
            out, err = self._process.communicate(f"{directory.absolute()}\n", timeout=self._time_limit)
        except subprocess.TimeoutExpired:
            self.close()
            return f"it took longer than {self._time_limit:.0f} s"
        for line in reversed(out.splitlines()):
            with contextlib.suppress(ValueError):
                answer = json.loads(line)
                if answer["ok"]:
                    return None
                return str(answer["reason"]) + ("\n" + str(answer["details"]) if answer["details"] else "")
        return _how_it_ended(self._process.returncode) + ("\n" + err[-4000:] if err else "")

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(OSError, ValueError):
            self._process.communicate()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _how_it_ended(code: int) -> str:
    if code < 0:
        return f"the process was ended by {signal.Signals(-code).name}"
    return f"the process ended with exit code {code}"


def _environment() -> dict[str, str]:
    return {
        name: value for name, value in os.environ.items() if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)
    }
