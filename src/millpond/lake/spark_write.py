"""Rows that Spark's executors write as files of a table, each its own part; the driver hears only which files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millpond.core.errors import DataError, MillpondError
from millpond.lake.datafiles import Staged, describe, new_prefix, stage
from millpond.lake.files import local_path, sync
from millpond.lake.spark_errors import translated

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.schema import Schema

_ANSWER = "path string, rows long, error string"


class SparkRows:
    """The rows of a query on Spark, as `lake.ports.StagedRows`.

    The same code writes the files as on the other engines, in the executors' Python: the executors need Millpond,
    and see the lake under the same path. A task that is run again writes new files; only those of the attempt that
    counts are told to the driver, and the others are left to the lake's garbage collection.

    Attributes:
        schema: The columns.
    """

    def __init__(self, frame: Any, schema: pa.Schema, sql: str) -> None:
        self.schema = schema
        self._frame, self._sql = frame, sql

    def stage(self, names: list[str], schema: Schema, *, location: str, warehouse: Path, table: str) -> Staged:
        """Write the rows below the table's `location`; see `datafiles.stage`."""
        prefix = new_prefix()
        folder = local_path(warehouse, f"{location.rstrip('/')}/data/x").parent
        folder.mkdir(parents=True, exist_ok=True)
        write = _writer(names, schema.model_dump_json(), location, str(warehouse), table, prefix)
        try:
            with translated(self._sql):
                told = self._frame.mapInArrow(write, _ANSWER).toArrow().to_pylist()
            _refuse(told, table)
            sync(folder)
            paths = sorted(Path(each["path"]) for each in told)
            files = tuple(describe(path, names, schema, location) for path in paths)
        except BaseException:
            for path in folder.glob(f"{prefix}*"):
                path.unlink(missing_ok=True)
            raise
        columns = {name: schema.find_field(name).field_id for name in names}
        return Staged(files, tuple(paths), columns, sum(each["rows"] for each in told))


def _writer(
    names: list[str], schema: str, location: str, warehouse: str, table: str, prefix: str
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """What an executor does with its part of the rows: writes them, and says which files there are, or what failed."""

    def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa
        from pyiceberg.schema import Schema

        told: list[dict[str, Any]] = []
        try:
            staged = stage(
                batches,
                names,
                Schema.model_validate_json(schema),
                location=location,
                warehouse=Path(warehouse),
                table=table,
                prefix=prefix,
            )
            told = [
                {"path": str(path), "rows": file.record_count}
                for path, file in zip(staged.paths, staged.files, strict=True)
            ]
        except MillpondError as error:
            told = [{"error": json.dumps([error.what, error.where, error.hint])}]
        columns: list[tuple[str, pa.DataType]] = [("path", pa.string()), ("rows", pa.int64()), ("error", pa.string())]
        yield pa.RecordBatch.from_pylist(told, schema=pa.schema(columns))

    return write


def _refuse(told: list[dict[str, Any]], table: str) -> None:
    for each in told:
        if each["error"] is not None:
            what, where, hint = json.loads(each["error"])
            raise DataError(what, where=where or f'table "{table}"', hint=hint)
