"""Labels: from what the user declared to what a model learns."""

from __future__ import annotations

from millpond.core.errors import TrainingError
from millpond.definitions.models import Classification, Model
from millpond.features.point_in_time import dialect_of
from millpond.features.ports import LABEL
from millpond.lake.ports import Engine


def learnt_label(engine: Engine, model: Model, rows: str) -> str:
    """The label as a model learns it, as an SQL expression over `rows` (a relation with a column `__label`).

    Boolean for classification, where the greater of two values is the positive one; a finite DOUBLE for regression.
    Null, and NaN, stay or become null.

    Raises:
        TrainingError: A classification label has one value, or more than two; a regression label is no number,
            or is infinite.
    """
    return _classes(engine, model, rows) if isinstance(model.task, Classification) else _number(engine, model, rows)


def _classes(engine: Engine, model: Model, rows: str) -> str:
    kind = dialect_of(engine).kinds(engine, rows)[LABEL]
    present = f"{LABEL} IS NOT NULL" + (f" AND NOT isnan({LABEL})" if kind == "float" else "")
    found = engine.rows(f"SELECT DISTINCT {LABEL} FROM {rows} WHERE {present} ORDER BY 1 LIMIT 3")
    values = [row[0] for row in found]
    if len(values) == 1:
        raise TrainingError(
            f"Every label of {model.subject} is {values[0]!r}: there is nothing to tell apart",
            where=str(model.declared_at),
            hint="look at the label's expression, and at what where= leaves",
        )
    if len(values) > 2:
        raise TrainingError(
            f"The label of {model.subject} has more than two values: {values[0]!r}, {values[1]!r}, {values[2]!r} ...",
            where=str(model.declared_at),
            hint="classification answers yes or no: compare, as in mp.col(...) >= 30; for numbers use mp.Regression",
        )
    if kind == "boolean":
        return LABEL
    return f"CASE WHEN {present} THEN {LABEL} = (SELECT max({LABEL}) FROM {rows} WHERE {present}) END"


def _number(engine: Engine, model: Model, rows: str) -> str:
    kind = dialect_of(engine).kinds(engine, rows)[LABEL]
    if kind not in ("float", "integer", "decimal"):
        raise TrainingError(
            f"The label of {model.subject} is no number",
            where=str(model.declared_at),
            hint="regression predicts numbers; for yes or no use mp.Classification",
        )
    number = f"CAST({LABEL} AS DOUBLE)"
    infinite = engine.rows(f"SELECT count(*) FROM {rows} WHERE abs({number}) = CAST('Infinity' AS DOUBLE)")[0][0]
    if infinite:
        raise TrainingError(
            f"{infinite} labels of {model.subject} are infinite",
            where=str(model.declared_at),
            hint="leave such rows out with where=, or make their label null",
        )
    return f"CASE WHEN NOT isnan({number}) THEN {number} END"
