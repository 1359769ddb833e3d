"""The log of the control process, in `.millpond/logs`, capped in size."""

from __future__ import annotations

import logging
import logging.handlers
from pathlib import Path

from millpond.core.capped_log import CAP_BYTES


def log_to(path: Path) -> logging.Handler:
    """Send what the control process logs (warnings, and Millpond's own information) to a capped file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=CAP_BYTES, backupCount=1, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    logging.getLogger("millpond").setLevel(logging.INFO)
    return handler
