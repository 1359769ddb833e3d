"""Predictions of rows without a server, by what serves them there; and the way of the log into the lake."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from millpond.core.errors import NotFound, RequestError
from millpond.core.names import did_you_mean
from millpond.core.values import read_value
from millpond.platform import versions
from millpond.platform.featurizer_host import open_featurizer
from millpond.platform.logged import columns_of
from millpond.platform.platform import Platform
from millpond.platform.runtimes import open_runtime
from millpond.registry.ports import Version
from millpond.serving.ports import Prediction, PredictionSink, RequestColumn, ServedModel

if TYPE_CHECKING:
    import pyarrow as pa

    from millpond.serving.predictor import Predictor

_LOG_SNAPSHOTS = 30


@contextmanager
def open_predictor(platform: Platform, version: Version, log: PredictionSink) -> Iterator[Predictor]:
    """A version ready to answer for the length of a block, by what serves it; features come online, else of the lake.

    Raises:
        NotFound: The version's files are missing.
        Unavailable: Its environment cannot be built, or its model cannot be loaded.
    """
    from millpond.serving.predictor import Predictor

    loaded = versions.load(platform, version)
    with open_runtime(platform, loaded) as runtime, platform.engine() as engine:
        yield Predictor(loaded.served, runtime, open_featurizer(platform, loaded, engine, online=True), log)


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
        Unavailable: The version's environment cannot be built, or its model cannot be loaded.
    """
    from millpond.serving.log.spool import PredictionLog

    version = versions.require_champion(platform, model)
    with (
        closing(PredictionLog(platform.settings.spool)) as log,
        open_predictor(platform, version, log) as predictor,
    ):
        return predictor.predict(records_to_arrow(rows, predictor.served), as_of, platform.user)


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
