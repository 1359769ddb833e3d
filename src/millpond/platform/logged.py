"""The logged predictions: in the lake, and still in the spool; one table a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from millpond.core.errors import NotFound
from millpond.lake.schema import literal, quoted
from millpond.platform import versions
from millpond.platform.log_policies import policies
from millpond.platform.platform import Platform
from millpond.platform.read_models import PredictionLine
from millpond.serving.ports import OUTPUT as SINGLE
from millpond.serving.ports import Prediction, ServedModel, first_number

if TYPE_CHECKING:
    import pyarrow as pa

    from millpond.lake.ports import Engine

#: What `relation` calls the output of a trained model.
OUTPUT = "__output"

_PENDING = "millpond_pending"
_LINE = ("prediction_id", "model", "version", "predicted_at", "requested_by", "answer")


@dataclass(frozen=True)
class _Row:
    """A logged prediction as it is stored, with the columns (name -> kind) of what it is stored in."""

    values: Mapping[str, Any]
    columns: Mapping[str, str]


def columns_of(platform: Platform, table: str) -> dict[str, str]:
    """The columns of a table of predictions: name -> kind; none where it is not there yet."""
    from millpond.serving.log.tables import kind_of

    if not platform.lake.exists(table):
        return {}
    return {column.name: kind_of(column.type) for column in platform.lake.snapshot(table).columns}


def find(platform: Platform, prediction_id: str) -> Prediction | None:
    """A logged prediction; None where there is none of that id."""
    from millpond.serving.log.predictions import to_prediction

    # The spool first: a prediction reaches the lake before it leaves the spool.
    row = _in_spool(platform, prediction_id) or _in_lake(platform, prediction_id)
    if row is None:
        return None
    version = platform.store.version(row.values["model"], row.values["version"])
    return to_prediction(row.values, row.columns, versions.served_model(platform, version))


def newest(platform: Platform, model: str | None, limit: int) -> list[PredictionLine]:
    """The newest predictions that were answered, newest first; those of shadows are not."""
    from millpond.serving.log.drain import pending_by_model
    from millpond.serving.log.tables import is_prediction_table, table_name

    # The spool first: a prediction reaches the lake before it leaves the spool.
    spooled = pending_by_model(platform.settings.spool)
    tables = [each for each in platform.lake.tables() if is_prediction_table(each)]
    relations: dict[str, list[pa.Table | str]] = {each: [each] for each in tables}
    for each, rows in spooled.items():
        relations.setdefault(table_name(each), []).extend(rows)
    chosen = [table_name(model)] if model is not None else list(relations)
    found: dict[str, PredictionLine] = {}
    with platform.engine() as engine:
        for relation in (each for table in chosen for each in relations.get(table, ())):
            found |= {line.id: line for line in _lines(platform, engine, relation, model, limit)}
    return sorted(found.values(), key=lambda each: (each.predicted_at, each.id), reverse=True)[:limit]


def counts(platform: Platform) -> dict[str, int]:
    """Number of logged predictions by model, those of shadows included."""
    from millpond.serving.log.drain import pending_counts
    from millpond.serving.log.tables import table_name

    found = pending_counts(platform.settings.spool)
    for model in platform.store.models():
        table = table_name(model)
        if platform.lake.exists(table):
            found[model] = found.get(model, 0) + platform.lake.snapshot(table).rows
    return found


def relation(platform: Platform, engine: Engine, served: ServedModel) -> str:
    """A relation of a version's logged predictions, each once: those in the lake, and those still in the spool.

    Its columns are those of `serving.log.tables` that the version has, under their plain names, and `OUTPUT`. The spool
    holds what live processes write: a segment of some megabytes each.
    """
    from millpond.serving.log.drain import pending
    from millpond.serving.log.tables import INPUT, OUTPUT_COLUMN, REQUEST, empty, kinds_of, table_name, there

    table = table_name(served.model)
    columns = columns_of(platform, table)
    # The spool first: a prediction reaches the lake before it leaves the spool.
    spooled = pending(platform.settings.spool, served.model, columns)
    rows = empty() if spooled is None else spooled
    engine.register(_PENDING, rows)
    everything = _PENDING
    if columns:
        columns |= kinds_of(rows)
        lake = engine.scan(platform.lake.snapshot(table))
        rest = f"SELECT * FROM {_PENDING} WHERE prediction_id NOT IN (SELECT prediction_id FROM {lake})"
        everything = f"(SELECT * FROM {lake} UNION ALL BY NAME {rest})"
    else:
        columns = kinds_of(rows)
    wanted = [(REQUEST + each.name, each.type) for each in served.columns]
    wanted += [(INPUT + name, kind) for name, kind in served.inputs.items()]
    redacted = policies(platform, platform.store.version(served.model, served.version)).redacted
    hidden = {prefix + name for name in redacted for prefix in (REQUEST, INPUT)}
    listed = [quoted(each.name) for each in empty().schema]
    listed += [f"{OUTPUT_COLUMN} AS {OUTPUT}"] if OUTPUT_COLUMN in columns else []
    for name, kind in dict(wanted).items():
        column = there(columns, name, kind)
        if column is not None and name not in hidden:
            listed.append(f"{quoted(column)} AS {quoted(name)}")
    condition = f"model = {literal(served.model)} AND version = {served.version}"
    return f"(SELECT {', '.join(listed)} FROM {everything} WHERE {condition})"


def _in_spool(platform: Platform, prediction_id: str) -> _Row | None:
    from millpond.serving.log.drain import find
    from millpond.serving.log.tables import kinds_of

    found = find(platform.settings.spool, prediction_id)
    return None if found is None else _Row(found[1].to_pylist()[0], kinds_of(found[1]))


def _in_lake(platform: Platform, prediction_id: str) -> _Row | None:
    from millpond.serving.log.tables import is_prediction_table

    for table in platform.lake.tables():
        if is_prediction_table(table):
            with platform.engine() as engine:
                scanned = engine.scan(platform.lake.snapshot(table))
                rows = engine.rows(f"SELECT * FROM {scanned} WHERE prediction_id = {literal(prediction_id)}")
            if rows:
                names = platform.lake.snapshot(table).column_names
                return _Row(dict(zip(names, rows[0], strict=True)), columns_of(platform, table))
    return None


def _lines(
    platform: Platform, engine: Engine, rows: pa.Table | str, model: str | None, limit: int
) -> Sequence[PredictionLine]:
    from millpond.serving.log.tables import OUTPUT_COLUMN, kinds_of

    if isinstance(rows, str):
        try:
            scanned = engine.scan(platform.lake.snapshot(rows))
        except NotFound:
            return []
        columns = columns_of(platform, rows)
    else:
        engine.register(_PENDING, rows)
        scanned, columns = _PENDING, kinds_of(rows)
    listed = [*_LINE, *(name for name in columns if name.startswith(OUTPUT_COLUMN))]
    mine = f" AND model = {literal(model)}" if model is not None else ""
    where = f"WHERE shadow_of IS NULL{mine} ORDER BY predicted_at DESC LIMIT {limit}"
    found = engine.rows(f"SELECT {', '.join(map(quoted, listed))} FROM {scanned} {where}")
    return list(_told(platform, columns, [dict(zip(listed, row, strict=True)) for row in found]))


def _told(
    platform: Platform, columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]
) -> Iterator[PredictionLine]:
    from millpond.serving.log.predictions import outputs_of

    versions_of: dict[tuple[str, int], ServedModel] = {}
    for row in rows:
        key = row["model"], row["version"]
        if key not in versions_of:
            versions_of[key] = versions.served_model(platform, platform.store.version(*key))
        outputs = outputs_of(row, columns, versions_of[key])
        several = {} if versions_of[key].outputs == (SINGLE,) else outputs
        asked = row["predicted_at"], row["requested_by"]
        yield PredictionLine(row["prediction_id"], *key, *asked, row["answer"], first_number(outputs), several)
