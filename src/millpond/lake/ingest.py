"""From files and Arrow data to a table: checked first, then written as one snapshot."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from millpond.core.errors import DataError, SchemaMismatch
from millpond.core.fingerprints import file_digest, fingerprint
from millpond.definitions.tables import Table, WriteMode
from millpond.lake.casting import SourceColumn, source_columns, source_relation
from millpond.lake.events import pushed_rows, with_pushed
from millpond.lake.keys import refuse_bad_keys, refuse_known_keys, refuse_no_instant
from millpond.lake.ports import Engine, Lake, Snapshot
from millpond.lake.schema import quoted
from millpond.lake.sources import Source, check_exists, open_sources, readable, to_parquet

if TYPE_CHECKING:
    import pyarrow as pa

SOURCE, MODE, FILES = "source", "mode", "files"

_ROWS = "__ingested"


@dataclass(frozen=True)
class Ingested:
    """What ingesting did.

    Attributes:
        snapshot: The table's snapshot after it.
        rows_read: Rows in the sources; 0 where they were skipped.
        skipped: Whether the same sources had been ingested before in the same way, so that nothing was done.
        sources: What was read, as the user calls it.
    """

    snapshot: Snapshot
    rows_read: int
    skipped: bool
    sources: tuple[str, ...]


def ingest(
    lake: Lake,
    engine: Engine,
    table: Table,
    sources: Sequence[Path] | pa.Table | pa.RecordBatchReader,
    *,
    mode: WriteMode | None = None,
    force: bool = False,
    scratch: Path | None = None,
) -> Ingested:
    """Read sources into a table, as one snapshot or not at all.

    Memory does not grow with the sources: the engine spills, archives are unpacked below `scratch`.

    Sources whose bytes, declaration and mode are those of an earlier ingest are skipped: for overwrite and upsert,
    when that was the last write; for append, when it happened since the table was last overwritten. Appending the
    same file twice on purpose takes `force`.

    Args:
        lake: Where the table is.
        engine: Reads the sources; of dialect "duckdb".
        table: Its declaration: key, time, types, nulls and zone are obeyed.
        sources: Files (CSV, Parquet, JSON lines, Arrow; CSV in .zip, CSV and JSON in .gz), or Arrow data.
        mode: What happens to rows already there; by default what the table declares.
        force: Ingest even if the same sources were ingested before.
        scratch: Directory for temporary files; by default the system's.

    Raises:
        NotFound: A file is not there.
        DataError: The data cannot be taken; says file, line or column, value, and what to do.
        SchemaMismatch: Columns of the source and of the table disagree.
    """
    mode = mode or table.write_mode
    if mode == "upsert" and not table.keys:
        raise DataError(f"{table.subject} has no key to upsert by", where=str(table.declared_at), hint="declare key=")
    if scratch is not None:
        scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="millpond-ingest-", dir=scratch) as directory:
        found, digests = _find(sources, Path(directory))
        digest = fingerprint({"files": digests, "table": _options(table), "mode": mode})
        labels = tuple(source.label for source in found)
        done = None if force else _ingested_before(lake, table.name, mode, digest)
        if done is not None:
            return Ingested(done, 0, True, labels)
        said = {SOURCE: digest, MODE: mode, FILES: ", ".join(Path(label).name for label in labels)[:500]}
        with readable(found), engine.session():
            snapshot, rows = _Ingest(lake, engine, table, mode, found).run(said)
        return Ingested(snapshot, rows, False, labels)


def _find(sources: Sequence[Path] | pa.Table | pa.RecordBatchReader, scratch: Path) -> tuple[list[Source], list[str]]:
    if isinstance(sources, Sequence):
        paths = [Path(each) for each in sources]
        if not paths:
            raise DataError("There are no sources to ingest", hint="name files, or declare source= on the table")
        for path in paths:
            check_exists(path)
        return open_sources(paths, scratch), [file_digest(path) for path in paths]
    kept = to_parquet(sources, scratch)
    return [Source("the rows given", kept, "parquet")], [file_digest(kept)]


def _options(table: Table) -> dict[str, object]:
    return {
        "key": list(table.keys),
        "time": table.time,
        "known": table.known,
        "zone": table.zone,
        "types": dict(table.types),
        "nulls": list(table.nulls),
    }


def _ingested_before(lake: Lake, table: str, mode: WriteMode, digest: str) -> Snapshot | None:
    history = lake.history(table) if lake.exists(table) else []
    for snapshot in reversed(history):
        if snapshot.properties.get(SOURCE) == digest:
            return history[-1]
        if mode != "append" or snapshot.properties.get(MODE) == "overwrite":
            return None
    return None


@dataclass(frozen=True)
class _Ingest:
    lake: Lake
    engine: Engine
    table: Table
    mode: WriteMode
    sources: Sequence[Source]

    def run(self, said: Mapping[str, str]) -> tuple[Snapshot, int]:
        """Check the rows, write them; the new snapshot and the number of rows read."""
        engine, table = self.engine, self.table
        current = self._current()
        kept = () if current is None or self.mode == "overwrite" else current.columns
        relation = source_relation(engine, self.sources, table)
        existing = {column.name: column.type for column in kept}
        columns = source_columns(engine, relation, self.sources, table, existing)
        where = ", ".join(source.label for source in self.sources[:3])
        engine.execute(f"CREATE TEMP TABLE {_ROWS} AS SELECT * FROM {_typed(columns, relation)}")
        count = engine.rows(f"SELECT count(*) FROM {_ROWS}")[0][0]
        if count == 0:
            raise DataError("The source has no rows", where=where, hint="nothing was written; check the file")
        refuse_no_instant(engine, _ROWS, table, where)
        refuse_bad_keys(engine, _ROWS, table.keys, where)
        if self.mode == "append" and current is not None:
            refuse_known_keys(engine, _ROWS, current, table.keys, where)
        try:
            return self._store(engine.reader(self._result(columns)), said), count
        except SchemaMismatch as error:
            hint = f"{error.hint}; or declare the column's type in types="
            raise SchemaMismatch(error.what, where=f"{where}, into {error.where}", hint=hint) from error

    def _result(self, columns: Sequence[SourceColumn]) -> str:
        """The rows to write; a table that is overwritten keeps the pushed rows that the sources say nothing of."""
        pushed = pushed_rows(self.lake, self.table) if self.mode == "overwrite" and self.table.keys else None
        return with_pushed(self.engine, _ROWS, [each.name for each in columns], pushed, self.table.keys)

    def _store(self, rows: pa.RecordBatchReader, said: Mapping[str, str]) -> Snapshot:
        name = self.table.name
        if self.mode == "append":
            return self.lake.append(name, rows, properties=said)
        if self.mode == "overwrite":
            return self.lake.overwrite(name, rows, properties=said)
        return self.lake.upsert(name, rows, self.table.keys, properties=said)

    def _current(self) -> Snapshot | None:
        history = self.lake.history(self.table.name) if self.lake.exists(self.table.name) else []
        return history[-1] if history else None


def _typed(columns: Sequence[SourceColumn], relation: str) -> str:
    select = ", ".join(f"{column.sql} AS {quoted(column.name)}" for column in columns)
    return f"(SELECT {select} FROM {relation})"
