"""The rows of one part of a batch: read, given their features by one join, run through the model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from millpond.core.errors import MillpondError, RequestError, Unavailable
from millpond.core.names import did_you_mean
from millpond.core.time import now
from millpond.lake.parts import Part, part_sql
from millpond.lake.schema import quoted
from millpond.platform.batch_jobs import Manifest
from millpond.platform.batch_receipts import PinnedSnapshots
from millpond.platform.featurizing import lake_featurizer, own_instants
from millpond.platform.runtimes import RUN_ROWS, VersionRuntime
from millpond.platform.versions import LoadedVersion
from millpond.serving.batch import answer_table, output_schema
from millpond.serving.columns import conform
from millpond.serving.ports import ServedModel

if TYPE_CHECKING:
    import pyarrow as pa

    from millpond.lake.duckdb import DuckDBEngine
    from millpond.lake.ports import Engine, Snapshot
    from millpond.lake.scan import ScanPlan


@dataclass(frozen=True)
class Scoring:
    """What all parts of a batch have in common.

    Attributes:
        manifest: What the job has pinned.
        loaded: The version.
        runtime: Runs it.
        compute: Joins features.
        reader: Reads the source.
        source: The snapshot that is scored.
        plan: Its files.
        snapshots: Finds the snapshots that features are read from.
    """

    manifest: Manifest
    loaded: LoadedVersion
    runtime: VersionRuntime
    compute: Engine
    reader: DuckDBEngine
    source: Snapshot
    plan: ScanPlan
    snapshots: PinnedSnapshots

    @cached_property
    def schema(self) -> pa.Schema:
        """Of the table that the batch writes."""
        found = self.reader.schema(self.reader.scan(self.source))
        return output_schema(self.loaded.served, [found.field(name) for name in self.manifest.keys])

    def score(self, part: Part) -> Iterator[pa.Table]:
        """The answers to the rows of a part, in no particular order.

        Raises:
            RequestError: Rows do not fit the model, or name entities that nobody knows and that are refused; numbers
                of rows in it are counted within the part.
            MillpondError: The model failed; names the row.
        """
        rows = self._read(part)
        served = self.loaded.served
        request = conform(rows.select([each.name for each in served.columns if each.name in rows.column_names]), served)
        instants = own_instants(served, request, self.manifest.moment)
        keys = rows.select(list(self.manifest.keys))
        del rows
        count = 0
        featurizer = lake_featurizer(self.loaded, self.compute, self.snapshots)
        for numbers, inputs in featurizer.stream(request, instants):
            for start in range(0, len(numbers), RUN_ROWS):
                chosen = numbers.slice(start, RUN_ROWS)
                yield self._run(part, chosen, inputs.slice(start, RUN_ROWS), keys, instants)
            count += len(numbers)
        if count != part.rows:
            raise MillpondError(f"{count:,} rows came from the join for {part.rows:,}", where=self._where(part.first))

    def _read(self, part: Part) -> pa.Table:
        names = dict.fromkeys((*self.manifest.keys, *_columns(self.loaded.served, self.plan)))
        listed = ", ".join(map(quoted, names))
        return self.reader.reader(f"SELECT {listed} FROM {part_sql(self.plan, part)}").read_all().combine_chunks()

    def _run(
        self, part: Part, numbers: pa.Array[Any], inputs: pa.Table, keys: pa.Table, instants: pa.Array[Any]
    ) -> pa.Table:
        try:
            outputs = self.runtime.predict(inputs)
        except Unavailable:
            raise
        except MillpondError as error:
            failing: Any = numbers[_first_failing(self.runtime, inputs)].as_py()
            raise _at(error, self._where(part.first + failing), keys.slice(failing, 1)) from error
        first, run = part.first, self.manifest.run
        listed: list[Any] = numbers.to_pylist()
        return answer_table(
            self.loaded.served,
            self.schema,
            keys.take(numbers),
            ids=[f"{run}-{first + number}" for number in listed],
            outputs=outputs,
            as_of=instants.take(numbers),
            snapshots=json.dumps(dict(self.manifest.snapshots)),
            predicted_at=now(),
        )

    def _where(self, row: int) -> str:
        return f"row {row} of {self.source}"


def check_columns(served: ServedModel, source: Snapshot) -> None:
    """Refuse a table without a column that the model needs.

    Raises:
        RequestError: There is one.
    """
    there = source.column_names
    for column in served.columns:
        if column.required and column.name not in there:
            hint = did_you_mean(column.name, there, noun=f"columns of {source.table}")
            raise RequestError(f"{source.table} has no column {column.name!r}, which the model needs", hint=hint)


def _columns(served: ServedModel, plan: ScanPlan) -> list[str]:
    there = {column.name for column in plan.columns}
    return [column.name for column in served.columns if column.name in there]


def _first_failing(runtime: VersionRuntime, inputs: pa.Table) -> int:
    """Position of the first row that the model fails for, of rows that it fails for together."""
    start, stop = 0, inputs.num_rows
    while stop - start > 1:
        middle = (start + stop) // 2
        try:
            runtime.predict(inputs.slice(start, middle - start))
        except MillpondError:
            stop = middle
        else:
            start = middle
    return start


def _at(error: MillpondError, where: str, key: pa.Table) -> MillpondError:
    [values] = key.to_pylist() or [{}]
    named = ", ".join(f"{name}={value!r}" for name, value in values.items())
    return type(error)(error.what, where=f"{where}{f' ({named})' if named else ''}", hint=error.hint)
