"""Batch jobs at rest: what is pinned when one begins, its finished parts, and how the next command goes on with it.

A job lies in `batches/ID` of the project's state: `manifest.json`, and a Parquet file for each part that is finished.
It is there whole or not at all, until its rows are committed to the target.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from millpond.core.durable import sync_directory
from millpond.core.errors import NotFound, StoreMismatch
from millpond.core.fingerprints import fingerprint
from millpond.core.ids import new_id
from millpond.core.time import from_microseconds, now, to_microseconds
from millpond.lake.files import sync
from millpond.lake.ports import Snapshot
from millpond.platform.alone import alone_or_refused
from millpond.platform.platform import Platform
from millpond.platform.progress import step

if TYPE_CHECKING:
    import pyarrow as pa

_MANIFEST = "manifest.json"
_FRESH = "--fresh starts over, with the tables as they are now"


@dataclass(frozen=True)
class Asked:
    """What a batch is asked to do.

    Attributes:
        model: The model's name.
        version: The version that was named, or None for the champion.
        source: Table to score.
        target: Table to write.
        part_rows: Rows of a part.
    """

    model: str
    version: int | None
    source: str
    target: str
    part_rows: int


@dataclass(frozen=True)
class Manifest:
    """What a job has pinned.

    Attributes:
        run: An id of this job alone: prediction ids begin with it, and the commit is made under it.
        model: The model's name.
        version: The version that scores.
        asked: The version that was named, or None for the one that was champion.
        source: Table that is scored.
        source_snapshot: Its snapshot.
        snapshots: Table -> snapshot id that features are read from.
        target: Table that is written.
        keys: Columns that are copied to it.
        began: The instant of the features of rows without an earlier one of their own; microseconds, UTC.
        part_rows: Rows of a part.
        requested_by: Who began it.
    """

    run: str
    model: str
    version: int
    asked: int | None
    source: str
    source_snapshot: int
    snapshots: Mapping[str, int]
    target: str
    keys: tuple[str, ...]
    began: int
    part_rows: int
    requested_by: str

    @property
    def moment(self) -> datetime:
        return from_microseconds(self.began)

    @property
    def pinned(self) -> dict[str, int]:
        """Every table that the job reads, with its snapshot."""
        return {**self.snapshots, self.source: self.source_snapshot}


class Job:
    """A job that was begun. Its lock is held by whoever uses it: see `writing`.

    Attributes:
        manifest: What it has pinned.
        resumed: Whether it was begun before, by another command.
    """

    def __init__(self, platform: Platform, folder: Path, manifest: Manifest, *, resumed: bool) -> None:
        self._lake = platform.lake
        self._folder = folder
        self.manifest = manifest
        self.resumed = resumed

    @property
    def source(self) -> Snapshot:
        return self._lake.snapshot(self.manifest.source, self.manifest.source_snapshot)

    def pin(self) -> None:
        """Keep what the job reads from expiry while it runs; repeated when it goes on.

        Raises:
            NotFound: A snapshot is no longer there.
        """
        try:
            for table, number in self.manifest.pinned.items():
                self._lake.pin(self._lake.snapshot(table, number), self._name)
        except NotFound as error:
            raise NotFound(error.what, where=f"the batch that writes {self.manifest.target}", hint=_FRESH) from error

    def part_path(self, number: int) -> Path:
        return self._folder / f"part-{number:06d}.parquet"

    def finished(self, number: int, rows: int) -> bool:
        """Whether a part's file is there, with so many rows."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return int(pq.read_metadata(self.part_path(number)).num_rows) == rows
        except (OSError, pa.ArrowException):
            return False

    def write(self, number: int, schema: pa.Schema, rows: Iterator[pa.Table]) -> int:
        """Write a part; it is there whole and durable when this returns, or not at all. Returns its rows."""
        import pyarrow.parquet as pq

        path = self.part_path(number)
        draft = path.with_name(f".{path.name}")
        count = 0
        with pq.ParquetWriter(draft, schema, compression="zstd") as writer:
            for table in rows:
                writer.write_table(table)
                count += table.num_rows
        sync(draft)
        draft.replace(path)
        sync_directory(self._folder)
        return count

    def reader(self, schema: pa.Schema, parts: int) -> pa.RecordBatchReader:
        """The rows of all parts, as a stream."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        def batches() -> Iterator[pa.RecordBatch]:
            for number in range(parts):
                with pq.ParquetFile(self.part_path(number), pre_buffer=False) as file:
                    yield from file.iter_batches()

        return pa.RecordBatchReader.from_batches(schema, batches())

    def end(self) -> None:
        """Let go of what was pinned, and remove the folder: its rows are committed, or given up."""
        for table in self.manifest.pinned:
            if self._lake.exists(table):
                self._lake.unpin(table, self._name)
        over = self._folder.with_name(f".over-{self._folder.name}")
        shutil.rmtree(over, ignore_errors=True)
        self._folder.replace(over)  # at once: a part must never be missing from a folder that counts
        sync_directory(self._folder.parent)
        shutil.rmtree(over, ignore_errors=True)

    @property
    def _name(self) -> str:
        return f"batch-{self.manifest.run}"


def writing(platform: Platform, target: str) -> AbstractContextManager[None]:
    """Hold a target's lock around a block, so that one batch at a time writes it.

    Raises:
        Conflict: Another one does.
    """
    return alone_or_refused(platform, f"batch-{target}", f"A batch that writes {target} is running")


def unfinished(platform: Platform, target: str) -> Job | None:
    """The job that was begun for a target and not ended; its lock is to be held.

    Raises:
        StoreMismatch: Its manifest is damaged.
    """
    folder = _folder(platform, target)
    path = folder / _MANIFEST
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_bytes())
        return Job(platform, folder, Manifest(**{**found, "keys": tuple(found["keys"])}), resumed=True)
    except (ValueError, TypeError, KeyError) as error:
        hint = "delete the folder: the batch then starts over"
        raise StoreMismatch(f"A batch's manifest cannot be read: {error}", where=str(path), hint=hint) from error


def begin(platform: Platform, manifest: Manifest) -> Job:
    """A new job, durable when this returns; its lock is to be held, and there is no other of its target."""
    folder = _folder(platform, manifest.target)
    draft = folder.with_name(f".new-{folder.name}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True, mode=0o700)
    with (draft / _MANIFEST).open("wb") as file:
        file.write(json.dumps(asdict(manifest), indent=1, ensure_ascii=False).encode())
        file.flush()
        os.fsync(file.fileno())
    sync_directory(draft)
    draft.replace(folder)
    sync_directory(folder.parent)
    return Job(platform, folder, manifest, resumed=False)


def new_manifest(
    platform: Platform, asked: Asked, version: int, source: Snapshot, snapshots: Mapping[str, Snapshot]
) -> Manifest:
    """What a job that begins now pins; `snapshots` are those that features are read from, by table."""
    return Manifest(
        run=new_id("p"),
        model=asked.model,
        version=version,
        asked=asked.version,
        source=asked.source,
        source_snapshot=source.id,
        snapshots={table: each.id for table, each in snapshots.items()},
        target=asked.target,
        keys=keys_of(platform, asked.source),
        began=to_microseconds(now()),
        part_rows=asked.part_rows,
        requested_by=platform.user,
    )


def keys_of(platform: Platform, source: str) -> tuple[str, ...]:
    """The keys of a table as the project declares it now; none of another table."""
    declared = platform.definitions.tables.get(source)
    return declared.keys if declared else ()


def give_up_all(platform: Platform) -> None:
    """End all jobs that were begun and not finished.

    Raises:
        Conflict: One of them is running.
    """
    for path in sorted((platform.settings.state / "batches").glob(f"[!.]*/{_MANIFEST}")):
        target = str(json.loads(path.read_bytes())["target"])
        with writing(platform, target):
            job = unfinished(platform, target)
            if job is not None:
                with step(platform.listener, f"give up batch {target}"):
                    job.end()


def _folder(platform: Platform, target: str) -> Path:
    return platform.settings.state / "batches" / fingerprint(target)
