"""Predictions that a batch made: found in the table that it wrote, with their inputs looked up again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from millpond.lake.ports import Snapshot, TableReader
from millpond.platform import versions
from millpond.platform.featurizing import LakeFeaturizer
from millpond.platform.platform import Platform
from millpond.serving.ports import Prediction

#: Property of a snapshot that a batch wrote: the snapshot of the table that it scored, as "table@id".
SCORED = "scored"


class PinnedSnapshots:
    """The snapshots that a prediction was made from, in place of the current ones."""

    def __init__(self, lake: TableReader, numbers: Mapping[str, int]) -> None:
        self._lake = lake
        self._numbers = numbers

    def of(self, table: str) -> Snapshot:
        return self._lake.snapshot(table, self._numbers[table])


def pin_sources(platform: Platform, scored: Snapshot) -> None:
    """Keep the snapshots that a batch read from expiry, for its receipts."""
    with platform.engine() as engine:
        found = engine.rows(f"SELECT DISTINCT snapshots FROM {engine.scan(scored)}")
    used = {(table, number) for (text,) in found for table, number in json.loads(text).items()}
    table, _, number = scored.properties[SCORED].rpartition("@")
    for name, identifier in {*used, (table, int(number))}:
        platform.lake.pin(platform.lake.snapshot(name, identifier), f"receipts-{identifier}")


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
    from millpond.serving.batch import output_columns
    from millpond.serving.columns import conform

    version = platform.store.version(row["model"], row["version"])
    loaded = versions.load(platform, version)
    served = loaded.served
    table, _, number = batch.properties[SCORED].rpartition("@")
    source = platform.lake.snapshot(table, int(number))
    keys = [name for name in batch.column_names if name not in output_columns(served)]
    columns = [column.name for column in served.columns if column.name in source.column_names]
    snapshots: dict[str, int] = json.loads(row["snapshots"])
    as_of = row["as_of"]
    with platform.engine() as engine:
        listed = ", ".join(f'source."{name}"' for name in columns)
        on = " AND ".join(f'source."{key}" IS NOT DISTINCT FROM scored."{key}"' for key in keys) or "false"
        request = engine.reader(
            f"SELECT {listed} FROM {engine.scan(source)} AS source JOIN {engine.scan(batch)} AS scored ON {on} "
            f"WHERE scored.prediction_id = '{row['prediction_id']}'"
        ).read_all()
        featurizer = LakeFeaturizer(loaded.model, served, engine, PinnedSnapshots(platform.lake, snapshots))
        inputs = featurizer.featurize(conform(request, served), as_of).inputs.to_pylist() if request.num_rows else [{}]
    return Prediction(
        id=row["prediction_id"],
        model=version.model,
        version=version.number,
        predicted_at=row["predicted_at"],
        as_of=as_of,
        requested_by=batch.properties.get("requested_by", ""),
        output=row["probability" if served.task == "classification" else "prediction"],
        answer=row.get("answer"),
        request=request.to_pylist()[0] if request.num_rows else {},
        inputs=inputs[0],
        snapshots=snapshots,
        latency_ms=0.0,
    )
