"""The nouns of the online store, and what the platform needs from one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from millpond.core.fingerprints import fingerprint
from millpond.features.plan import Feature, SourceColumn, ViewPlan, reach_of

if TYPE_CHECKING:
    import pyarrow as pa

#: Values of an entity's key columns, in the entity's order; never null.
EntityKey = tuple[Any, ...]


@dataclass(frozen=True)
class OnlineView:
    """A view as an online store knows it: its meaning as plain data, so that any process can keep it up to date.

    Attributes:
        name: The view's name.
        entity: The entity's name.
        entity_keys: Columns that name the entity; with the other columns' Iceberg types in `types`.
        table: The source table.
        row_keys: Columns that identify a row of the table, in order.
        time: Event time column; None where every row is always visible.
        known: Column of the instant a row became known, where that is another column than `time`.
        every: Step of the refresh grid in microseconds; None is live.
        columns: The columns that features are made of.
        features: The features, in order of declaration.
        types: Iceberg type of every column named above.
    """

    name: str
    entity: str
    entity_keys: tuple[str, ...]
    table: str
    row_keys: tuple[str, ...]
    time: str | None
    known: str | None
    every: int | None
    columns: tuple[SourceColumn, ...]
    features: tuple[Feature, ...]
    types: Mapping[str, str]

    @classmethod
    def of(cls, plan: ViewPlan) -> OnlineView:
        """The view of a plan, with the types that its snapshot has."""
        snapshot = plan.pinned.snapshot
        used = {*plan.pinned.view.source_columns}
        return cls(
            name=plan.view,
            entity=plan.pinned.view.entity.name,
            entity_keys=plan.entity_keys,
            table=snapshot.table,
            row_keys=plan.row_keys,
            time=plan.time,
            known=plan.known,
            every=plan.every,
            columns=plan.columns,
            features=plan.features,
            types={column.name: column.type for column in snapshot.columns if column.name in used},
        )

    @cached_property
    def fingerprint(self) -> str:
        """What the view means, types included: 16 hexadecimal digits. Other meaning, other fingerprint."""
        return fingerprint(self.describe())[:16]

    @property
    def reach(self) -> int | None:
        """How long before `t` the oldest event that can matter lies, in microseconds; None is for ever."""
        return reach_of(self.features)

    def describe(self) -> dict[str, Any]:
        """The view as plain data; `restore` reads it back."""
        return asdict(self)

    @classmethod
    def restore(cls, described: Mapping[str, Any]) -> OnlineView:
        """The view that `describe` told of, also after a way through JSON."""
        columns = {each["name"]: SourceColumn(**each) for each in described["columns"]}
        features = tuple(
            Feature(**{**each, "column": columns[each["column"]["name"]] if each["column"] else None})
            for each in described["features"]
        )
        plain = {name: tuple(described[name]) for name in ("entity_keys", "row_keys")}
        return cls(**{**described, **plain, "columns": tuple(columns.values()), "features": features})


class Row(NamedTuple):
    """One row of a view's table, as live state keeps it.

    Attributes:
        time: Event time, microseconds since 1970 UTC; 0 where the view has no time.
        known: When it became known, likewise; equal to `time` where the view names no other column.
        key: Values of the table's key columns.
        values: Values of `OnlineView.columns`; None is null.
    """

    time: int
    known: int
    key: tuple[Any, ...]
    values: tuple[Any, ...]

    @property
    def visible(self) -> int:
        """The row is visible at every `t` greater than this."""
        return max(self.time, self.known)


@dataclass(frozen=True)
class ViewState:
    """What a store holds of a view.

    Attributes:
        view: The view.
        source: Snapshot id of the table that it was last computed or loaded from.
        refreshed_at: When that was finished; UTC.
        position: The last event of the table that is in it; 0 is none.
        grid: For a view with `every`: the grid point that the values belong to. None where the view is live.
        since: For a live view: values are exact at every `t` from here on. None is since ever.
        entities: Number of entities held.
    """

    view: OnlineView
    source: int
    refreshed_at: datetime
    position: int
    grid: datetime | None
    since: datetime | None
    entities: int


class Mark(NamedTuple):
    """What a lookup must know of the state that it reads; instants in microseconds since 1970 UTC.

    Attributes:
        source, position, grid, since: As in `ViewState`.
    """

    source: int
    position: int
    grid: int | None
    since: int | None


class Pushed(NamedTuple):
    """What pushing events did.

    Attributes:
        position: Position of the last of them in the log; the next lookup sees them.
        applied: Events that were new, or changed their row.
        duplicates: Events that said nothing new; they are not logged again.
    """

    position: int
    applied: int
    duplicates: int


class LoggedEvents(NamedTuple):
    """Events that are durable and have not been reported as landed.

    Attributes:
        first: Position of the first of them.
        last: Position of the last of them.
        rows: The events, in order; a key that occurs twice is an older and a newer state of its row.
    """

    first: int
    last: int
    rows: pa.Table


class OnlineReader(Protocol):
    """Reads one committed state of a store. Used by one thread."""

    def state(self, view: OnlineView) -> ViewState | None:
        """What the store holds of exactly this view; None is nothing."""
        ...

    def mark(self, view: OnlineView) -> Mark | None:
        """As `state`, as little of it as each lookup needs."""
        ...

    def values(self, view: OnlineView, keys: Sequence[EntityKey]) -> list[tuple[Any, ...] | None]:
        """The packed values of a view with `every`: one tuple a key, in order of the features; None is unknown.

        Raises:
            DataError: A key is not of the columns' types.
            NotFound: The store holds nothing of the view.
            StoreMismatch: What is stored was packed under another schema, or is of another definition of the view.
        """
        ...

    def columns(self, view: OnlineView, keys: Sequence[EntityKey]) -> list[pa.Array[Any]]:
        """As `values`, for many keys: one array a feature, null where the value is null or the entity unknown.

        Integers and floats have 64 bits, whatever the column's width.
        """
        ...

    def live(self, view: OnlineView, keys: Sequence[EntityKey], at: Sequence[int]) -> list[tuple[Any, ...] | None]:
        """The values of a live view at instants (microseconds since 1970 UTC); None where the entity has no row.

        Equal to `join_features` at the same instants over the rows that the store was given, for instants from the
        state's `since` on.

        Raises:
            DataError, NotFound, StoreMismatch: As in `values`.
        """
        ...


class OnlineStore(Protocol):
    """The newest state of every entity. Several processes read while one at a time writes; kill -9 loses no
    acknowledged write and leaves every other one undone.
    """

    def read(self) -> AbstractContextManager[OnlineReader]: ...

    def states(self) -> list[ViewState]:
        """What is held, by view name."""
        ...

    def load(
        self, view: OnlineView, source: int, since: datetime | None, position: int, rows: pa.RecordBatchReader
    ) -> ViewState:
        """Replace the state of a live view by rows of its table; a killed call leaves the old state whole.

        Args:
            view: A view without `every`.
            source: The snapshot that the rows are from; it holds all events up to `position`.
            since: From here on values will be exact.
            position: As `landed` gave before the snapshot was taken. Later events in the log are applied on top.
            rows: The view's source columns under their names; all rows that matter from `since` on, ordered by the
                entity's keys, then time.

        Raises:
            Conflict: Another is loading or publishing this view, or events after `position` have left the log.
        """
        ...

    def publish(
        self, view: OnlineView, source: int, grid: datetime, rows: pa.RecordBatchReader, *, full: bool
    ) -> ViewState:
        """Put in place the values of a view with `every`, all at once; a killed call leaves the old values whole.

        Args:
            view: A view with `every`.
            source: The snapshot that the values were computed from.
            grid: The grid point that they belong to.
            rows: The entity's keys and one column a feature, named as the feature; one row an entity.
            full: Entities that are not in `rows` are dropped; else they keep their values, which hold at `grid` too.

        Raises:
            Conflict: Another is loading or publishing this view; or not `full`, and the view has a later grid point.
            DataError: A key is null, or values are not of their features' types.
        """
        ...

    def push(self, table: str, key: Sequence[str], rows: pa.Table) -> Pushed:
        """Append events to the table's log and apply them to all live views of it, in one durable step.

        An event whose key is known and whose row is the same in every column is a duplicate and does nothing; one
        with another row replaces it. Rows are in the types of the lake; NaN is null already. A column that they lack is
        null.

        Args:
            table: The table.
            key: Columns of its key.
            rows: The events, in order.

        Raises:
            DataError: The table has no key, or an event has a null in it.
            SchemaMismatch: A column of the key is missing, or one that a live view reads is of another type.
            StoreMismatch: A live view of the table was loaded under another key.
            Unavailable: There is no space; nothing was done.
        """
        ...

    def pending(self, table: str, limit: int = 100_000) -> LoggedEvents | None:
        """The oldest events that have not landed; None where all have."""
        ...

    def landed(self, table: str) -> int:
        """Position up to which the table's events are in the lake; 0 is none."""
        ...

    def land(self, table: str, position: int) -> None:
        """Say that the lake has the events up to `position`; they may leave the log once nothing needs them.

        They stay until the next call at least, so that a load can begin with a snapshot that was taken before this one.
        """
        ...

    def forget(self, entity: str, key: EntityKey) -> int:
        """Delete an entity from all its views and from the log; how many values and rows were deleted.

        To be called after its rows are gone from the lake: what is loaded or published later from a snapshot that still
        has them brings it back, unless it was under way already. Views of other entities keep what they were
        computed from; refresh them in full.
        """
        ...

    def drop(self, view: OnlineView) -> None:
        """Delete all that is held of a view."""
        ...

    def synced_at(self) -> datetime | None:
        """Until when the store is known to have everything that was acknowledged, UTC, where it is a replica that has
        lost its original; None where nothing is missing.
        """
        ...

    def close(self) -> None: ...


class KeyValueReads(Protocol):
    """Ordered bytes, as one transaction sees them."""

    def get(self, key: bytes) -> bytes | None: ...

    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Entries with `start <= key < stop`, in order."""
        ...


class KeyValueWrites(KeyValueReads, Protocol):
    """A transaction that writes; it sees its own writes."""

    def put(self, key: bytes, value: bytes) -> None: ...

    def delete(self, key: bytes) -> None: ...
