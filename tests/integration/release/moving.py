"""Moves of releases in a process that kills itself at a given place. Not the product's."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from millpond.core.errors import MillpondError
from millpond.definitions.release import Release
from millpond.platform import release
from millpond.platform.platform import open_project

LADDER = Release(steps=(0.1, 0.5), every=None, rules=())


def die_at(function: str, event: str) -> None:
    """Kill this process when a function of Millpond is called, or returns ("file.py:name")."""
    file, _, name = function.partition(":")

    def watch(frame: FrameType, found: str, _: Any) -> None:
        code = frame.f_code
        if found == event and code.co_name == name and code.co_filename.endswith(f"/millpond/{file}"):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(watch)


def act(folder: str, move: str, at: tuple[str, str] | None) -> None:
    """Do a move; dies where `at` says. Exit code 8 where it was refused."""
    platform = open_project(Path(folder), user="ann")
    if at is not None:
        die_at(*at)
    try:
        if move == "start":
            release.start(platform, "plain", 3, LADDER, why="try it")
        elif move == "advance":
            release.advance(platform, "plain", why="it holds")
        elif move == "promote":
            release.promote(platform, "plain", 3, why="it is better")
        else:
            release.rollback(platform, "plain", why="it is worse")
    except MillpondError as error:
        sys.stderr.write(str(error))
        os._exit(8)
    os._exit(0)
