"""Training sets: labelled examples with their features as of each example's own instant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from millpond.core.errors import DefinitionError, MillpondError, TrainingError
from millpond.definitions.expressions import is_expression
from millpond.definitions.models import Model
from millpond.features.labels import learnt_label
from millpond.features.layout import Layout, lay_out
from millpond.features.point_in_time import dialect_of, join_features
from millpond.features.ports import AT, LABEL, LABEL_KNOWN, PinnedView, TrainingSetColumns
from millpond.features.request import apply_request_features, check_row_wise
from millpond.lake.duckdb_errors import explain_expression
from millpond.lake.ports import Engine, Snapshot

if TYPE_CHECKING:
    import pyarrow as pa

    from millpond.lake.ports import Rows

_CHOSEN, _EXAMPLES = "__training_chosen", "__training_examples"
_SQL_TYPES = {"int64": "BIGINT", "bool": "BOOLEAN", "float64": "DOUBLE", "string": "STRING"}
_SAMPLE_ROWS = 64


@dataclass(frozen=True)
class ExampleCounts:
    """What became of the examples, in rows.

    Attributes:
        examples: Rows of the examples' snapshot.
        excluded: Left out by `Model.where`.
        without_time: Left out because their instant of prediction is null.
        without_label: Left out because their label is null (or NaN), of the rest.
        rows: Rows of the training set.
    """

    examples: int
    excluded: int
    without_time: int
    without_label: int
    rows: int


class TrainingSet(NamedTuple):
    """A training set: its rows for a `TableWriter`, what its columns are for, and what became of the examples."""

    rows: Rows
    columns: TrainingSetColumns
    counts: ExampleCounts


def build_training_set(engine: Engine, model: Model, examples: Snapshot, views: Sequence[PinnedView]) -> TrainingSet:
    """Label the examples and join their features, each as of the example's own instant.

    Call this within `engine.session()`, once in a session, and write or read the rows before the session ends. They
    stay where the engine computes them, unless request features have to be added to them: then they are a stream.

    The columns are, each once: the examples' key, the entities' keys, the model's input columns, its slices, its
    other inputs in order of declaration (inputs are float64, int64, bool or string), `__at` (unless examples have no
    time), `__label` (bool for classification, where the greater of two values is the positive one; float64 for
    regression) and `__label_known` (where declared). Examples whose instant or label is null are left out and
    counted. Rows come in no particular order.

    Args:
        engine: Runs the queries.
        model: The declaration.
        examples: Snapshot of the model's examples.
        views: The model's feature views, pinned, in any order.

    Raises:
        DefinitionError: An input has a type that no model takes, request features read the label, or a function
            of the user's fails or is not row-wise.
        SchemaMismatch: A snapshot lacks a column.
        TrainingError: There are no examples, no labels, or labels of a wrong type or number of values.
        DataError: A sum of integers does not fit into 64 bits.
    """
    pinned = [_pinned(view.name, views) for view in model.views]
    layout = lay_out(model, examples, pinned)
    counts = _make_examples(engine, model, examples, layout)
    if layout.requested:
        _check_functions(engine, model, layout)
    relation = join_features(engine, _EXAMPLES, AT if model.time else None, pinned)
    quote = dialect_of(engine).quote
    read = [quote(name) for name in dict.fromkeys((*layout.kept, *layout.requested, *layout.added))]
    read += [f"{cast_sql(quote(name), layout.inputs[name])} AS {quote(name)}" for name in layout.features]
    rows: Rows
    if model.request_features:
        rows = _complete(engine.reader(f"SELECT {', '.join(read)} FROM {relation}"), model, layout)
    else:
        ordered = ", ".join(quote(name) for name in layout.output)
        rows = engine.output(f"SELECT {ordered} FROM (SELECT {', '.join(read)} FROM {relation}) AS joined")
    columns = TrainingSetColumns(
        keys=model.examples.keys,
        inputs=layout.inputs,
        slices=tuple(model.slices),
        at=AT if model.time else None,
        label=LABEL,
        label_known=LABEL_KNOWN if model.label_known else None,
    )
    return TrainingSet(rows, columns, counts)


def labelled_examples(engine: Engine, model: Model, examples: Snapshot, columns: Sequence[str]) -> str:
    """The examples that `where` leaves, as a relation of `columns` and `__label` as a model learns it; null: unknown.

    Within a session of the engine.

    Raises:
        DefinitionError: The label or where expression does not work on the table.
        TrainingError: There is no label yet, or of a wrong type or number of values.
    """
    engine.materialize(_CHOSEN, f"SELECT * FROM {_chosen(engine, model, examples, columns)}")
    quoted = ", ".join(dialect_of(engine).quote(name) for name in columns)
    return f"(SELECT {quoted}, {learnt_label(engine, model, _CHOSEN)} AS {LABEL} FROM {_CHOSEN})"


def _pinned(name: str, views: Sequence[PinnedView]) -> PinnedView:
    for pinned in views:
        if pinned.view.name == name:
            return pinned
    raise DefinitionError(f"Feature view {name!r} is an input of the model and was given no snapshot")


def _make_examples(engine: Engine, model: Model, examples: Snapshot, layout: Layout) -> ExampleCounts:
    """A temporary table of the examples that count: the columns wanted, the instant, and the label as it is learnt."""
    dialect = dialect_of(engine)
    columns = tuple(dict.fromkeys((*layout.kept, *layout.requested)))
    engine.materialize(_CHOSEN, f"SELECT * FROM {_chosen(engine, model, examples, columns)}")
    timed = f"{AT} IS NOT NULL" if model.time else "TRUE"
    usable = f"(SELECT * FROM {_CHOSEN} WHERE {timed}) AS usable"
    chosen, usable_rows = (engine.rows(f"SELECT count(*) FROM {rows}")[0][0] for rows in (_CHOSEN, usable))
    learnt = learnt_label(engine, model, usable) if usable_rows else LABEL
    quoted = {name: dialect.quote(name) for name in columns}
    values = [
        f"{cast_sql(quoted[name], layout.casts[name])} AS {quoted[name]}" if name in layout.casts else quoted[name]
        for name in columns
    ]
    values += [f"{learnt} AS {LABEL}", *(name for name in layout.added if name != LABEL)]
    engine.materialize(
        _EXAMPLES,
        f"SELECT * FROM (SELECT {', '.join(values)} FROM {usable}) AS labelled WHERE {LABEL} IS NOT NULL",
    )
    rows = engine.rows(f"SELECT count(*) FROM {_EXAMPLES}")[0][0]
    counts = ExampleCounts(examples.rows, examples.rows - chosen, chosen - usable_rows, usable_rows - rows, rows)
    if rows == 0:
        raise _no_examples(model, examples, counts)
    return counts


def _chosen(engine: Engine, model: Model, examples: Snapshot, columns: Sequence[str]) -> str:
    """The examples that `where` leaves, with their label, as a relation."""
    import narwhals as nw

    added = {LABEL: model.task.label if is_expression(model.task.label) else nw.col(str(model.task.label))}
    added |= {AT: nw.col(model.time)} if model.time else {}
    added |= {LABEL_KNOWN: nw.col(model.label_known)} if model.label_known else {}
    try:
        frame = engine.lazy(engine.scan(examples))
        frame = frame if model.where is None else frame.filter(model.where)
        return engine.to_sql(frame.select(*columns, **added))
    except MillpondError:
        raise
    except Exception as error:  # the user's expressions fail in as many ways as there are
        what, hint = explain_expression(error, examples.column_names)
        raise DefinitionError(
            f"The label or where expression of {model.subject} does not work on {examples}: {what}",
            where=str(model.declared_at),
            hint=hint,
        ) from error


def _no_examples(model: Model, examples: Snapshot, counts: ExampleCounts) -> TrainingError:
    left = [
        (counts.excluded, "left out by where="),
        (counts.without_time, f"without {model.time!r}"),
        (counts.without_label, "without a label"),
    ]
    told = ", ".join(f"{number} {why}" for number, why in left if number)
    return TrainingError(
        f"{model.subject} has no examples to learn from: {examples} has {counts.examples} rows"
        + (f", {told}" if told else ""),
        where=str(model.declared_at),
        hint="ingest rows, or look at where=, at= and the label's expression",
    )


def _check_functions(engine: Engine, model: Model, layout: Layout) -> None:
    columns = ", ".join(dialect_of(engine).quote(name) for name in layout.requested)
    sample = engine.reader(f"SELECT {columns} FROM {_EXAMPLES} LIMIT {_SAMPLE_ROWS}").read_all()
    check_row_wise(model.request_features, sample)


def _complete(reader: pa.RecordBatchReader, model: Model, layout: Layout) -> pa.RecordBatchReader:
    """Add the request features, batch by batch, and put the columns in order."""
    import pyarrow as pa

    def completed(rows: pa.Table) -> pa.Table:
        made = apply_request_features(model.request_features, rows.select(layout.requested), verify=False)
        for name, column in zip(made.column_names, made.columns, strict=True):
            rows = rows.append_column(name, column)
        return rows.select(layout.output)

    def batches() -> Iterator[Any]:
        for batch in reader:
            yield from completed(pa.Table.from_batches([batch])).to_batches()

    return pa.RecordBatchReader.from_batches(completed(reader.schema.empty_table()).schema, batches())


def cast_sql(value: str, type_: str) -> str:
    """SQL of any engine that makes an expression's value one of a model input's type."""
    return f"CAST({value} AS {_SQL_TYPES[type_]})"
