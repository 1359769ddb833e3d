"""The serving worker: the process in which predictions, and so the code of versions, run.

Started as `python -m millpond.server.worker --project FOLDER --profile NAME --socket PATH`.
"""

from __future__ import annotations

import argparse
import threading
from pathlib import Path

from millpond.core.errors import MillpondError
from millpond.platform.platform import open_project
from millpond.platform.served import ServedModels
from millpond.server.inference import Limits, inference_app
from millpond.server.inference_worker import serve_socket
from millpond.serving.log.spool import PredictionLog


def main() -> None:
    """Serve the champions of a project on a Unix socket until the process is ended."""
    parser = argparse.ArgumentParser(description="Serve the champions of a project.")
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--profile", required=True)
    parser.add_argument("--socket", type=Path, required=True)
    arguments = parser.parse_args()
    platform = open_project(arguments.project, profile=arguments.profile)
    log = PredictionLog(platform.settings.spool)
    models = ServedModels(platform, log)
    threading.Thread(target=_warm, args=(models,), daemon=True).start()
    limits = Limits(body_bytes=platform.settings.profile.body_limit)
    try:
        serve_socket(inference_app(models, limits=limits), arguments.socket)
    finally:
        log.close()


def _warm(models: ServedModels) -> None:
    """Load what will be asked for; what cannot be loaded says so when it is asked for."""
    for name in models.names():
        try:
            models.get(name)
        except MillpondError:
            continue


if __name__ == "__main__":
    main()
