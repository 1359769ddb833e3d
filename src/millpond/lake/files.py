"""Where the lake's files are: locations that survive when the lake is copied or moved.

Iceberg writes absolute locations into its metadata. Every file of this lake lies exactly four levels below the
warehouse (namespace / table / "data" or "metadata" / file name), so the last four parts of a location are enough to
find the file below the warehouse that is open now, wherever it was when the location was written. Other Iceberg
readers see ordinary `file://` locations, right for as long as the lake has not been moved.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlparse

_LEVELS = 4

#: Catalog property that holds the absolute path of the warehouse that is open now.
WAREHOUSE_PATH = "millpond.warehouse-path"


def local_path(warehouse: Path, location: str) -> Path:
    """The file below `warehouse` that `location` means, whatever directory the lake was in when it was written."""
    path = unquote(urlparse(location).path) if location.startswith("file:") else location
    return warehouse.joinpath(*path.split("/")[-_LEVELS:])


def sync(path: Path) -> None:
    """Make a file's bytes durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
