"""Where the lake's files are: locations that survive when the lake is copied or moved.

Iceberg writes absolute locations into its metadata. Every file of this lake lies exactly four levels below the
warehouse (namespace / table / "data" or "metadata" / file name), so the last four parts of a location are enough to
find the file below the warehouse that is open now, wherever it was when the location was written. Other Iceberg
readers see ordinary `file://` locations, right for as long as the lake has not been moved.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from pyiceberg.io.pyarrow import PyArrowFileIO  # noqa: TID253 - only imported by name, by the catalog

if TYPE_CHECKING:
    from pyiceberg.io import InputFile, OutputFile

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


class LakeFileIO(PyArrowFileIO):  # type: ignore[misc]
    """PyIceberg's file access, for the files of one warehouse only."""

    def _local(self, location: str) -> str:
        return str(local_path(Path(self.properties[WAREHOUSE_PATH]), location))

    def new_input(self, location: str) -> InputFile:
        return _renamed(super().new_input(self._local(location)), location)

    def new_output(self, location: str) -> OutputFile:
        path = self._local(location)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return _renamed(super().new_output(path), location)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        name = location if isinstance(location, str) else location.location
        super().delete(self._local(name))


def _renamed(file: Any, location: str) -> Any:
    """Let the file be known by its recorded location: it is what PyIceberg writes into manifests."""
    file._location = location
    return file
