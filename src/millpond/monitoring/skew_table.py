"""The lake table of measured skew: one row for each measurement and feature."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from millpond.core.time import format_instant, parse_instant
from millpond.lake.ports import Engine, Snapshot, TableReader, TableWriter
from millpond.lake.schema import literal
from millpond.monitoring.report import FeatureSkew, SkewExample, SkewReport

if TYPE_CHECKING:
    import pyarrow as pa

#: The table that keeps measurements.
TABLE = "millpond.skew"

_EXAMPLE_FIELDS = tuple(field.name for field in dataclasses.fields(SkewExample))


def skew_schema() -> pa.Schema:
    """One row a measurement and feature, in the order of the report; `snapshots` and `examples` are JSON.

    Columns are those of `SkewReport` and `FeatureSkew`; `position` is the feature's place in the report, counted
    from 0; instants are UTC microseconds.
    """
    import pyarrow as pa

    instant = pa.timestamp("us", "UTC")
    measured: list[tuple[str, pa.DataType, bool]] = [
        ("measurement", pa.string(), False),
        ("measured_at", instant, False),
        ("measured_by", pa.string(), False),
        ("model", pa.string(), False),
        ("version", pa.int64(), False),
        ("predictions", pa.int64(), False),
        ("looked_at", pa.int64(), False),
        ("sample", pa.int64(), True),
        ("since", instant, True),
        ("until", instant, True),
        ("newest", instant, False),
        ("snapshots", pa.string(), False),
        ("position", pa.int64(), False),
        ("feature", pa.string(), False),
        ("view", pa.string(), False),
        ("meaning", pa.string(), False),
        ("tolerance", pa.float64(), False),
        ("compared", pa.int64(), False),
        ("equal", pa.int64(), False),
        ("different", pa.int64(), False),
        ("only_served", pa.int64(), False),
        ("only_recomputed", pa.int64(), False),
        ("missing", pa.int64(), False),
        ("largest_absolute", pa.float64(), True),
        ("largest_relative", pa.float64(), True),
        ("reason", pa.string(), False),
        ("examples", pa.string(), False),
    ]
    return pa.schema([pa.field(name, kind, nullable=nullable) for name, kind, nullable in measured])


def store(lake: TableWriter, report: SkewReport) -> Snapshot:
    """Append a measurement: whole or not at all, and once however often it is repeated."""
    return lake.append(TABLE, to_arrow(report), token=report.id)


def newest(lake: TableReader, engine: Engine, model: str, version: int | None = None) -> SkewReport | None:
    """The newest stored measurement of a model, or of one of its versions; None where there is none."""
    if not lake.exists(TABLE):
        return None
    snapshot = lake.snapshot(TABLE)
    relation = engine.scan(snapshot)
    chosen = f"model = {literal(model)}" + (f" AND version = {version}" if version is not None else "")
    last = f"SELECT measurement FROM {relation} WHERE {chosen} ORDER BY measured_at DESC, measurement DESC LIMIT 1"
    rows = engine.rows(f"SELECT * FROM {relation} WHERE measurement = ({last}) ORDER BY position")
    found = [dict(zip(snapshot.column_names, row, strict=True)) for row in rows]
    return from_rows(found) if found else None


def to_arrow(report: SkewReport) -> pa.Table:
    """A measurement as rows of `skew_schema()`."""
    import pyarrow as pa

    schema = skew_schema()
    head = {name: getattr(report, name) for name in schema.names if hasattr(report, name)}
    head |= {"measurement": report.id, "snapshots": json.dumps(dict(report.snapshots))}
    rows = [
        head
        | {name: getattr(feature, name) for name in schema.names if hasattr(feature, name)}
        | {"position": position, "examples": json.dumps([_plain(each) for each in feature.examples])}
        for position, feature in enumerate(report.features)
    ]
    return pa.Table.from_pylist(rows, schema=schema)


def from_rows(rows: list[dict[str, Any]]) -> SkewReport:
    """The rows of one measurement, in order, as the measurement again."""
    first = rows[0]
    names = [field.name for field in dataclasses.fields(SkewReport)]
    head = {name: first[name] for name in names if name in first}
    return SkewReport(
        **head
        | {
            "id": first["measurement"],
            "snapshots": json.loads(first["snapshots"]),
            "features": tuple(_feature(row) for row in rows),
        }
    )


def _feature(row: dict[str, Any]) -> FeatureSkew:
    values = {field.name: row[field.name] for field in dataclasses.fields(FeatureSkew)}
    return FeatureSkew(**values | {"examples": tuple(_example(each) for each in json.loads(row["examples"]))})


def _plain(example: SkewExample) -> dict[str, Any]:
    values = {name: getattr(example, name) for name in _EXAMPLE_FIELDS}
    return {name: format_instant(each) if isinstance(each, datetime) else each for name, each in values.items()}


def _example(values: dict[str, Any]) -> SkewExample:
    plain: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in values.items()}
    return SkewExample(**plain | {"as_of": parse_instant(plain["as_of"])})
