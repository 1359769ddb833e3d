"""What the forms share: quoting, and the tables that a view's computation reads."""

from __future__ import annotations

from dataclasses import dataclass

from millpond.features.plan import ViewPlan


def quote(name: str) -> str:
    """A column's or table's name as an identifier."""
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True)
class ViewTables:
    """The temporary tables of one view.

    `events` holds the rows that may matter, of entities that occur in the spine, with both instants non-null:
    eid (entity), us (event time), av (instant from which on it is visible: the greater of time and known), where
    they are needed kn (known) and k0.. (the row's key), and c0.. (the columns features are made of). `points` holds
    each distinct (entity, instant) once: pid, eid, us. Instants are microseconds since the epoch.

    Attributes:
        plan: The view.
        prefix: Of the names of further tables.
        events: As above.
        points: As above.
        tile_rows: As of `DuckDBDialect`.
        is_late: Whether a row became visible after its time.
    """

    plan: ViewPlan
    prefix: str
    events: str
    points: str
    tile_rows: float
    is_late: bool

    def name(self, suffix: str) -> str:
        return f"{self.prefix}_{suffix}"

    @property
    def key_slots(self) -> tuple[str, ...]:
        return tuple(f"k{index}" for index in range(len(self.plan.row_keys)))
