"""From the spool to the lake, each prediction once; and what is still in the spool."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from millpond.core.durable import locked, sync_directory
from millpond.serving.log.reading import Segment, read_segment, to_table
from millpond.serving.log.segments import finished, segments
from millpond.serving.log.tables import table_name

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Drained:
    """What a drain did: segments and predictions moved, and segments set aside as `.torn`."""

    segments: int
    predictions: int
    torn: int


def drain(
    spool: Path,
    write: Callable[[str, pa.Table, str], object],
    columns: Callable[[str], Mapping[str, str]] = lambda _table: {},
) -> Drained:
    """Move the predictions of all finished segments to the lake, each exactly once, oldest segment first.

    One process drains at a time; others wait. A segment is removed after `write` has returned for each of its models.
    A drain that was killed before is repeated with the same rows and the same tokens.

    Args:
        spool: The directory of the prediction log; may be missing.
        write: Takes a table's name (`tables.table_name`), rows of one segment and one model, and their token, and
            makes them durable; with a token that it has seen before it must do nothing.
        columns: The columns of a table: name -> kind; none where it is not there yet. Asked before each `write`.

    Raises:
        Whatever `write` raises; what was not written yet stays in the spool.
    """
    if not spool.is_dir():
        return Drained(0, 0, 0)
    moved = predictions = torn = 0
    with locked(spool / "drain.lock"):
        for path in sorted(spool.glob("*.new")):
            with finished(path) as over:
                if over:
                    path.unlink(missing_ok=True)
        for path in segments(spool):
            with finished(path) as over:
                if not over:
                    continue
                found = read_segment(path)
                for model in found.models():
                    table = table_name(model)
                    write(table, to_table(found, model, columns(table)), f"{path.stem}-{table}")
                if found.has_more:
                    logger.warning("%s held bytes after its last whole record; kept as .torn", path)
                    path.rename(path.with_suffix(".torn"))
                    torn += 1
                else:
                    path.unlink()
                sync_directory(spool)
                moved += 1
                predictions += found.rows
    return Drained(moved, predictions, torn)


def pending(spool: Path, model: str, columns: Mapping[str, str] | None = None) -> pa.Table | None:
    """The predictions of a model that are still in the spool, oldest first; live segments included.

    Args:
        spool: The directory of the prediction log; may be missing.
        model: The model's name.
        columns: The columns of the model's table: name -> kind.

    Returns:
        Rows for the model's table (see `tables`); None where there are none.
    """
    from millpond.serving.log.tables import gathered

    parts = [to_table(each, model, columns or {}) for each in _readable(spool) if model in each.models()]
    return gathered(parts, columns or {}) if parts else None


def pending_by_model(spool: Path) -> dict[str, list[pa.Table]]:
    """Model -> its predictions that are still in the spool, a table a segment; see `pending`."""
    found: dict[str, list[pa.Table]] = {}
    for segment in _readable(spool):
        for model in segment.models():
            found.setdefault(model, []).append(to_table(segment, model))
    return found


def pending_counts(spool: Path) -> dict[str, int]:
    """Model -> number of its predictions that are still in the spool."""
    found: dict[str, int] = {}
    for segment in _readable(spool):
        for model, number in segment.counts().items():
            found[model] = found.get(model, 0) + number
    return found


def find(spool: Path, prediction_id: str) -> tuple[str, pa.Table] | None:
    """The model, and the one row, of a prediction that is still in the spool. Sees what other processes have written.

    A drain puts predictions into the lake before it removes them here, so a caller that asks here first, and then in
    the lake, misses none.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    for segment in _readable(spool, newest_first=True):
        near = segment.holding(prediction_id)
        for model in near.models():
            rows = to_table(near, model)
            rows = rows.filter(pc.equal(rows["prediction_id"], pa.scalar(prediction_id)))
            if rows.num_rows:
                return model, rows.slice(0, 1)
    return None


def _readable(spool: Path, *, newest_first: bool = False) -> Iterator[Segment]:
    for path in reversed(segments(spool)) if newest_first else segments(spool):
        with suppress(FileNotFoundError):
            yield read_segment(path)
