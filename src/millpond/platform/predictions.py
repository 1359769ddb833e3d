"""Predictions without a server: rows and whole tables, with the code that the server uses."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from millpond.core.errors import NotFound, RequestError
from millpond.core.names import did_you_mean
from millpond.core.values import read_value
from millpond.lake.ports import Snapshot
from millpond.platform import versions
from millpond.platform.batch_receipts import SCORED, pin_sources
from millpond.platform.events import land_or_wait
from millpond.platform.featurizer_host import open_featurizer
from millpond.platform.logged import columns_of
from millpond.platform.platform import Platform
from millpond.platform.progress import step
from millpond.registry.ports import Version
from millpond.serving.ports import Prediction, PredictionSink, RequestColumn, ServedModel

if TYPE_CHECKING:
    import pyarrow as pa

    from millpond.lake.duckdb import DuckDBEngine
    from millpond.serving.predictor import Predictor

_LOG_SNAPSHOTS = 30


def load_predictor(
    platform: Platform, version: Version, log: PredictionSink, engine: DuckDBEngine, *, online: bool = True
) -> Predictor:
    """A version ready to answer, with its own code; it looks features up online, or else through `engine`.

    Without `online` all features are computed from the lake, which is the faster way for many rows at once.
    """
    from millpond.serving.predictor import Predictor

    loaded = versions.load(platform, version)
    featurizer = open_featurizer(platform, loaded, engine, online=online)
    return Predictor(loaded.served, versions.runtime(loaded), featurizer, log)


def predict_rows(
    platform: Platform, model: str, rows: Sequence[Mapping[str, Any]], *, as_of: datetime | None = None
) -> list[Prediction]:
    """Answer rows with the model's champion, in this process; the predictions are in the prediction log.

    Args:
        platform: The project.
        model: The model's name.
        rows: Request column -> value; numbers and instants may be text.
        as_of: Instant of the features of all rows; None takes each row's own, else now.

    Raises:
        NotFound: No such model, or no version of it serves.
        RequestError: A row does not fit.
    """
    with _champion_predictor(platform, model) as predictor:
        return predictor.predict(records_to_arrow(rows, predictor.served), as_of, platform.user)


def predict_batch(platform: Platform, model: str, source: str, target: str) -> Snapshot:
    """Score a table into a table with the model's champion; commits one snapshot of `target`, or nothing.

    Constant memory. Features are as of each row's instant of prediction. The target has the keys of the source, and
    the outputs that `serving.batch.predict_batches` names.

    Raises:
        NotFound: No such model, table, or no version serves.
        RequestError: A row does not fit, or the target is a table that the project declares.
    """
    from millpond.serving.batch import predict_batches

    if target in platform.definitions.tables:
        raise RequestError(f"{target} is a table that the project declares", hint="name another table with --to")
    land_or_wait(platform)
    snapshot = platform.lake.snapshot(source)
    with _champion_predictor(platform, model, online=False) as predictor, platform.engine() as engine:
        served = predictor.served
        declared = platform.definitions.tables.get(source)
        keys = declared.keys if declared else ()
        names = ", ".join(f'"{name}"' for name in _batch_columns(served, snapshot, keys))
        with step(platform.listener, f"score {source} with {model}/{served.version}") as current:
            rows = engine.reader(f"SELECT {names} FROM {engine.scan(snapshot)}")
            properties = {SCORED: str(snapshot), "requested_by": platform.user}
            scored = predict_batches(predictor, rows, keys=keys)
            written = platform.lake.overwrite(target, scored, properties=properties)
            pin_sources(platform, written)
            current.detail = f"{written.rows:,} rows into {target}"
    return written


def flush(platform: Platform) -> int:
    """Move finished segments of the prediction log into the lake, each exactly once; how many predictions.

    The snapshots that they were made from are kept from expiry, for their receipts. The log's own old snapshots are
    let go, so that appending to it stays fast.
    """
    from millpond.serving.log.drain import drain

    written: set[str] = set()

    def write(table: str, rows: pa.Table, token: str) -> None:
        for text in rows["snapshots"].unique().to_pylist():
            for source, number in json.loads(str(text)).items():
                with contextlib.suppress(NotFound):  # dropped meanwhile; the receipt says so
                    platform.lake.pin(platform.lake.snapshot(source, number), f"receipts-{number}")
        platform.lake.append(table, rows, token=token)
        written.add(table)

    moved = drain(platform.settings.spool, write, lambda table: columns_of(platform, table)).predictions
    for table in written:
        if len(platform.lake.history(table)) > 2 * _LOG_SNAPSHOTS:
            platform.lake.expire(table, keep_last=_LOG_SNAPSHOTS, older_than=timedelta(minutes=10))
    return moved


def records_to_arrow(records: Sequence[Mapping[str, Any]], served: ServedModel) -> pa.Table:
    """Rows given as plain values, or as text, as Arrow in the types of the model's request columns.

    Raises:
        RequestError: A column is unknown, or a value does not fit its type.
    """
    import pyarrow as pa

    from millpond.serving.columns import arrow_type

    columns = {column.name: column for column in served.columns}
    given: dict[str, list[Any]] = {name: [None] * len(records) for name in columns if any(name in r for r in records)}
    for index, record in enumerate(records):
        for name, value in record.items():
            if name not in columns:
                hint = did_you_mean(name, columns, noun="columns")
                raise RequestError(f"The model takes no column {name!r}", where=f"row {index}", hint=hint)
            given[name][index] = _value(value, columns[name], index)
    if not given:
        needed = ", ".join(f"{column.name}=..." for column in served.columns if column.required)
        raise RequestError("The request carries no columns", where=f"model {served.model}", hint=f"give {needed}")
    return pa.table({name: pa.array(values, arrow_type(columns[name].type)) for name, values in given.items()})


def _value(value: Any, column: RequestColumn, index: int) -> Any:
    try:
        return read_value(value, column.type)
    except ValueError as error:
        where = f"row {index}, {column.name}"
        hint = f"the column is of type {column.type}"
        raise RequestError(f"{value!r} is no {column.type}: {error}", where=where, hint=hint) from error


def _batch_columns(served: ServedModel, snapshot: Snapshot, keys: Sequence[str]) -> list[str]:
    there = set(snapshot.column_names)
    for column in served.columns:
        if column.required and column.name not in there:
            hint = did_you_mean(column.name, there, noun=f"columns of {snapshot.table}")
            raise RequestError(f"{snapshot.table} has no column {column.name!r}, which the model needs", hint=hint)
    wanted = [*keys, *(column.name for column in served.columns if column.name in there)]
    return list(dict.fromkeys(wanted))


@contextmanager
def _champion_predictor(platform: Platform, model: str, *, online: bool = True) -> Iterator[Predictor]:
    from millpond.serving.log.spool import PredictionLog

    log = PredictionLog(platform.settings.spool)
    version = versions.champion(platform, model)
    if version is None:
        platform.definitions.model(model)
        raise NotFound(f"No version of model {model!r} serves", hint=f"train one: millpond train {model}")
    try:
        with platform.engine() as engine:
            yield load_predictor(platform, version, log, engine, online=online)
    finally:
        log.close()
