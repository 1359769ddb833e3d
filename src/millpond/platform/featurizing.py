"""Features for requests as of each row's instant, with the code of the version that asks: from the lake's snapshots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from millpond.core.errors import RequestError
from millpond.core.time import now
from millpond.definitions.features import Entity, Features
from millpond.definitions.models import Model
from millpond.features.ports import AT, PinnedView
from millpond.lake.current import Snapshots
from millpond.lake.ports import Engine
from millpond.serving.ports import Featurized, ServedModel

if TYPE_CHECKING:
    import pyarrow as pa

_ROW = "__row"
_SPINE = "millpond_request"
_SQL_TYPES = {"int64": "BIGINT", "float64": "DOUBLE", "bool": "BOOLEAN", "string": "VARCHAR"}


class LakeFeaturizer:
    """Implements `serving.ports.Featurizer` on the lake's current snapshots. Used by one thread at a time."""

    def __init__(self, model: Model, served: ServedModel, engine: Engine, snapshots: Snapshots) -> None:
        self.model = model
        self.served = served
        self._engine = engine
        self._snapshots = snapshots

    def featurize(self, rows: pa.Table, as_of: datetime | None) -> Featurized:
        """See `serving.ports.Featurizer`.

        Raises:
            RequestError: A row names an entity that no source table has ever held, and the entity refuses those.
        """
        instants = row_instants(self.served, rows, as_of)
        self.refuse_unknown(self.model.entities, rows, instants)
        joined, snapshots = self.look_up(self.model.views, rows, instants)
        inputs = model_inputs(self.model, self.served, rows, joined)
        return Featurized(inputs, tuple(instants), snapshots)

    def look_up(
        self, views: Sequence[Features], rows: pa.Table, instants: Sequence[datetime]
    ) -> tuple[Mapping[str, pa.ChunkedArray[Any]], Mapping[str, int]]:
        """The features of views, one value a row, in order; and the snapshots that they were computed from."""
        from millpond.features.point_in_time import join_features

        if not views:
            return {}, {}
        pinned = [PinnedView(view, self._snapshots.of(view.source.name)) for view in views]
        self._register(rows, instants)
        with self._engine.session():
            relation = join_features(self._engine, _SPINE, AT, pinned)
            # The engine casts, as it does for training: Arrow makes another float of some decimals.
            types = {name: _SQL_TYPES[kind] for name, kind in self.served.inputs.items()}
            features = [column for view in views for column in view.columns]
            names = ", ".join(f'CAST("{column}" AS {types[column]}) AS "{column}"' for column in features)
            found = self._engine.reader(f'SELECT {names} FROM {relation} ORDER BY "{_ROW}"').read_all()
        columns = {name: found[name] for name in found.column_names}
        return columns, {each.view.source.name: each.snapshot.id for each in pinned}

    def refuse_unknown(self, entities: Sequence[Entity], rows: pa.Table, instants: Sequence[datetime]) -> None:
        """Refuse rows whose key no source table of the model's views has ever held, for entities that want that.

        Raises:
            RequestError: There is one.
        """
        refusing = [entity for entity in entities if entity.unknown == "refuse"]
        if not refusing:
            return
        self._register(rows, instants)
        with self._engine.session():
            for entity in refusing:
                views = [view for view in self.model.views if view.entity.name == entity.name]
                pinned = [PinnedView(view, self._snapshots.of(view.source.name)) for view in views]
                if pinned:
                    self._refuse_unknown(entity, pinned)

    def _register(self, rows: pa.Table, instants: Sequence[datetime]) -> None:
        import pyarrow as pa

        spine = rows.append_column(AT, pa.array(instants, pa.timestamp("us", "UTC")))
        self._engine.register(_SPINE, spine.append_column(_ROW, pa.array(range(rows.num_rows), pa.int64())))

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
                where=f"model {self.served.model}, column {', '.join(entity.keys)}",
                hint=f'no row of {tables} has this key; Entity("{entity.name}", unknown="allow") would predict anyway',
            )


def row_instants(served: ServedModel, rows: pa.Table, as_of: datetime | None) -> list[datetime]:
    """The instant of each row: `as_of`, else the row's own where that has passed, else now."""
    if as_of is not None:
        return [as_of] * rows.num_rows
    moment = now()
    if served.at is None or served.at not in rows.column_names:
        return [moment] * rows.num_rows
    return [min(each or moment, moment) for each in rows[served.at].to_pylist()]


def model_inputs(
    model: Model, served: ServedModel, rows: pa.Table, looked_up: Mapping[str, pa.ChunkedArray[Any]]
) -> pa.Table:
    """The model's raw inputs: the request's own columns, what is computed from them, and what was looked up."""
    import pyarrow as pa

    from millpond.features.request import apply_request_features

    computed = apply_request_features(model.request_features, rows, verify=False)
    columns = {name: table[name] for table in (rows, computed) for name in table.column_names} | dict(looked_up)
    wanted = served.inputs
    return pa.table([columns[name].cast(_arrow_type(kind)) for name, kind in wanted.items()], names=list(wanted))


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
