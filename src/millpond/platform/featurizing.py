"""Features for requests, looked up in the lake as of each row's instant, with the code of the version that asks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from millpond.core.errors import RequestError
from millpond.core.time import now
from millpond.definitions.features import Entity
from millpond.definitions.models import Model
from millpond.features.ports import AT, PinnedView
from millpond.lake.ports import Engine, Snapshot, TableReader
from millpond.serving.ports import Featurized, ServedModel

if TYPE_CHECKING:
    import pyarrow as pa

_ROW = "__row"
_SPINE = "millpond_request"
_SQL_TYPES = {"int64": "BIGINT", "float64": "DOUBLE", "bool": "BOOLEAN", "string": "VARCHAR"}


class Snapshots(Protocol):
    """Says which snapshot of a table features are read from."""

    def of(self, table: str) -> Snapshot: ...


class CurrentSnapshots:
    """The current snapshot of tables, asked of the catalog at most once a second each."""

    def __init__(self, lake: TableReader, *, max_age: float = 1.0) -> None:
        self._lake = lake
        self._max_age = max_age
        self._known: dict[str, tuple[float, Snapshot]] = {}

    def of(self, table: str) -> Snapshot:
        asked, snapshot = self._known.get(table, (float("-inf"), None))
        if snapshot is None or time.monotonic() - asked > self._max_age:
            snapshot = self._lake.snapshot(table)
            self._known[table] = (time.monotonic(), snapshot)
        return snapshot


class LakeFeaturizer:
    """Implements `serving.ports.Featurizer` on the lake's current snapshots. Used by one thread at a time."""

    def __init__(self, model: Model, served: ServedModel, engine: Engine, snapshots: Snapshots) -> None:
        self._model = model
        self._served = served
        self._engine = engine
        self._snapshots = snapshots

    def featurize(self, rows: pa.Table, as_of: datetime | None) -> Featurized:
        """See `serving.ports.Featurizer`.

        Raises:
            RequestError: A row names an entity that no source table has ever held, and the entity refuses those.
        """
        import pyarrow as pa

        from millpond.features.request import apply_request_features

        instants = self._instants(rows, as_of)
        views = [PinnedView(view, self._snapshots.of(view.source.name)) for view in self._model.views]
        spine = rows.append_column(AT, pa.array(instants, pa.timestamp("us", "UTC")))
        spine = spine.append_column(_ROW, pa.array(range(rows.num_rows), pa.int64()))
        self._engine.register(_SPINE, spine)
        joined = self._join(views, spine)
        computed = apply_request_features(self._model.request_features, rows, verify=False)
        columns = {name: table[name] for table in (rows, computed, joined) for name in table.column_names}
        wanted = self._served.inputs
        inputs = pa.table([columns[name].cast(_arrow_type(kind)) for name, kind in wanted.items()], names=list(wanted))
        return Featurized(inputs, tuple(instants), {each.view.source.name: each.snapshot.id for each in views})

    def _instants(self, rows: pa.Table, as_of: datetime | None) -> list[datetime]:
        if as_of is not None:
            return [as_of] * rows.num_rows
        moment = now()
        if self._served.at is None or self._served.at not in rows.column_names:
            return [moment] * rows.num_rows
        return [min(each or moment, moment) for each in rows[self._served.at].to_pylist()]

    def _join(self, views: Sequence[PinnedView], spine: pa.Table) -> pa.Table:
        from millpond.features.point_in_time import join_features

        if not views:
            return spine.select([])
        with self._engine.session():
            for entity in self._model.entities:
                if entity.unknown == "refuse":
                    self._refuse_unknown(entity, [each for each in views if each.view.entity.name == entity.name])
            relation = join_features(self._engine, _SPINE, AT, views)
            # The engine casts, as it does for training: Arrow makes another float of some decimals.
            types = {name: _SQL_TYPES[kind] for name, kind in self._served.inputs.items()}
            columns = [column for each in views for column in each.view.columns]
            names = ", ".join(f'CAST("{column}" AS {types[column]}) AS "{column}"' for column in columns)
            return self._engine.reader(f'SELECT {names} FROM {relation} ORDER BY "{_ROW}"').read_all()

    def _refuse_unknown(self, entity: Entity, views: Sequence[PinnedView]) -> None:
        keys = ", ".join(f'"{key}"' for key in entity.keys)
        given = " AND ".join(f'"{key}" IS NOT NULL' for key in entity.keys)
        known = " UNION ".join(f"SELECT {keys} FROM {self._engine.scan(each.snapshot)}" for each in _by_source(views))
        found = self._engine.rows(
            f"SELECT DISTINCT {keys} FROM {_SPINE} AS asked ANTI JOIN ({known}) AS known USING ({keys}) "
            f"WHERE {given} LIMIT 5"
        )
        if found:
            values = ", ".join(repr(row[0] if len(row) == 1 else row) for row in found)
            tables = ", ".join(sorted({each.view.source.name for each in views}))
            raise RequestError(
                f"Unknown {entity.name}: {values}",
                where=f"model {self._served.model}, column {', '.join(entity.keys)}",
                hint=f'no row of {tables} has this key; Entity("{entity.name}", unknown="allow") would predict anyway',
            )


def _by_source(views: Sequence[PinnedView]) -> Iterator[PinnedView]:
    yield from {each.view.source.name: each for each in views}.values()


def _arrow_type(kind: str) -> pa.DataType:
    import pyarrow as pa

    types: dict[str, pa.DataType] = {
        "float64": pa.float64(),
        "int64": pa.int64(),
        "bool": pa.bool_(),
        "string": pa.string(),
    }
    return types[kind]
