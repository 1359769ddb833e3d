"""Features for requests from the online store, and from the lake where the store does not have them exactly."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from millpond.core.errors import Unavailable
from millpond.core.time import Duration, grid_floor, now, to_microseconds
from millpond.definitions.features import Entity, Features
from millpond.features.online.ports import EntityKey, OnlineReader, OnlineStore, OnlineView
from millpond.features.plan import plan_view
from millpond.features.ports import PinnedView
from millpond.lake.current import CurrentSnapshots
from millpond.lake.lineage import Lineage
from millpond.lake.ports import Column
from millpond.platform.featurizing import LakeFeaturizer, model_inputs, row_instants
from millpond.serving.ports import Featurized

if TYPE_CHECKING:
    import pyarrow as pa

#: Entities remembered as known, so that the lake is asked about one only once.
_REMEMBERED = 100_000


class OnlineFeaturizer:
    """Implements `serving.ports.Featurizer`; values are equal to those of `LakeFeaturizer`, pushed events included.

    A view is looked up online where the store holds exactly its meaning, exactly for the rows' instants, and nothing
    but pushed events has changed its table since. Else it is computed from the
    lake, after pending events have landed there: slower, and the same. Used by one thread at a time.

    Args:
        lake: Computes what is not there online.
        store: The online store.
        snapshots: The lake's current snapshots; `lake` reads them too.
        lineage: By what the tables were changed.
        land: Writes pending events of tables into the lake.
    """

    def __init__(
        self,
        lake: LakeFeaturizer,
        store: OnlineStore,
        snapshots: CurrentSnapshots,
        lineage: Lineage,
        land: Callable[[Collection[str]], object],
    ) -> None:
        self._lake = lake
        self._store = store
        self._snapshots = snapshots
        self._lineage = lineage
        self._land = land
        self._views: dict[str, tuple[tuple[Column, ...], OnlineView]] = {}
        self._known: set[tuple[str, EntityKey]] = set()

    def featurize(self, rows: pa.Table, as_of: datetime | None) -> Featurized:
        """See `serving.ports.Featurizer`.

        Raises:
            RequestError: A row names an entity that no source table has ever held, and the entity refuses those.
            Unavailable: The store has lost its original for longer than a feature may be old.
        """
        instants = row_instants(self._lake.served, rows, as_of)
        request = _Request(rows, instants)
        synced_at = self._store.synced_at()
        absent: list[Features] = []
        found: dict[str, Any] = {}
        snapshots: dict[str, int] = {}
        events: dict[str, int] = {}
        with self._store.read() as reader:
            for view in self._lake.model.views:
                if synced_at is not None:
                    _refuse_old(view, synced_at)
                looked_up = self._look_up(reader, view, request)
                if looked_up is None:
                    absent.append(view)
                    continue
                found |= looked_up.columns
                snapshots[view.source.name] = looked_up.source
                events[view.source.name] = looked_up.position
        if absent:
            self._refresh({view.source.name for view in absent})
            columns, read = self._lake.look_up(absent, rows, instants)
            found, snapshots = found | dict(columns), snapshots | dict(read)
        self._refuse_unknown(request)
        inputs = model_inputs(self._lake.model, self._lake.served, rows, found)
        return Featurized(inputs, tuple(instants), snapshots, events, synced_at)

    def _look_up(self, reader: OnlineReader, view: Features, request: _Request) -> _LookedUp | None:
        """The view's features for all rows; None where the store does not have them exactly."""
        known = self._online_view(view)
        state = reader.state(known)
        if state is None or not self._lineage.only_landed_since(view.source.name, state.source):
            return None
        keys = request.keys(known.entity_keys)
        there = [index for index, key in enumerate(keys) if key is not None]
        asked = [key for key in keys if key is not None]
        if known.every is None:
            if state.since is not None and min(request.instants) < state.since:
                return None
            at = [request.microseconds[index] for index in there]
            values = reader.live(known, asked, at)
        else:
            every = Duration(known.every)
            if state.grid is None or any(grid_floor(each, every) != state.grid for each in request.instants):
                return None
            values = reader.values(known, asked)
        nothing = tuple(0 if feature.is_count else None for feature in known.features)
        answers = [nothing] * len(keys)
        for index, key, value in zip(there, asked, values, strict=True):
            if value is not None:
                answers[index] = value
                request.seen.add((view.entity.name, key))
        columns = {each.name: _array([row[at] for row in answers]) for at, each in enumerate(known.features)}
        return _LookedUp(columns, state.source, state.position)

    def _online_view(self, view: Features) -> OnlineView:
        columns = self._snapshots.of(view.source.name).columns
        before = self._views.get(view.name)
        if before is None or before[0] is not columns:
            found = OnlineView.of(plan_view(PinnedView(view, self._snapshots.of(view.source.name))))
            before = self._views[view.name] = (columns, found)
        return before[1]

    def _refuse_unknown(self, request: _Request) -> None:
        """Ask the lake about entities that no view knows: their last row may be older than what is kept online."""
        for entity in self._lake.model.entities:
            if entity.unknown != "refuse":
                continue
            strangers = [key for key in self._strangers(entity, request) if (entity.name, key) not in self._known]
            if strangers:
                tables = {view.source.name for view in self._lake.model.views if view.entity.name == entity.name}
                self._refresh(tables)
                self._lake.refuse_unknown([entity], request.rows, request.instants)
                if len(self._known) < _REMEMBERED:
                    self._known.update((entity.name, key) for key in strangers)

    def _strangers(self, entity: Entity, request: _Request) -> set[EntityKey]:
        return {key for key in request.keys(entity.keys) if key is not None and (entity.name, key) not in request.seen}

    def _refresh(self, tables: Collection[str]) -> None:
        self._land(tables)
        for table in tables:
            self._snapshots.forget(table)


class _LookedUp:
    """Columns by feature, and what they were read from."""

    def __init__(self, columns: dict[str, Any], source: int, position: int) -> None:
        self.columns, self.source, self.position = columns, source, position


class _Request:
    """The rows of one request, their keys taken apart once."""

    def __init__(self, rows: pa.Table, instants: Sequence[datetime]) -> None:
        self.rows, self.instants = rows, instants
        self.microseconds = [to_microseconds(each) for each in instants]
        self.seen: set[tuple[str, EntityKey]] = set()
        self._keys: dict[tuple[str, ...], list[EntityKey | None]] = {}

    def keys(self, names: tuple[str, ...]) -> list[EntityKey | None]:
        """The entity of each row; None where a part of the key is null."""
        if names not in self._keys:
            columns = [self.rows[name].to_pylist() for name in names]
            self._keys[names] = [None if None in key else key for key in zip(*columns, strict=True)]
        return self._keys[names]


def _refuse_old(view: Features, synced_at: datetime) -> None:
    limits = [each.limit for each in view.features.values() if each.limit is not None]
    age = now() - synced_at
    if limits and age > min(limits).delta:
        raise Unavailable(
            f"The features of {view.name} were last complete {age.total_seconds():.0f} s ago, and may be "
            f"{min(limits)} old",
            where=view.subject,
            hint="the shared store does not answer; see `millpond status`",
        )


def _array(values: list[Any]) -> Any:
    """The values as Arrow; a decimal is the nearest float, as it is for training."""
    import pyarrow as pa

    return pa.chunked_array([pa.array([float(each) if isinstance(each, Decimal) else each for each in values])])
