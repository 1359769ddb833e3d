"""The one conversion of raw model inputs into the frame that estimators take, in training and in serving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from millpond.core.errors import DataError
from millpond.core.names import did_you_mean

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

#: What a model input may be.
INPUT_TYPES = ("float64", "int64", "bool", "string")


def to_frame(rows: pa.Table, inputs: Mapping[str, str]) -> pd.DataFrame:
    """Raw model inputs as an estimator takes them.

    Numbers and booleans become float64 (true is 1.0), with NaN for null; integers beyond 2**53 are rounded. Strings
    become object with None for null.

    Args:
        rows: Holds at least the columns in `inputs`, in any order; any number of rows, none included.
        inputs: Name -> type, one of "float64", "int64", "bool", "string".

    Returns:
        One row a row of `rows`, in order; columns in the order of `inputs`; index 0, 1, 2 ...

    Raises:
        DataError: A column is missing, or its type is not of the declared kind.
    """
    import pandas as pd

    names = rows.column_names
    columns: dict[str, pd.Series[Any]] = {}
    for name, kind in inputs.items():
        if name not in names:
            raise DataError(f"there is no column {name!r}", where="model inputs", hint=did_you_mean(name, names))
        values = _strings(name, rows[name]) if kind == "string" else _numbers(name, rows[name], kind)
        columns[name] = pd.Series(values, dtype=object if kind == "string" else "float64", copy=False)
    return pd.DataFrame(columns, index=pd.RangeIndex(rows.num_rows), columns=list(inputs))


def _numbers(name: str, column: Any, kind: str) -> Any:
    import pyarrow as pa

    found = column.type
    numeric = pa.types.is_integer(found) or pa.types.is_floating(found) or pa.types.is_decimal(found)
    if kind not in INPUT_TYPES or not (numeric or pa.types.is_boolean(found) or pa.types.is_null(found)):
        raise _mismatch(name, found, kind)
    return column.cast(pa.float64(), safe=False).to_numpy()


def _strings(name: str, column: Any) -> Any:
    import pyarrow as pa

    found = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    textual = pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_string_view(found)
    if not (textual or pa.types.is_null(found)):
        raise _mismatch(name, column.type, "string")
    return column.cast(pa.string()).to_numpy()


def _mismatch(name: str, found: Any, kind: str) -> DataError:
    return DataError(
        f"column {name!r} holds {found}, and the model input is declared as {kind}",
        where="model inputs",
        hint="inputs are numbers, booleans or strings; turn dates and instants into numbers with @request_features",
    )
