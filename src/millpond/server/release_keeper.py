"""The process that keeps releases going: reads what serving processes count, and moves releases by their rules.

Started as `python -m millpond.server.release_keeper --project FOLDER --profile NAME`. A rule may look at labels, which
the definitions of a version say how to compute, so it is a process of its own.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path

from millpond.core.child_processes import give_way
from millpond.core.errors import MillpondError
from millpond.platform.platform import open_project
from millpond.platform.release_keeper import ReleaseKeeper
from millpond.server.traffic import fetch_traffic

#: Seconds between two looks.
EVERY = 0.5

_log = logging.getLogger("millpond.serving")


def main() -> None:
    """Keep a project's releases going until the process is ended."""
    parser = argparse.ArgumentParser(description="Keep a project's releases going.")
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--profile", required=True)
    arguments = parser.parse_args()
    logging.basicConfig(stream=sys.stdout, format="%(asctime)s %(message)s", level=logging.WARNING)
    give_way()
    platform = open_project(arguments.project, profile=arguments.profile)
    run = platform.settings.run
    keeper = ReleaseKeeper(platform, lambda: fetch_traffic(run).snapshots)
    while True:
        began = time.monotonic()
        try:
            keeper.tick()
        except MillpondError as error:
            _log.warning("releases wait: %s", error)
        except Exception:
            _log.exception("releases wait")
        time.sleep(max(EVERY / 5, EVERY - (time.monotonic() - began)))


if __name__ == "__main__":
    main()
