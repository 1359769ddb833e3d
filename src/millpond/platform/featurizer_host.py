"""The featurizer process of a version: raw inputs for request rows, with the version's own code.

Started as `python -m millpond.platform.featurizer_host --project FOLDER --profile NAME --model NAME --version N`; it
speaks with the process that started it as `serving.lanes` describes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millpond.core.time import from_microseconds, to_microseconds
from millpond.lake.current import CurrentSnapshots
from millpond.platform import versions
from millpond.platform.events import land_or_wait
from millpond.platform.featurizing import GivenInputs, lake_featurizer
from millpond.platform.online_featurizing import OnlineFeaturizer
from millpond.platform.platform import Platform, open_project
from millpond.platform.versions import LoadedVersion
from millpond.serving.columns import conform, request_schema
from millpond.serving.engine.ports import AS_OF
from millpond.serving.lanes.host import Handler, serve
from millpond.serving.ports import Featurizer, ServedModel
from millpond.serving.rows import Rows, concatenate

if TYPE_CHECKING:
    from millpond.lake.duckdb import DuckDBEngine


def open_featurizer(platform: Platform, loaded: LoadedVersion, engine: DuckDBEngine, *, online: bool) -> Featurizer:
    """The featurizer of a version; without `online` it computes everything from the lake, which suits many rows."""
    snapshots = CurrentSnapshots(platform.lake)
    lake = lake_featurizer(loaded, engine, snapshots)
    if isinstance(lake, GivenInputs) or not online or not loaded.views:
        return lake
    return OnlineFeaturizer(
        lake, platform.online, snapshots, platform.lineage, lambda tables: land_or_wait(platform, tables)
    )


def handler(featurizer: Featurizer, served: ServedModel) -> Handler:
    """What answers a batch: request rows with the instant asked for (or null) in, raw inputs with the instant out."""

    def handle(rows: Rows) -> tuple[Rows, Mapping[str, Any]]:
        asked = rows.columns[AS_OF]
        wanted = sorted({each for each in asked if each is not None}) + ([None] if None in asked else [])
        if len(wanted) == 1:
            return _featurize(featurizer, served, rows, wanted[0])
        parts: list[Rows] = []
        places: list[int] = []
        meta: Mapping[str, Any] = {}
        for instant in wanted:
            chosen = [index for index, each in enumerate(asked) if each == instant]
            part, meta = _featurize(featurizer, served, _take(rows, chosen), instant)
            parts.append(part)
            places += chosen
        together = concatenate(parts)
        order = sorted(range(len(places)), key=places.__getitem__)
        return _take(together, order), meta

    return handle


def _take(rows: Rows, places: list[int]) -> Rows:
    return Rows(len(places), rows.names, tuple([column[place] for place in places] for column in rows.columns.values()))


def _featurize(
    featurizer: Featurizer, served: ServedModel, rows: Rows, as_of: int | None
) -> tuple[Rows, Mapping[str, Any]]:
    present = set(rows.names) - {AS_OF}
    schema = request_schema([column for column in served.columns if column.name in present])
    table = conform(rows.to_arrow(schema), served)
    found = featurizer.featurize(table, None if as_of is None else from_microseconds(as_of))
    inputs = Rows.from_arrow(found.inputs)
    instants = [to_microseconds(each) for each in found.as_of]
    meta = {
        "snapshots": dict(found.snapshots),
        "events": dict(found.events),
        "synced_at": None if found.synced_at is None else to_microseconds(found.synced_at),
    }
    return Rows(inputs.count, (*inputs.names, AS_OF), (*inputs.given, instants)), meta


def main() -> None:
    """Answer batches until whoever started this ends."""
    parser = argparse.ArgumentParser(description="Make raw inputs of request rows.")
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--profile", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--version", type=int, required=True)
    arguments = parser.parse_args()

    def load() -> Handler:
        platform = open_project(arguments.project, profile=arguments.profile)
        loaded = versions.load(platform, platform.store.version(arguments.model, arguments.version))
        return handler(open_featurizer(platform, loaded, platform.new_engine(), online=True), loaded.served)

    sys.exit(serve(load))


if __name__ == "__main__":
    main()
