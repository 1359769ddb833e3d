"""Sources of a table: files that are found, unpacked and described as relations of the engine, before any is read."""

from __future__ import annotations

import csv
import gzip
import json
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from millpond.core.errors import DataError, MillpondError, NotFound
from millpond.core.names import closest
from millpond.lake.schema import literal, quoted

if TYPE_CHECKING:
    import pyarrow as pa

_KINDS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
_READABLE = (
    "CSV (.csv, .tsv, .txt), Parquet, JSON lines (.jsonl), Arrow (.arrow); CSV also as .zip, CSV and JSON as .gz"
)
_DELIMITERS = (",", "\t", ";", "|")
_COPY_BYTES = 1 << 20
_LINE = re.compile(r"CSV Error on Line: (\d+)")
_WIDTH = re.compile(r"Expected Number of Columns: (\d+) Found: (\d+)")


@dataclass(frozen=True)
class Source:
    """One readable file.

    Attributes:
        label: What the user calls it; a member of an archive is "flights.csv.zip/flights.csv".
        path: Where its bytes are now.
        kind: "csv", "parquet" or "json".
        header: Column names of a CSV file.
        delimiter: What parts the values of a CSV file.
    """

    label: str
    path: Path
    kind: str
    header: tuple[str, ...] = ()
    delimiter: str = ","

    def relation(self, nulls: Sequence[str] = (), columns: str = "") -> str:
        """A relation of the engine with the file's rows; the values of a CSV file are text.

        Args:
            nulls: Texts that mean null in a CSV file, beside the empty one.
            columns: The types of a JSON file, as DuckDB's map.
        """
        if self.kind == "parquet":
            return f"read_parquet({literal(str(self.path))})"
        if self.kind == "json":
            known = f"columns={columns}" if columns else "sample_size=-1"
            return f"read_json({literal(str(self.path))}, {known})"
        names = ", ".join(f"{quoted(name)}: 'VARCHAR'" for name in self.header)
        texts = ", ".join(literal(text) for text in ("", *nulls))
        return (
            f"read_csv({literal(str(self.path))}, auto_detect=false, header=true, delim={literal(self.delimiter)},"
            f" quote='\"', escape='\"', columns={{{names}}}, nullstr=[{texts}], strict_mode=true)"
        )


def open_sources(paths: Sequence[Path], scratch: Path) -> list[Source]:
    """Describe the files, unpacked below `scratch` where they have to be.

    Raises:
        NotFound: A file is not there.
        DataError: A file is of an unknown kind, empty, damaged, or they are of several kinds.
    """
    sources = [source for path in paths for source in _open(path, scratch)]
    kinds = sorted({source.kind for source in sources})
    if len(kinds) > 1:
        raise DataError(
            f"The sources are of several kinds: {', '.join(kinds)}",
            where=", ".join(source.label for source in sources[:5]),
            hint="ingest one kind at a time",
        )
    return sources


def check_exists(path: Path) -> None:
    """Raise NotFound, with a close match, for a path that is no file."""
    if path.is_file():
        return
    if path.is_dir():
        raise NotFound(f"{path} is a directory, not a file", hint="name the files in it")
    near = closest(path.name, [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else [])
    hint = f"did you mean {str(path.parent / near)!r}?" if near else f"looked from {Path.cwd()}"
    raise NotFound(f"There is no file {path}", hint=hint)


def _open(path: Path, scratch: Path) -> Iterator[Source]:
    if path.suffix.lower() == ".zip":
        yield from _unzipped(path, scratch)
        return
    packed = path.suffix.lower() == ".gz"
    kind = _KINDS.get(Path(path.stem).suffix.lower() if packed else path.suffix.lower())
    if kind is None or (packed and kind not in ("csv", "json")):
        raise DataError(f"{path.name} is of no kind that can be read", where=str(path), hint=f"readable: {_READABLE}")
    if path.stat().st_size == 0:
        raise DataError(f"{path.name} is empty: it has no rows and no header", where=str(path))
    if packed:
        path = _ungzipped(path, scratch)
    if kind == "csv":
        yield _csv(str(path), path)
    elif kind == "arrow":
        yield Source(str(path), _as_parquet(path, scratch), "parquet")
    else:
        yield Source(str(path), path, kind)


def _unzipped(path: Path, scratch: Path) -> Iterator[Source]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [each for each in archive.infolist() if not each.is_dir() and not _is_clutter(each.filename)]
            for position, member in enumerate(members):
                label = f"{path}/{member.filename}"
                if _KINDS.get(Path(member.filename).suffix.lower()) != "csv":
                    raise DataError(
                        f"{member.filename} in {path.name} is no CSV file",
                        where=label,
                        hint="every file of an archive has to be CSV; unpack other kinds first",
                    )
                target = scratch / f"{position}-{Path(member.filename).name}"
                with archive.open(member) as packed, target.open("wb") as plain:
                    _copy(packed, plain)
                yield _csv(label, target)
    except (zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"{path.name} is no readable ZIP archive: {error}", where=str(path)) from error
    if not members:
        raise DataError(f"{path.name} holds no files", where=str(path))


def _is_clutter(name: str) -> bool:
    return name.startswith("__MACOSX/") or Path(name).name.startswith(".")


def _ungzipped(path: Path, scratch: Path) -> Path:
    target = scratch / path.stem
    try:
        with gzip.open(path, "rb") as packed, target.open("wb") as plain:
            _copy(packed, plain)
    except (gzip.BadGzipFile, EOFError) as error:
        raise DataError(f"{path.name} is no readable gzip file: {error}", where=str(path)) from error
    return target


def _copy(source: IO[bytes] | gzip.GzipFile, target: IO[bytes]) -> None:
    while chunk := source.read(_COPY_BYTES):
        target.write(chunk)


def _csv(label: str, path: Path) -> Source:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            delimiter = max(_DELIMITERS, key=lambda each: (first.count(each), -_DELIMITERS.index(each)))
            file.seek(0)
            header = next((tuple(row) for row in csv.reader(file, delimiter=delimiter) if row), ())
    except UnicodeDecodeError as error:
        raise _not_text(label, error) from error
    names = tuple(name.strip() for name in header)
    if not any(names):
        raise DataError(f"{Path(label).name} is empty: it has no header", where=label)
    for position, name in enumerate(names):
        if not name:
            hint = "the first line of a CSV file names every column"
            raise DataError(f"Column {position + 1} has no name", where=f"{label}, line 1", hint=hint)
        if name.lower() in [each.lower() for each in names[:position]]:
            hint = "rename one of them; case does not tell columns apart"
            raise DataError(f'Two columns are called "{name}"', where=f"{label}, line 1", hint=hint)
    return Source(label, path, "csv", names, delimiter)


def _not_text(label: str, error: Exception) -> DataError:
    return DataError(
        f"{Path(label).name} is not UTF-8 text", where=label, hint=f"save it as UTF-8 ({str(error).splitlines()[0]})"
    )


def _as_parquet(path: Path, scratch: Path) -> Path:
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as file:
            try:
                opened = pa.ipc.open_file(file)
                batches = (opened.get_batch(position) for position in range(opened.num_record_batches))
                return to_parquet(pa.RecordBatchReader.from_batches(opened.schema, batches), scratch)
            except pa.ArrowInvalid:
                file.seek(0)
                return to_parquet(pa.ipc.open_stream(file), scratch)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path.name} is no readable Arrow file: {error}", where=str(path)) from error


def to_parquet(rows: pa.Table | pa.RecordBatchReader, scratch: Path) -> Path:
    """Keep rows in a Parquet file below `scratch`, batch by batch, so that they can be read more than once."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = scratch / f"rows-{len(list(scratch.iterdir()))}.parquet"
    batches = rows.to_batches() if isinstance(rows, pa.Table) else rows
    with pq.ParquetWriter(path, rows.schema, compression="lz4") as writer:
        for batch in batches:
            writer.write_batch(batch)
    return path


def line_of(source: Source, record: int) -> int:
    """The line on which the `record`-th row (from 1) of a CSV file ends."""
    with source.path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=source.delimiter)
        seen = -1
        for row in reader:
            seen += bool(row)
            if seen == record:
                return reader.line_num
    return 0


@contextmanager
def readable(sources: Sequence[Source]) -> Iterator[None]:
    """Raise what the engine says about the sources' bytes as errors about their files and lines."""
    try:
        yield
    except MillpondError as error:
        cause = error.__cause__
        if cause is None or (found := _unreadable(str(cause), sources)) is None:
            raise
        raise found from cause


def _unreadable(text: str, sources: Sequence[Source]) -> DataError | None:
    source = next((each for each in sources if str(each.path) in text), sources[0])
    if (line := _LINE.search(text)) is not None:
        where = f"{source.label}, line {line.group(1)}"
        if (width := _WIDTH.search(text)) is not None:
            what = f"The line has {width.group(2)} values, and the header {width.group(1)} columns"
            hint = "a value that holds the delimiter, or a line break, has to be in double quotes"
            return DataError(what, where=where, hint=hint)
        if "unicode" in text or "utf-8" in text:
            return DataError("The line is not UTF-8 text", where=where, hint="save the file as UTF-8")
        if "unterminated quote" in text:
            return DataError("A double quote is opened and never closed", where=where, hint='write " in a value as ""')
        return DataError(f"The line cannot be read: {_sentence(text)}", where=where)
    if "Malformed JSON" in text or "JSON" in text.split(":", maxsplit=1)[0]:
        return _bad_json(source)
    if source.kind == "parquet" and ("arquet" in text or "magic" in text):
        return DataError(f"{Path(source.label).name} is no readable Parquet file", where=source.label)
    return None


def _bad_json(source: Source) -> DataError:
    with source.path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                json.loads(line or b"{}")
            except ValueError as error:
                if line.strip():
                    return DataError(f"The line is not JSON: {error}", where=f"{source.label}, line {number}")
    return DataError("The file is not JSON lines", where=source.label, hint='one object a line, such as {"temp": 39}')


def _sentence(text: str) -> str:
    lines: list[Any] = [line for line in text.splitlines() if line.strip()]
    return str(lines[2] if len(lines) > 2 else lines[0])
