"""Features for requests without leaving the event loop: from the local online store, where it has them exactly.

Everything else (user code, the lake, entities that nobody knows) is the featurizer process's, which answers with the
same values.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from millpond.core.errors import DataError, MillpondError, NotFound, StoreMismatch
from millpond.core.time import to_microseconds
from millpond.features.online.ports import Mark, OnlineReader, OnlineStore, OnlineView
from millpond.lake.lineage import Lineage
from millpond.platform.inline_inputs import InputAssembly
from millpond.serving.engine.ports import Featured
from millpond.serving.ports import ServedModel
from millpond.serving.rows import Column, Rows

#: Seconds between two looks at the lake's tables.
LOOK_EVERY = 0.5

#: Seconds for which what was seen of a table counts.
BELIEVED = 3.0

#: Seconds after which a table that no lookup has asked for is not looked at any more.
WANTED = 60.0

_log = logging.getLogger("millpond.serving")


class InlineView(NamedTuple):
    """A view as a lookup needs it.

    Attributes:
        view: The view, with the types that its table had when the version was deployed.
        refuses: Whether an entity that no view knows must be looked for in the lake.
        oldest: Age in microseconds beyond which values of a replica that lost its original are refused; None is none.
    """

    view: OnlineView
    refuses: bool
    oldest: int | None


class TableWatch:
    """Sees in a thread of its own whether anything but pushed events has come into the tables that views are of.

    Args:
        lineage: By what the tables were changed; used by that thread alone.
        store: The online store.
    """

    def __init__(self, lineage: Lineage, store: OnlineStore) -> None:
        self._lineage = lineage
        self._store = store
        self._seen: dict[tuple[str, int], tuple[float, bool]] = {}
        self._wanted: dict[tuple[str, int], float] = {}
        self._woken = threading.Event()
        self._stopped = False
        self.synced_at: int | None = None
        self._thread = threading.Thread(target=self._run, name="watch of tables", daemon=True)
        self._thread.start()

    def only_events_since(self, table: str, source: int) -> bool:
        """Whether that is known to be so, within the last seconds; asked for the first time, it is not known yet."""
        return self.seen(table, source) or False

    def seen(self, table: str, source: int) -> bool | None:
        """As `only_events_since`; None where nobody has looked within the last seconds."""
        key, moment = (table, source), time.monotonic()
        if key not in self._wanted:
            self._woken.set()
        self._wanted[key] = moment
        looked, found = self._seen.get(key, (float("-inf"), False))
        return found if moment - looked < BELIEVED else None

    def close(self) -> None:
        self._stopped = True
        self._woken.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopped:
            self._woken.clear()
            try:
                synced = self._store.synced_at()
                self.synced_at = None if synced is None else to_microseconds(synced)
            except MillpondError as error:
                _log.warning("the online store does not say whether it is complete: %s", error)
            for key, asked in list(self._wanted.items()):
                if time.monotonic() - asked > WANTED:
                    self._wanted.pop(key, None)
                    self._seen.pop(key, None)
                else:
                    self._look(*key)
            self._woken.wait(LOOK_EVERY)

    def _look(self, table: str, source: int) -> None:
        asked = time.monotonic()
        try:
            self._seen[table, source] = (asked, self._lineage.only_landed_since(table, source))
        except Exception as error:
            _log.warning("table %s cannot be looked at: %s", table, error)


class InlineFeatures:
    """Implements `serving.engine.ports.InlineFeatures`. Used in the thread of one event loop.

    Args:
        served: The version.
        views: Its views.
        store: The online store.
        watch: Says whether the store's source is still the table.
    """

    def __init__(self, served: ServedModel, views: Sequence[InlineView], store: OnlineStore, watch: TableWatch) -> None:
        self._at = served.at
        self._views = [(found, tuple(0 if each.is_count else None for each in found.view.features)) for found in views]
        self._store = store
        self._watch = watch
        self._inputs = InputAssembly(served, [each.view for each in views])
        self._marks: list[Mark] = []
        self._snapshots: dict[str, int] = {}
        self._events: dict[str, int] = {}

    @property
    def warm(self) -> bool | None:
        """Whether lookups of entities that are known succeed now; None where it will be known in a moment."""
        with self._store.read() as reader:
            marks = [reader.mark(each.view) for each, _ in self._views]
        seen = [
            self._watch.seen(each.view.table, mark.source) if mark is not None else False
            for (each, _), mark in zip(self._views, marks, strict=True)
        ]
        return None if None in seen and False not in seen else all(seen)

    def look_up(self, rows: Rows, as_of: int | None) -> Featured | None:
        """See `serving.engine.ports.InlineFeatures`."""
        instants = self._instants(rows, as_of)
        first, last = (min(instants), max(instants)) if rows.count > 1 else (instants[0], instants[0])
        marks: list[Mark] = []
        found: list[Sequence[tuple[Any, ...]]] = []
        try:
            with self._store.read() as reader:
                for view, nothing in self._views:
                    mark = reader.mark(view.view)
                    if mark is None or not self._holds(view, mark, first, last):
                        return None
                    values = _values(reader, view, nothing, rows, instants)
                    if values is None:
                        return None
                    marks.append(mark)
                    found.append(values)
        except (DataError, NotFound, StoreMismatch):
            return None
        if marks != self._marks:
            self._remember(marks)
        inputs = self._inputs.assemble(rows, found)
        return Featured(inputs, instants, self._snapshots, self._events, self._watch.synced_at)

    def _instants(self, rows: Rows, as_of: int | None) -> list[int]:
        if as_of is not None:
            return [as_of] * rows.count
        moment = time.time_ns() // 1000
        own = rows.column(self._at) if self._at is not None else None
        if own is None:
            return [moment] * rows.count
        return [moment if each is None or each > moment else each for each in own]

    def _holds(self, found: InlineView, mark: Mark, first: int, last: int) -> bool:
        """Whether a state has a view's values exactly, at all instants from the first to the last."""
        view = found.view
        watch = self._watch
        if not watch.only_events_since(view.table, mark.source):
            return False
        synced = watch.synced_at
        if synced is not None and found.oldest is not None and time.time_ns() // 1000 - synced > found.oldest:
            return False
        every = view.every
        if every is None:
            return mark.since is None or first >= mark.since
        return first // every * every == mark.grid == last // every * every

    def _remember(self, marks: list[Mark]) -> None:
        """Note what is read, which stays the same for most lookups."""
        tables = [each.view.table for each, _ in self._views]
        self._snapshots = {table: mark.source for table, mark in zip(tables, marks, strict=True)}
        self._events = {table: mark.position for table, mark in zip(tables, marks, strict=True)}
        self._marks = marks


def _values(
    reader: OnlineReader, found: InlineView, nothing: tuple[Any, ...], rows: Rows, instants: Sequence[int]
) -> Sequence[tuple[Any, ...]] | None:
    """The values of a view's features, a row each; None where only the lake can tell.

    Args:
        reader: Reads the store.
        found: The view.
        nothing: The values for an entity that has none.
        rows: The request's rows.
        instants: The instant of each.
    """
    view = found.view
    columns: list[Column] = []
    for name in view.entity_keys:
        column = rows.column(name)
        if column is None:
            return None
        columns.append(column)
    keys = list(zip(*columns, strict=True))
    if len(keys) != len(instants):
        return None
    values = reader.live(view, keys, instants) if view.every is None else reader.values(view, keys)
    if None in values:
        return None if found.refuses else [nothing if each is None else each for each in values]
    return values  # type: ignore[return-value]
