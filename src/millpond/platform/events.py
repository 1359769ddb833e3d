"""Pushed events: durable and in the next lookup when they are acknowledged, in the lake soon after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from millpond.core.errors import Conflict, NotFound, RequestError, Unavailable
from millpond.core.time import Duration, now
from millpond.definitions.tables import Table
from millpond.lake.ports import Snapshot
from millpond.platform.alone import alone
from millpond.platform.platform import Platform
from millpond.platform.progress import step

if TYPE_CHECKING:
    import pyarrow as pa

#: Landing lets older snapshots of a table go, so that it stays fast: all but the newest, and those that are pinned.
_KEPT_SNAPSHOTS = 30

#: Most events of one request, and of one landing.
MOST = 100_000


@dataclass(frozen=True)
class Acknowledged:
    """What became of pushed events.

    Attributes:
        table: The table.
        position: Position of the last of them in the log; lookups see everything up to it.
        applied: Events that were new, or changed their row.
        duplicates: Events that said nothing new.
    """

    table: str
    position: int
    applied: int
    duplicates: int


def push(platform: Platform, name: str, rows: Sequence[Mapping[str, Any]] | pa.Table) -> Acknowledged:
    """Push events into a table. When this returns they are durable, and the next lookup sees them.

    All or nothing. An event with a key that the table has replaces that row; the same event again does nothing. They
    reach the lake by `land`, which a running platform does every few seconds, and training before it reads.

    Args:
        platform: The project.
        name: A declared table with a key. It is made in the lake by its first events where it does not exist.
        rows: Records of plain values (instants as ISO 8601 text), or Arrow data.

    Raises:
        NotFound: No such table is declared.
        DataError: An event lacks its key or time, lies in the future, or comes later than the table allows.
        SchemaMismatch: An event has an unknown column, or a value that does not fit.
        Unavailable: The events could not be made durable; none was taken.
    """
    from millpond.lake.events import Limits, conform_events

    table = platform.definitions.table(name)
    count = len(rows) if isinstance(rows, Sequence) else rows.num_rows
    if count == 0:
        raise RequestError("There are no events", where=table.subject, hint="send at least one")
    if count > MOST:
        raise RequestError(
            f"{count:,} events at once are more than {MOST:,}", where=table.subject, hint="send them in parts"
        )
    snapshot = _snapshot(platform, table, rows)
    limits = Limits(now(), _oldest(platform, table, snapshot))
    conformed = conform_events(table, snapshot.columns, rows, limits)
    done = platform.online.push(name, table.keys, conformed)
    return Acknowledged(name, done.position, done.applied, done.duplicates)


def land(platform: Platform, names: Iterable[str] | None = None) -> dict[str, Snapshot]:
    """Write what was pushed until now into its tables in the lake (default: all tables); the snapshots that were made.

    Killed at any point, it is repeated by the next call, and each event is in its table once.

    Raises:
        Unavailable: The shared store does not answer.
        Conflict: Another server is landing the same events.
    """
    from millpond.lake.events import land as land_rows

    made: dict[str, Snapshot] = {}
    if not platform.has_online:
        return made
    for name in names if names is not None else list(platform.definitions.tables):
        table = platform.definitions.tables.get(name)
        if table is None or not table.keys or platform.online.pending(name, limit=1) is None:
            continue
        with alone(platform, f"table-{name}"):
            while (pending := platform.online.pending(name, limit=MOST)) is not None:
                made[name] = land_rows(platform.lake, table, pending.rows, f"{pending.first}-{pending.last}")
                platform.online.land(name, pending.last)
                if pending.rows.num_rows < MOST:  # what came meanwhile can wait; there may be no end of it
                    break
            _tidy(platform, name)
    return made


def _tidy(platform: Platform, name: str) -> None:
    """Merge the small files that landing makes, and let old snapshots go, now and then."""
    if len(platform.lake.history(name)) > 2 * _KEPT_SNAPSHOTS:
        platform.lake.compact(name)
        platform.lake.expire(name, keep_last=_KEPT_SNAPSHOTS, older_than=timedelta(minutes=10))


def land_or_wait(platform: Platform, names: Iterable[str] | None = None) -> bool:
    """As `land`, for those who go on without: whether all has landed.

    Events stay in the log while the shared store does not answer, or while another server lands them.
    """
    try:
        land(platform, names)
    except (Unavailable, Conflict) as error:
        with step(platform.listener, "land events") as current:
            current.detail = f"later: {error.what}"
        return False
    return True


def _snapshot(platform: Platform, table: Table, rows: Sequence[Mapping[str, Any]] | pa.Table) -> Snapshot:
    """The table as it is in the lake; made empty by its first events."""
    from millpond.lake.events import empty_events

    try:
        return platform.snapshots.of(table.name)
    except NotFound:
        if table.derivation is not None:
            raise
    with alone(platform, f"table-{table.name}"):
        if not platform.lake.exists(table.name):
            platform.lake.append(table.name, empty_events(table, rows))
    return platform.lake.snapshot(table.name)


def _oldest(platform: Platform, table: Table, snapshot: Snapshot) -> datetime | None:
    """The oldest event time that the table takes."""
    if table.lateness is None or table.time is None:
        return None
    with platform.engine() as engine:
        newest: datetime | None = engine.rows(f'SELECT max("{table.time}") FROM {engine.scan(snapshot)}')[0][0]
    return newest - Duration.parse(table.lateness).delta if newest is not None else None
