"""The upkeep process: lands pushed events and logged predictions, refreshes online values, and clears away what the
lake no longer needs. It gives way to the processes that answer.

Started as `python -m millpond.server.upkeep --project FOLDER --profile NAME`. It runs the definitions of the project
and of its champions, so it is a process of its own.
"""

from __future__ import annotations

import argparse
import logging
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from millpond.core.child_processes import give_way
from millpond.core.errors import MillpondError
from millpond.platform.online import Upkeep
from millpond.platform.platform import Platform, open_project
from millpond.platform.predictions import flush
from millpond.settings.project import Settings

#: Seconds between two looks for something to do, where there is little.
EVERY = 5.0

#: It rests at least this many times as long as it worked, so that predictions have the machine.
IDLE = 4.0

#: Seconds between two moves of logged predictions into the lake.
FLUSH_EVERY = 5.0

#: Seconds between two collections of the lake's garbage.
GARBAGE_EVERY = 3600.0

_log = logging.getLogger("millpond.upkeep")


def main() -> None:
    """Keep a project's online values up to date until the process is ended."""
    parser = argparse.ArgumentParser(description="Keep a project's online values up to date.")
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--profile", required=True)
    arguments = parser.parse_args()
    logging.basicConfig(stream=sys.stdout, format="%(asctime)s %(message)s", level=logging.WARNING)
    _log.setLevel(logging.INFO)
    platform = open_project(arguments.project, profile=arguments.profile)
    give_way()
    threading.Thread(target=_keep_flushing, args=(platform.settings,), name="flush", daemon=True).start()
    upkeep = Upkeep(platform)
    collected = time.monotonic()
    while True:
        began = time.monotonic()
        _try("refreshing", lambda: _refresh(upkeep))
        if began - collected > GARBAGE_EVERY:
            collected = began
            _try("collecting garbage", platform.lake.collect_garbage)
        took = time.monotonic() - began
        time.sleep(max(EVERY - took, IDLE * took))


def _refresh(upkeep: Upkeep) -> None:
    for done in upkeep.run():
        _log.info("%s: %s, %s entities", done.view, done.how, f"{done.state.entities:,}")


def _keep_flushing(settings: Settings) -> None:
    """Move predictions into the lake every few seconds, whatever user code does meanwhile in the main thread."""
    platform = Platform(settings)
    while True:
        _try("moving predictions into the lake", lambda: flush(platform))
        time.sleep(FLUSH_EVERY)


def _try(what: str, work: Callable[[], object]) -> None:
    try:
        work()
    except MillpondError as error:
        _log.warning("%s waits: %s", what, error)
    except Exception:
        _log.exception("%s failed", what)


if __name__ == "__main__":
    main()
