"""By what tables were changed since a snapshot, read off the catalog and the metadata files themselves.

Serving asks it twice a second and has to stay small, so that it loads neither PyIceberg nor what that needs. What it
reads are Iceberg's own formats: the SQL catalog's table `iceberg_tables`, and a metadata file, which never changes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from millpond.core.errors import Unavailable
from millpond.lake.catalog import metadata_location, read_catalog
from millpond.lake.files import local_path
from millpond.lake.metadata import properties_of

#: What a snapshot that was made by landing says of itself: the "first-last" position of its events, and the snapshot
#: that they came after.
LANDED, BASE = "events", "events_after"

#: A metadata file is removed when it was superseded many times since its name was asked for.
_ATTEMPTS = 3


def base_of(snapshot_id: int, properties: Mapping[str, str]) -> str:
    """The id of the newest snapshot up to this one that was not made by landing."""
    return properties[BASE] if LANDED in properties else str(snapshot_id)


class _Table(NamedTuple):
    """What a metadata file says: the current snapshot, and the base of every snapshot that is kept."""

    location: str
    current: int | None
    bases: Mapping[int, str]


class Lineage:
    """Tells tables that only pushed events came into from others. Used by one thread at a time.

    Sees what is committed at the time of the call. A call takes microseconds while the table stays as it was.

    Args:
        root: The lake's directory.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._catalog: sqlite3.Connection | None = None
        self._tables: dict[str, _Table] = {}

    def only_landed_since(self, table: str, snapshot_id: int) -> bool:
        """Whether all snapshots of a table from `snapshot_id` to the current one were made by landing events.

        False for a snapshot that is not kept any more, and for a table that is not there.

        Raises:
            Unavailable: The catalog or the metadata file cannot be read.
        """
        found = self._find(table)
        if found is None or found.current is None:
            return False
        if found.current == snapshot_id:
            return True
        base = found.bases.get(snapshot_id)
        return base is not None and base == found.bases.get(found.current)

    def close(self) -> None:
        """Give the catalog back; the next call opens it again."""
        if self._catalog is not None:
            self._catalog.close()
            self._catalog = None

    def _find(self, table: str) -> _Table | None:
        before = self._tables.get(table)
        for attempt in range(1, _ATTEMPTS + 1):
            location = self._location(table)
            if location is None:
                self._tables.pop(table, None)
                return None
            if before is not None and before.location == location:
                return before
            path = local_path(self._root / "warehouse", location)
            try:
                found = self._tables[table] = _read(location, path.read_bytes())
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                if isinstance(error, FileNotFoundError) and attempt < _ATTEMPTS:
                    continue
                raise Unavailable(f'The metadata of table "{table}" cannot be read', where=str(path)) from error
            return found
        raise AssertionError  # the last attempt returns or raises

    def _location(self, table: str) -> str | None:
        try:
            if self._catalog is None:
                self._catalog = read_catalog(self._root)
            return metadata_location(self._catalog, table)
        except sqlite3.Error as error:
            self.close()
            raise Unavailable(f"The catalog of the lake cannot be read: {error}", where=str(self._root)) from error


def _read(location: str, content: bytes) -> _Table:
    import orjson

    said: dict[str, Any] = orjson.loads(content)
    bases = {
        each["snapshot-id"]: base_of(each["snapshot-id"], properties_of(each.get("summary") or {}))
        for each in said.get("snapshots", ())
    }
    current = said.get("current-snapshot-id")
    return _Table(location, current if current in bases else None, bases)
