"""Predictions that a batch made: found in the table that it wrote, with their inputs looked up again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from millpond.lake.ports import Snapshot, TableReader
from millpond.platform import versions
from millpond.platform.featurizing import lake_featurizer
from millpond.platform.platform import Platform
from millpond.serving.ports import OUTPUT, Prediction, ServedModel, first_number

if TYPE_CHECKING:
    import pyarrow as pa

    from millpond.lake.duckdb import DuckDBEngine

#: Property of a snapshot that a batch wrote: the snapshot of the table that it scored, as "table@id".
SCORED = "scored"


class PinnedSnapshots:
    """The snapshots that a prediction was made from, in place of the current ones."""

    def __init__(self, lake: TableReader, numbers: Mapping[str, int]) -> None:
        self._lake = lake
        self._numbers = numbers

    def of(self, table: str) -> Snapshot:
        return self._lake.snapshot(table, self._numbers[table])


def pin_for_receipts(platform: Platform, read: Mapping[str, int]) -> None:
    """Keep the snapshots that a batch read (table -> snapshot id) from expiry, for its receipts."""
    for table, number in read.items():
        platform.lake.pin(platform.lake.snapshot(table, number), f"receipts-{number}")


def find_in_batches(platform: Platform, prediction_id: str) -> Prediction | None:
    """A prediction in one of the tables that batches wrote; None where there is none of that id.

    A batch logs no inputs: they are what the features of the pinned snapshots give today.
    """
    quoted = prediction_id.replace("'", "''")
    for name in platform.lake.tables():
        snapshot = platform.lake.snapshot(name)
        if SCORED in snapshot.properties:
            with platform.engine() as engine:
                clause = f"WHERE prediction_id = '{quoted}'"
                rows = engine.rows(f"SELECT * FROM {engine.scan(snapshot)} {clause}")
            if rows:
                return _prediction(platform, snapshot, dict(zip(snapshot.column_names, rows[0], strict=True)))
    return None


def _prediction(platform: Platform, batch: Snapshot, row: Mapping[str, Any]) -> Prediction:
    from millpond.serving.batch import model_outputs, output_columns
    from millpond.serving.columns import conform

    version = platform.store.version(row["model"], row["version"])
    loaded = versions.load(platform, version)
    served = loaded.served
    keys = [name for name in batch.column_names if name not in output_columns(served)]
    snapshots: dict[str, int] = json.loads(row["snapshots"])
    with platform.engine() as engine:
        request = _request(platform, engine, served, batch, keys, row["prediction_id"])
        inputs: Mapping[str, Any] = {}
        if request.num_rows:
            featurizer = lake_featurizer(loaded, engine, PinnedSnapshots(platform.lake, snapshots))
            inputs = featurizer.featurize(conform(request, served), row["as_of"]).inputs.to_pylist()[0]
    outputs = {source: row[name] for name, source in model_outputs(served).items()}
    return Prediction(
        id=row["prediction_id"],
        model=version.model,
        version=version.number,
        predicted_at=row["predicted_at"],
        as_of=row["as_of"],
        requested_by=batch.properties.get("requested_by", ""),
        output=first_number(outputs),
        answer=row["answer"] if served.task == "classification" else None,
        request=request.to_pylist()[0] if request.num_rows else {},
        inputs=inputs,
        snapshots=snapshots,
        latency_ms=0.0,
        outputs=outputs if served.outputs != (OUTPUT,) else {},
    )


def _request(
    platform: Platform, engine: DuckDBEngine, served: ServedModel, batch: Snapshot, keys: Sequence[str], id: str
) -> pa.Table:
    """The request columns of the row that a prediction was made for; no row where it cannot be told which that is."""
    table, _, number = batch.properties[SCORED].rpartition("@")
    source = platform.lake.snapshot(table, int(number))
    listed = ", ".join(f'source."{each.name}"' for each in served.columns if each.name in source.column_names)
    on = " AND ".join(f'source."{key}" IS NOT DISTINCT FROM scored."{key}"' for key in keys) or "false"
    return engine.reader(
        f"SELECT {listed} FROM {engine.scan(source)} AS source JOIN {engine.scan(batch)} AS scored ON {on} "
        f"WHERE scored.prediction_id = '{id}'"
    ).read_all()
