"""Committing a change of a table: optimistic, re-run on the newest state when another writer was first."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from millpond.core.errors import Conflict
from millpond.lake.catalog import file_lock, identifier

if TYPE_CHECKING:
    from pyiceberg.schema import Schema
    from pyiceberg.table import Table as IcebergTable
    from pyiceberg.table import Transaction

_ATTEMPTS = 12
_LONGEST_WAIT_SECONDS = 2.0
_TABLE_PROPERTIES = {
    "commit.retry.num-retries": "0",
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "20",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
}

T = TypeVar("T")


def lock_of(root: Path, table: str) -> Path:
    """The file that writers of a table lock."""
    return root / "locks" / f"{'.'.join(identifier(table))}.lock"


def retrying(root: Path, table: str, attempt: Callable[[], T]) -> T:
    """Run `attempt` while holding the table's lock, again from the start each time another writer was first.

    The lock spares writers of this lake from conflicts; what keeps the table whole is that a commit is refused when
    the state it was made for is no longer the newest.

    Raises:
        Conflict: Others were first in every attempt; nothing was written.
    """
    from pyiceberg.exceptions import CommitFailedException, TableAlreadyExistsError, ValidationException
    from sqlalchemy.exc import OperationalError

    cause: Exception | None = None
    for number in range(_ATTEMPTS):
        if number:
            longest = min(0.05 * 2**number, _LONGEST_WAIT_SECONDS)
            time.sleep(random.uniform(0, longest))  # noqa: S311 - spreads writers
        with file_lock(lock_of(root, table)):
            try:
                return attempt()
            except (CommitFailedException, ValidationException, TableAlreadyExistsError, OperationalError) as error:
                cause = error
    raise Conflict(
        f'Table "{table}" was changed by other writers {_ATTEMPTS} times in a row',
        hint="nothing was written; run it again when there are fewer writers",
    ) from cause


def begin(catalog: Any, table: str, loaded: IcebergTable | None, schema: Schema) -> Transaction:
    """A transaction that makes the table, or gives it `schema` where that is not the one it has."""
    from pyiceberg.table.update import AddSchemaUpdate, AssertCurrentSchemaId, SetCurrentSchemaUpdate

    if loaded is None:
        namespace, name = identifier(table)
        catalog.create_namespace_if_not_exists(namespace)
        created: Transaction = catalog.create_table_transaction(
            (namespace, name), schema, properties=dict(_TABLE_PROPERTIES)
        )
        return created
    transaction = _transaction(loaded)
    if schema is not loaded.schema():
        highest = max(each.schema_id for each in loaded.metadata.schemas)
        added = schema.model_copy(update={"schema_id": highest + 1})
        transaction._apply(
            (AddSchemaUpdate(schema=added), SetCurrentSchemaUpdate(schema_id=-1)),
            (AssertCurrentSchemaId(current_schema_id=loaded.metadata.current_schema_id),),
        )
    return transaction


def _transaction(loaded: IcebergTable) -> Transaction:
    """A transaction that works its metadata out once a change.

    PyIceberg's own copies all snapshots each time it is asked, some fifteen times a commit: at 300 snapshots an
    append then takes fifteen times as long as at the first.
    """
    from pyiceberg.table import Transaction

    class OnceTransaction(Transaction):  # type: ignore[misc]
        _known: tuple[object, object, Any] = (None, None, None)

        @property
        def table_metadata(self) -> Any:
            if not self._updates:
                return self._table.metadata
            base, updates, known = self._known
            if known is None or base is not self._table.metadata or updates is not self._updates:
                known = super().table_metadata
                self._known = (self._table.metadata, self._updates, known)
            return known

    return OnceTransaction(loaded)


def commit_files(
    transaction: Transaction, *, added: list[Any], removed: list[Any], replace: bool, summary: Mapping[str, str]
) -> tuple[IcebergTable, Any]:
    """Commit one snapshot that adds and removes data files; the table after it, and the snapshot.

    Args:
        transaction: Made by `begin`.
        added: Data files to add.
        removed: Data files of the current snapshot to remove.
        replace: Whether the snapshot is an overwrite even if it removes nothing.
        summary: What is kept with the snapshot.
    """
    update = transaction.update_snapshot(snapshot_properties=dict(summary))
    producer = update.overwrite() if removed or replace else update.merge_append()
    for file in removed:
        producer.delete_data_file(file)
    for file in added:
        producer.append_data_file(file)
    producer.commit()
    committed = transaction.commit_transaction()
    return committed, committed.metadata.snapshot_by_id(producer.snapshot_id)
