"""Parquet files of a table, written batch by batch in bounded memory, ready to be committed."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millpond.lake.clean import clean_batch
from millpond.lake.files import local_path, sync

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.manifest import DataFile
    from pyiceberg.schema import Schema

_ROWS_PER_GROUP = 122_880
_BYTES_PER_GROUP = 64 << 20
_BYTES_PER_FILE = 256 << 20

#: Most values of a column that are looked at before a file of it begins; and the share of different ones among them
#: beyond which a dictionary of them all would be longer than what it saves.
_LOOKED_AT, _MOSTLY_DIFFERENT = 4096, 0.95


@dataclass(frozen=True)
class Staged:
    """Files that hold rows and belong to no snapshot yet.

    Attributes:
        files: What Iceberg needs to know of each.
        paths: Where each is.
        columns: Field id of each written column, by name.
        rows: Number of rows in all of them.
    """

    files: tuple[DataFile, ...]
    paths: tuple[Path, ...]
    columns: dict[str, int]
    rows: int

    def discard(self) -> None:
        """Remove the files."""
        for path in self.paths:
            path.unlink(missing_ok=True)


def new_prefix() -> str:
    """What the names of one write's files begin with."""
    return f"{uuid.uuid4().hex}-"


def stage(
    batches: Iterable[pa.RecordBatch],
    names: list[str],
    schema: Schema,
    *,
    location: str,
    warehouse: Path,
    table: str,
    prefix: str = "",
) -> Staged:
    """Write the rows below the table's `location`, cleaned, under the field ids that `schema` gives to `names`.

    Holds one row group (at most 122,880 rows, about 64 MiB) in memory. The files are durable when this returns; when
    it raises, they are removed. A killed call leaves files that nothing refers to. Their names begin with `prefix`.

    Raises:
        DataError: A value does not fit the type of its column.
    """
    writer = _Writer(names, schema, location, warehouse, table, prefix)
    try:
        for batch in batches:
            writer.add(batch)
        writer.close()
    except BaseException:
        writer.abandon()
        raise
    columns = {name: schema.find_field(name).field_id for name in names}
    return Staged(tuple(writer.files), tuple(writer.paths), columns, writer.rows)


class _Writer:
    def __init__(
        self, names: list[str], schema: Schema, location: str, warehouse: Path, table: str, prefix: str
    ) -> None:
        import pyarrow as pa
        from pyiceberg.io.pyarrow import schema_to_pyarrow

        whole = schema_to_pyarrow(schema, include_field_ids=True)
        self.schema = schema
        self.target = pa.schema([whole.field(name) for name in names])
        self.location, self.warehouse, self.table = location.rstrip("/"), warehouse, table
        self.prefix = prefix
        self.files: list[Any] = []
        self.paths: list[Path] = []
        self.rows = 0
        self._batches: list[pa.RecordBatch] = []
        self._held_rows = self._held_bytes = 0
        self._file: Any = None
        self._sink: Any = None

    def add(self, batch: pa.RecordBatch) -> None:
        for start in range(0, batch.num_rows, _ROWS_PER_GROUP):
            piece = clean_batch(batch.slice(start, _ROWS_PER_GROUP), self.target, self.table)
            self._batches.append(piece)
            self._held_rows += piece.num_rows
            self._held_bytes += piece.nbytes
            if self._held_rows >= _ROWS_PER_GROUP or self._held_bytes >= _BYTES_PER_GROUP:
                self._flush()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._batches:
            return
        rows = pa.Table.from_batches(self._batches, self.target)
        self._batches, self._held_rows, self._held_bytes = [], 0, 0
        if self._file is None:
            path = local_path(self.warehouse, f"{self.location}/data/{self.prefix}{uuid.uuid4()}.parquet")
            path.parent.mkdir(parents=True, exist_ok=True)
            self.paths.append(path)
            self._sink = pa.OSFile(str(path), "wb")
            encoded: Any = _repeating(rows)
            self._file = pq.ParquetWriter(
                self._sink, self.target, compression="zstd", store_schema=False, use_dictionary=encoded
            )
        self._file.write_table(rows, row_group_size=max(rows.num_rows, 1))
        self.rows += rows.num_rows
        if self._sink.tell() >= _BYTES_PER_FILE:
            self._finish()

    def _finish(self) -> None:
        if self._file is None:
            return
        self._file.close()
        self._sink.close()
        sync(self.paths[-1])
        written = self._file.writer.metadata
        self.files.append(describe(self.paths[-1], self.target.names, self.schema, self.location, written))
        self._file = self._sink = None

    def close(self) -> None:
        self._flush()
        self._finish()

    def abandon(self) -> None:
        if self._file is not None:
            self._file.close()
            self._sink.close()
        for path in self.paths:
            path.unlink(missing_ok=True)


def describe(path: Path, names: list[str], schema: Schema, location: str, metadata: Any = None) -> DataFile:
    """What Iceberg needs to know of a file with the columns `names`, read off its footer (or the given `metadata`)."""
    import pyarrow.parquet as pq
    from pyiceberg.io.pyarrow import (
        compute_statistics_plan,
        data_file_statistics_from_parquet_metadata,
        parquet_path_to_id_mapping,
    )
    from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
    from pyiceberg.schema import Schema
    from pyiceberg.typedef import Record

    written = Schema(*(schema.find_field(name) for name in names))
    statistics = data_file_statistics_from_parquet_metadata(
        parquet_metadata=pq.read_metadata(path) if metadata is None else metadata,
        stats_columns=compute_statistics_plan(written, {}),
        parquet_column_mapping=parquet_path_to_id_mapping(written),
    )
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=f"{location.rstrip('/')}/data/{path.name}",
        file_format=FileFormat.PARQUET,
        partition=Record(),
        file_size_in_bytes=path.stat().st_size,
        sort_order_id=None,
        spec_id=0,
        equality_ids=None,
        key_metadata=None,
        **statistics.to_serialized_dict(),
    )


def _repeating(rows: pa.Table) -> list[str]:
    """The columns whose values are worth a dictionary, as paths of Parquet.

    Where few values repeat, as in measurements, a dictionary takes most of the time of writing, and makes the file
    larger; numbers in lists and structs are taken for such. Texts and bytes have one in any case: of a column without,
    that holds one value and nulls, DuckDB 2.0 gives all rows where `IS NULL` is asked for.
    """
    import pyarrow as pa

    every = rows.num_rows // _LOOKED_AT + 1
    looked_at = rows.take(pa.array(range(0, rows.num_rows, every), pa.int64()))
    found = [path for field in rows.schema for path, type in _leaves(field.name, field.type) if _is_text(type)]
    for name, column in zip(looked_at.column_names, looked_at.columns, strict=True):
        if not (pa.types.is_nested(column.type) or _is_text(column.type)):
            different = len(column.unique())
            if different <= _MOSTLY_DIFFERENT * looked_at.num_rows:
                found.append(name)
    return found


def _leaves(path: str, type: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    """The paths of what a column holds in Parquet, and their types."""
    import pyarrow as pa

    if pa.types.is_struct(type):
        for field in type.fields:
            yield from _leaves(f"{path}.{field.name}", field.type)
    elif pa.types.is_map(type):
        yield from _leaves(f"{path}.key_value.key", type.key_type)
        yield from _leaves(f"{path}.key_value.value", type.item_type)
    elif pa.types.is_list(type) or pa.types.is_large_list(type):
        yield from _leaves(f"{path}.list.element", type.value_type)
    else:
        yield path, type


def _is_text(type: pa.DataType) -> bool:
    import pyarrow as pa

    texts = (pa.types.is_string, pa.types.is_large_string)
    bytes_ = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    return any(fits(type) for fits in (*texts, *bytes_))
