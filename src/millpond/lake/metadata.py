"""What the lake reads off Iceberg's metadata."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from millpond.core.errors import DataError
from millpond.core.names import NAME_RULE, is_name
from millpond.lake.catalog import table_name
from millpond.lake.ports import Snapshot
from millpond.lake.schema import columns_of

if TYPE_CHECKING:
    from pyiceberg.schema import Schema
    from pyiceberg.table import Table as IcebergTable
    from pyiceberg.types import IcebergType

#: What the writer said of a snapshot is kept in its summary under this prefix.
PROPERTY = "millpond."

#: Under which token a snapshot was written.
TOKEN = "millpond-token"  # noqa: S105 - names a write, opens nothing


def properties_of(summary: Mapping[str, str]) -> dict[str, str]:
    """What the writer said of a snapshot, by the snapshot's summary."""
    return {name.removeprefix(PROPERTY): value for name, value in summary.items() if name.startswith(PROPERTY)}


def refuse_name(table: str) -> None:
    parts = table.split(".")
    if len(parts) > 2 or not all(is_name(part) for part in parts):
        raise DataError(f'"{table}" cannot name a table', hint=f"{NAME_RULE}; one dot may part it in two")


def ordered(loaded: IcebergTable) -> list[Any]:
    return sorted(loaded.metadata.snapshots, key=lambda each: each.sequence_number or 0)


def committed_at(snapshot: Any) -> datetime:
    return datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC)


def schema_of(loaded: IcebergTable, snapshot: Any) -> Schema:
    return next(each for each in loaded.metadata.schemas if each.schema_id == snapshot.schema_id)


def types_of(schema: Schema) -> dict[str, IcebergType]:
    return {field.name: field.field_type for field in schema.fields}


def renamed(loaded: IcebergTable, schema: Schema) -> frozenset[str]:
    """Columns of a schema whose name meant another column, or that had another name, in any schema of the table."""
    ever = {(field.name.lower(), field.field_id) for each in loaded.metadata.schemas for field in each.fields}
    return frozenset(
        field.name
        for field in schema.fields
        if any((field.name.lower() == name) != (field.field_id == id) for name, id in ever)
    )


def live_files(loaded: IcebergTable, snapshot: Any) -> list[Any]:
    from pyiceberg.manifest import ManifestContent

    files = []
    for manifest in snapshot.manifests(loaded.io):
        if manifest.content != ManifestContent.DATA:
            raise DataError(
                f'Table "{table_name(loaded.name())}" holds delete files, written by another tool',
                hint="rewrite the table with that tool (copy on write) before it is read here",
            )
        files += [entry.data_file for entry in manifest.fetch_manifest_entry(loaded.io, discard_deleted=True)]
    return files


def to_snapshot(table: str, loaded: IcebergTable, snapshot: Any) -> Snapshot:
    summary = snapshot.summary
    said = dict(summary.additional_properties) if summary is not None else {}
    return Snapshot(
        table=table,
        id=snapshot.snapshot_id,
        committed_at=committed_at(snapshot),
        rows=int(said.get("total-records", 0)),
        columns=columns_of(schema_of(loaded, snapshot)),
        operation=summary.operation.value if summary is not None else "append",
        properties=properties_of(said),
    )
