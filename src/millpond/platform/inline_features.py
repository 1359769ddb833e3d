"""Features for requests without leaving the event loop: from the local online store, where it has them exactly.

Everything else (user code, the lake, entities that nobody knows) is the featurizer process's, which answers with the
same values.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from millpond.core.errors import DataError, MillpondError, NotFound, StoreMismatch
from millpond.core.time import to_microseconds
from millpond.features.online.packing import feature_type
from millpond.features.online.ports import OnlineReader, OnlineStore, OnlineView
from millpond.lake.lineage import Lineage
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
        self._served = served
        self._views = tuple(views)
        self._store = store
        self._watch = watch
        self._names = tuple(served.inputs)
        self._nothing = [tuple(0 if each.is_count else None for each in found.view.features) for found in views]
        self._places = [self._place(name) for name in self._names]

    def _place(self, name: str) -> tuple[int, int, Callable[[Any], Any] | None]:
        """Where an input comes from: the view's number (-1 is the request) and the feature's, and how it is cast."""
        for number, found in enumerate(self._views):
            for index, feature in enumerate(found.view.features):
                if feature.name == name:
                    return number, index, _cast(feature_type(feature), self._served.inputs[name])
        return -1, 0, None

    @property
    def warm(self) -> bool | None:
        """Whether lookups of entities that are known succeed now; None where it will be known in a moment."""
        with self._store.read() as reader:
            marks = [reader.mark(each.view) for each in self._views]
        seen = [
            self._watch.seen(each.view.table, mark.source) if mark is not None else False
            for each, mark in zip(self._views, marks, strict=True)
        ]
        return None if None in seen and False not in seen else all(seen)

    def look_up(self, rows: Rows, as_of: int | None) -> Featured | None:
        """See `serving.engine.ports.InlineFeatures`."""
        given = rows.columns
        instants = self._instants(given, rows.count, as_of)
        found: list[Sequence[tuple[Any, ...]]] = []
        snapshots: dict[str, int] = {}
        events: dict[str, int] = {}
        try:
            with self._store.read() as reader:
                for number, view in enumerate(self._views):
                    looked_up = self._look_up(reader, number, view, given, instants)
                    if looked_up is None:
                        return None
                    values, source, position = looked_up
                    found.append(values)
                    snapshots[view.view.table] = source
                    events[view.view.table] = position
        except (DataError, NotFound, StoreMismatch):
            return None
        return Featured(self._inputs(given, rows.count, found), instants, snapshots, events, self._watch.synced_at)

    def _instants(self, given: Mapping[str, Column], count: int, as_of: int | None) -> list[int]:
        if as_of is not None:
            return [as_of] * count
        moment = time.time_ns() // 1000
        own = given.get(self._served.at) if self._served.at is not None else None
        if own is None:
            return [moment] * count
        return [moment if each is None or each > moment else each for each in own]

    def _look_up(
        self,
        reader: OnlineReader,
        number: int,
        found: InlineView,
        given: Mapping[str, Column],
        instants: list[int],
    ) -> tuple[Sequence[tuple[Any, ...]], int, int] | None:
        view = found.view
        mark = reader.mark(view)
        if mark is None or not self._watch.only_events_since(view.table, mark.source):
            return None
        synced = self._watch.synced_at
        if synced is not None and found.oldest is not None and time.time_ns() // 1000 - synced > found.oldest:
            return None
        keys = list(zip(*[given[name] for name in view.entity_keys], strict=True)) if _all_in(view, given) else []
        if len(keys) != len(instants) or any(None in key for key in keys):
            return None
        if view.every is None:
            if mark.since is not None and min(instants) < mark.since:
                return None
            values = reader.live(view, keys, instants)
        else:
            if mark.grid is None or any(each // view.every * view.every != mark.grid for each in instants):
                return None
            values = reader.values(view, keys)
        if None in values:
            if found.refuses:
                return None
            nothing = self._nothing[number]
            values = [nothing if each is None else each for each in values]
        return values, mark.source, mark.position  # type: ignore[return-value]

    def _inputs(self, given: Mapping[str, Column], count: int, found: list[Sequence[tuple[Any, ...]]]) -> Rows:
        columns: list[Column] = []
        for name, (number, index, cast) in zip(self._names, self._places, strict=True):
            if number < 0:
                columns.append(given.get(name) if name in given else [None] * count)  # type: ignore[arg-type]
            elif cast is None:
                columns.append([row[index] for row in found[number]])
            else:
                columns.append([None if row[index] is None else cast(row[index]) for row in found[number]])
        return Rows(count, self._names, tuple(columns))


def _all_in(view: OnlineView, given: Mapping[str, Column]) -> bool:
    return all(name in given for name in view.entity_keys)


def _cast(stored: str, wanted: str) -> Callable[[Any], Any] | None:
    """How a stored value becomes one of the input's type, as training casts; None where it is one already."""
    same = {"double": "float64", "float": "float64", "int": "int64", "long": "int64", "boolean": "bool"}
    if same.get(stored, stored) == wanted:
        return None
    return {"float64": float, "int64": int, "bool": bool}.get(wanted, str)
