"""Features for requests as of each row's instant, with the code of the version that asks: from the lake's snapshots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from millpond.core.errors import RequestError
from millpond.core.time import now, to_microseconds
from millpond.definitions.features import Entity, Features
from millpond.definitions.models import Model
from millpond.features.ports import AT, PinnedView
from millpond.lake.current import Snapshots
from millpond.lake.ports import Engine
from millpond.serving.ports import Featurized, ServedModel

if TYPE_CHECKING:
    import pyarrow as pa

    from millpond.platform.versions import LoadedVersion

_ROW = "__row"
_SPINE = "millpond_request"
#: Rows whose inputs are made at once where nothing is looked up.
_BATCH_ROWS = 65_536


class LakeFeaturizer:
    """Implements `serving.ports.Featurizer` on the lake's snapshots, on any engine. Used by one thread at a time."""

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

    def stream(self, rows: pa.Table, instants: pa.Array[Any]) -> Iterator[tuple[pa.Array[Any], pa.Table]]:
        """Raw inputs of many rows by one join: a stream of row numbers and the inputs of those rows.

        Each row comes once, in no particular order; at most 65,536 at once. The engine is used until the stream ends.

        Args:
            rows: Request rows, conformed.
            instants: The instant of each; see `own_instants`.

        Raises:
            RequestError: As `featurize`; before the first rows.
        """
        import pyarrow as pa

        self.refuse_unknown(self.model.entities, rows, instants)
        if not self.model.views:
            numbers: pa.Array[Any] = pa.array(range(rows.num_rows), pa.int64())
            for start in range(0, rows.num_rows, _BATCH_ROWS):
                chosen = rows.slice(start, _BATCH_ROWS)
                yield numbers.slice(start, _BATCH_ROWS), model_inputs(self.model, self.served, chosen, {})
            return
        self._register(rows, instants)
        with self._engine.session():
            for batch in self._engine.reader(self._join(self._pinned(self.model.views))):
                numbers = batch.column(_ROW)
                found = {name: pa.chunked_array([batch.column(name)]) for name in batch.schema.names if name != _ROW}
                yield numbers, model_inputs(self.model, self.served, rows.take(numbers), found)

    def look_up(
        self, views: Sequence[Features], rows: pa.Table, instants: Sequence[datetime]
    ) -> tuple[Mapping[str, pa.ChunkedArray[Any]], Mapping[str, int]]:
        """The features of views, one value a row, in order; and the snapshots that they were computed from."""
        if not views:
            return {}, {}
        pinned = self._pinned(views)
        self._register(rows, instants)
        with self._engine.session():
            ordered = f"{self._join(pinned)} ORDER BY {_ROW}"
            found = self._engine.reader(ordered).read_all().drop_columns([_ROW])
        columns = {name: found[name] for name in found.column_names}
        return columns, {each.view.source.name: each.snapshot.id for each in pinned}

    def _pinned(self, views: Sequence[Features]) -> list[PinnedView]:
        return [PinnedView(view, self._snapshots.of(view.source.name)) for view in views]

    def _join(self, pinned: Sequence[PinnedView]) -> str:
        """A query of the number and the features of the registered rows, within a session."""
        from millpond.features.point_in_time import dialect_of, join_features
        from millpond.features.training_set import cast_sql

        quote, types = dialect_of(self._engine).quote, self.served.inputs
        relation = join_features(self._engine, _SPINE, AT, pinned)
        # The engine casts, as it does for training: Arrow makes another float of some decimals.
        features = [column for each in pinned for column in each.view.columns]
        values = ", ".join(f"{cast_sql(quote(name), types[name])} AS {quote(name)}" for name in features)
        return f"SELECT {_ROW}, {values} FROM {relation} AS joined"

    def refuse_unknown(
        self, entities: Sequence[Entity], rows: pa.Table, instants: Sequence[datetime] | pa.Array[Any]
    ) -> None:
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
                pinned = self._pinned([view for view in self.model.views if view.entity.name == entity.name])
                if pinned:
                    self._refuse_unknown(entity, pinned)

    def _register(self, rows: pa.Table, instants: Sequence[datetime] | pa.Array[Any]) -> None:
        import pyarrow as pa

        keys = dict.fromkeys(key for entity in self.model.entities for key in entity.keys)
        if not isinstance(instants, pa.Array):
            instants = pa.array(instants, pa.timestamp("us", "UTC"))
        spine = rows.select(list(keys)).append_column(AT, instants)
        self._engine.register(_SPINE, spine.append_column(_ROW, pa.array(range(rows.num_rows), pa.int64())))

    def _refuse_unknown(self, entity: Entity, views: Sequence[PinnedView]) -> None:
        from millpond.features.point_in_time import dialect_of

        quote = dialect_of(self._engine).quote
        keys = ", ".join(map(quote, entity.keys))
        given = " AND ".join(f"{quote(key)} IS NOT NULL" for key in entity.keys)
        known = " UNION ".join(f"SELECT {keys} FROM {self._engine.scan(each.snapshot)}" for each in _by_source(views))
        found = self._engine.rows(
            f"SELECT {keys}, min({_ROW}) AS first FROM {_SPINE} AS asked ANTI JOIN ({known}) AS known USING ({keys}) "
            f"WHERE {given} GROUP BY {keys} ORDER BY first LIMIT 5"
        )
        if found:
            values = ", ".join(repr(row[0] if len(row) == 2 else row[:-1]) for row in found)
            tables = ", ".join(sorted({each.view.source.name for each in views}))
            raise RequestError(
                f"Unknown {entity.name}: {values}",
                where=f"model {self.served.model}, column {', '.join(entity.keys)}, first in row {found[0][-1]}",
                hint=f'no row of {tables} has this key; Entity("{entity.name}", unknown="allow") would predict anyway',
            )


class GivenInputs:
    """Implements `serving.ports.Featurizer` for versions whose requests carry all raw inputs: registered ones."""

    def __init__(self, served: ServedModel) -> None:
        self.served = served

    def featurize(self, rows: pa.Table, as_of: datetime | None) -> Featurized:
        """See `serving.ports.Featurizer`."""
        return Featurized(rows.select(list(self.served.inputs)), tuple(row_instants(self.served, rows, as_of)), {})

    def stream(self, rows: pa.Table, instants: pa.Array[Any]) -> Iterator[tuple[pa.Array[Any], pa.Table]]:
        """As `LakeFeaturizer.stream`, all rows at once."""
        import pyarrow as pa

        yield pa.array(range(len(instants)), pa.int64()), rows.select(list(self.served.inputs))


def lake_featurizer(loaded: LoadedVersion, engine: Engine, snapshots: Snapshots) -> LakeFeaturizer | GivenInputs:
    """What makes the raw inputs of a version of all that the lake holds."""
    if loaded.declared is None:
        return GivenInputs(loaded.served)
    return LakeFeaturizer(loaded.declared, loaded.served, engine, snapshots)


def own_instants(served: ServedModel, rows: pa.Table, moment: datetime) -> pa.Array[Any]:
    """The instant of each row: its own where that has passed at `moment`, else `moment`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    stamp = pa.timestamp("us", "UTC")
    if served.at is None or served.at not in rows.column_names:
        return pa.repeat(pa.scalar(moment, stamp), rows.num_rows)
    own: Any = rows[served.at].cast(pa.int64())  # there is no minimum of instants with a zone
    until = pa.scalar(to_microseconds(moment), pa.int64())
    instants: pa.Array[Any] = pc.min_element_wise(own, until).cast(stamp).combine_chunks()  # a null is left out
    return instants


def row_instants(served: ServedModel, rows: pa.Table, as_of: datetime | None) -> list[datetime]:
    """The instant of each row: `as_of`, else the row's own where that has passed, else now."""
    if as_of is not None:
        return [as_of] * rows.num_rows
    found: list[Any] = own_instants(served, rows, now()).to_pylist()
    return found


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
