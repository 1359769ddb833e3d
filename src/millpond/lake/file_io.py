"""PyIceberg's file access for one warehouse. Imported by name, by PyIceberg, when a catalog is opened."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyiceberg.io.pyarrow import PyArrowFileIO  # noqa: TID253 - nothing imports this module but a catalog that is opened

from millpond.lake.files import WAREHOUSE_PATH, local_path

if TYPE_CHECKING:
    from pyiceberg.io import InputFile, OutputFile


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
