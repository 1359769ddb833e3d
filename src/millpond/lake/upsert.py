"""Replace rows by key: which files of a snapshot hold given keys, and what of them stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from millpond.lake.ports import Engine
from millpond.lake.scan import ScanPlan, scan_sql
from millpond.lake.schema import quoted

if TYPE_CHECKING:
    import pyarrow as pa


def files_with_keys(engine: Engine, plan: ScanPlan, new: ScanPlan, key: Sequence[str]) -> set[str]:
    """The files of `plan` that hold a key of `new`; reads nothing but the key columns."""
    if not plan.files or not new.files:
        return set()
    old_keys, new_keys = (scan_sql(each.only(key), filename=each is plan) for each in (plan, new))
    found = engine.rows(f"SELECT DISTINCT filename FROM {old_keys} AS old SEMI JOIN {new_keys} AS new {_using(key)}")
    return {str(row[0]) for row in found}


def rows_to_keep(engine: Engine, plan: ScanPlan, new: ScanPlan, key: Sequence[str]) -> pa.RecordBatchReader:
    """The rows of `plan` whose key is not in `new`, as a stream."""
    new_keys = scan_sql(new.only(key))
    return engine.reader(f"SELECT * FROM {scan_sql(plan)} AS old ANTI JOIN {new_keys} AS new {_using(key)}")


def _using(key: Sequence[str]) -> str:
    return f"USING ({', '.join(quoted(name) for name in key)})"
