"""What the forms share: the relations that a view's computation reads, and its windows."""

from __future__ import annotations

from dataclasses import dataclass

from millpond.features.assembly import select_list
from millpond.features.plan import Feature, ViewPlan


@dataclass(frozen=True)
class ViewTables:
    """The relations of one view.

    `events` holds the rows that may matter, of entities that occur in the spine, with both instants non-null: eid
    (entity), us (event time), av (instant from which on it is visible: the greater of time and known), r (1), and
    where they are needed kn (known), k0.. (the row's key) and c0.. (the columns features are made of). `points`
    holds each distinct (entity, instant) once: pid, eid, us. Instants are microseconds since the epoch.

    Attributes:
        plan: The view.
        prefix: Of the names of further relations.
        events: As above.
        points: As above.
        values: The columns of `events` beside eid, us, av and r.
    """

    plan: ViewPlan
    prefix: str
    events: str
    points: str
    values: tuple[str, ...]

    def name(self, suffix: str) -> str:
        return f"{self.prefix}_{suffix}"

    @property
    def nothing(self) -> str:
        """The marker of events and their values as a point has them: null."""
        return select_list("NULL AS r", [f"NULL AS {value}" for value in self.values])


@dataclass(frozen=True)
class Window:
    """Features over the same stretch of time before a point.

    Attributes:
        number: Its own within the view.
        over: Its length in microseconds; None is all that is visible.
        features: The features.
    """

    number: int
    over: int | None
    features: tuple[Feature, ...]
