"""From tables to a derived table: run when its definition or an input has changed, checked, written as one snapshot."""

from __future__ import annotations

import inspect
import json
import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from millpond.core.errors import DataError, DefinitionError, MillpondError
from millpond.core.fingerprints import fingerprint
from millpond.core.names import did_you_mean
from millpond.definitions.tables import FunctionDerivation, SqlDerivation, Table
from millpond.lake.duckdb_errors import explain_expression
from millpond.lake.events import pushed_rows, with_pushed
from millpond.lake.keys import refuse_bad_keys, refuse_no_instant
from millpond.lake.ports import Engine, Lake, Snapshot
from millpond.lake.query_errors import of_engine, translate
from millpond.lake.schema import column_hint
from millpond.lake.sql_text import sql_text

DERIVATION, INPUTS = "derivation", "inputs"

_ROWS = "__derived"
_INSTANTS = {
    "duckdb": "timezone('America/New_York', {})",
    "spark": "to_utc_timestamp({}, 'America/New_York')",
}


@dataclass(frozen=True)
class Derived:
    """What deriving did.

    Attributes:
        snapshot: The table's snapshot after it.
        skipped: Whether the definition and all inputs are those of that snapshot already, so that nothing was done.
    """

    snapshot: Snapshot
    skipped: bool


def derive(lake: Lake, engine: Engine, table: Table, inputs: Mapping[str, Snapshot], *, force: bool = False) -> Derived:
    """Compute a derived table from pinned inputs, and overwrite it.

    The rows are computed once, into the engine's memory and spill files; what is checked is what is written. Rows that
    were pushed into the table stay where the derivation gives none of their key.

    Args:
        lake: Where the table is written.
        engine: Runs the derivation.
        table: Its declaration, with a derivation.
        inputs: Snapshot of each input table, by name.
        force: Derive even if nothing has changed.

    Raises:
        DefinitionError: The derivation is for another engine, gives no frame, or its source cannot be read.
        DataError: It fails on these rows, or gives rows with null or repeated keys, or times without a zone.
    """
    derivation = table.derivation
    if derivation is None:
        raise DefinitionError(f"{table.subject} is not derived", where=str(table.declared_at), hint="ingest it instead")
    pinned = _pinned(table, inputs)
    print_ = _fingerprint(table, {name: each.id for name, each in pinned.items()})
    if not force and (current := _up_to_date(lake, table.name, print_)) is not None:
        return Derived(current, True)
    said = {DERIVATION: print_, INPUTS: json.dumps({name: each.id for name, each in pinned.items()})}
    with engine.session():
        where = _compute(engine, table, pinned)
        _refuse(engine, table, where)
        columns = engine.schema(_ROWS).names
        rows = engine.output(with_pushed(engine, _ROWS, columns, pushed_rows(lake, table), table.keys))
        return Derived(lake.overwrite(table.name, rows, properties=said), False)


def defined_otherwise(table: Table, snapshot: Snapshot) -> bool:
    """Whether a snapshot of a derived table was made by another definition than the given one.

    Newer inputs do not count. What was not derived, or does not say from what, counts as made by another.
    """
    said = snapshot.properties
    return DERIVATION not in said or said[DERIVATION] != _fingerprint(table, json.loads(said.get(INPUTS, "{}")))


def _fingerprint(table: Table, inputs: Mapping[str, int]) -> str:
    return fingerprint({"definition": _describe(table), "inputs": inputs})


def _pinned(table: Table, inputs: Mapping[str, Snapshot]) -> dict[str, Snapshot]:
    assert table.derivation is not None
    names = [each.name for each in table.derivation.inputs]
    for name in names:
        if name not in inputs:
            raise DefinitionError(
                f'{table.subject} reads table "{name}", and no snapshot of it is given',
                where=str(table.declared_at),
                hint=did_you_mean(name, inputs, noun="tables"),
            )
    return {name: inputs[name] for name in names}


def _describe(table: Table) -> dict[str, Any]:
    try:
        return table.describe()
    except (OSError, TypeError) as error:
        raise DefinitionError(
            f"The source of the function of {table.subject} cannot be read",
            where=str(table.declared_at),
            hint="define it in a file of the project, not at a prompt",
        ) from error


def _up_to_date(lake: Lake, table: str, print_: str) -> Snapshot | None:
    history = lake.history(table) if lake.exists(table) else []
    return history[-1] if history and history[-1].properties.get(DERIVATION) == print_ else None


def _compute(engine: Engine, table: Table, inputs: Mapping[str, Snapshot]) -> str:
    """Put the rows into the relation `__derived`; the place in the user's files that made them."""
    derivation = table.derivation
    if isinstance(derivation, SqlDerivation):
        where = f"{table.subject}, query at {table.declared_at}"
        sql = _query(engine, table, derivation, inputs)
        with _placed(where, lines_before=1, tables=tuple(inputs)):
            engine.materialize(_ROWS, sql)
        return where
    assert isinstance(derivation, FunctionDerivation)
    function = derivation.function
    where = f"{table.subject}, {_place(function)}"
    frames = [engine.lazy(engine.scan(inputs[each.name])) for each in derivation.inputs]
    frame = _call(table, function, frames)
    with _placed(where):
        engine.materialize(_ROWS, f"SELECT * FROM {engine.to_sql(frame)} AS derived")
    return where


def _query(engine: Engine, table: Table, derivation: SqlDerivation, inputs: Mapping[str, Snapshot]) -> str:
    """A query that runs the user's over its inputs."""
    if derivation.engine != engine.dialect:
        raise DefinitionError(
            f'{table.subject} is written for engine "{derivation.engine}", and this profile runs "{engine.dialect}"',
            where=str(table.declared_at),
            hint="use a profile with that engine, or declare the table by a function, which runs on every engine",
        )
    text = sql_text(engine.dialect)
    named = ", ".join(
        f"{text.name(name)} {text.inlined} (SELECT * FROM {engine.scan(each)})" for name, each in inputs.items()
    )
    head = f"WITH {named}" if named else ""
    query = derivation.query.strip().rstrip(";")
    return f"{head} SELECT * FROM (\n{query}\n) AS derived"


def _call(table: Table, function: Any, frames: list[Any]) -> Any:
    """The lazy frame that the user's function gives."""
    import narwhals as nw

    try:
        frame = function(*frames)
    except Exception as error:
        raise _failed(table, function, error, frames) from error
    if isinstance(frame, nw.LazyFrame):
        return frame
    if isinstance(frame, nw.DataFrame):
        found, hint = "an eager frame", "leave out collect(); the engine runs the query"
    else:
        found, hint = f"{type(frame).__name__}", "return the frame that holds the table's rows"
    raise DefinitionError(
        f"The function of {table.subject} gives {found}, not a lazy frame", where=_place(function), hint=hint
    )


def _failed(table: Table, function: Any, error: Exception, frames: Sequence[Any]) -> MillpondError:
    file = inspect.getsourcefile(function) or ""
    lines = [each.lineno for each in traceback.extract_tb(error.__traceback__) if each.filename == file]
    where = f"{file}:{lines[-1]}" if lines else _place(function)
    if of_engine(error):
        return translate(error, where)
    columns = dict.fromkeys(name for frame in frames for name in frame.collect_schema().names())
    what, hint = explain_expression(error, list(columns))
    return DataError(f"The function of {table.subject} fails: {what}", where=where, hint=hint)


def _place(function: Any) -> str:
    code = function.__code__
    return f"{code.co_filename}:{code.co_firstlineno}"


@contextmanager
def _placed(where: str, *, lines_before: int = 0, tables: Collection[str] = ()) -> Iterator[None]:
    """Say the user's place instead of generated SQL."""
    try:
        yield
    except MillpondError as error:
        cause = error.__cause__
        if not isinstance(cause, Exception):
            raise
        raise translate(cause, where, lines_before, tables) from cause


def _refuse(engine: Engine, table: Table, where: str) -> None:
    import pyarrow as pa

    schema = engine.schema(_ROWS)
    for role, name in (*(("key", key) for key in table.keys), ("time", table.time), ("known", table.known)):
        if name is not None and name not in schema.names:
            what = f'{table.subject} gives no column "{name}", which it declares as its {role}'
            raise DataError(what, where=where, hint=column_hint(name, schema.names))
    for name, type in zip(schema.names, schema.types, strict=True):
        if pa.types.is_timestamp(type) and type.tz is None:
            raise DataError(
                f'{table.subject} gives timestamps without a time zone in column "{name}"',
                where=where,
                hint="make instants of them with their zone, such as"
                f" {_INSTANTS[engine.dialect].format(name)} in a mp.sql_table",
            )
    refuse_no_instant(engine, _ROWS, table, where)
    refuse_bad_keys(engine, _ROWS, table.keys, where)
