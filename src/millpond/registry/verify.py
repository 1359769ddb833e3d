"""The clean process that a model must pass before it becomes a version.

    python -I -m millpond.registry.verify DIRECTORY

Loads the MLflow model in DIRECTORY the way a stranger would, with `mlflow.pyfunc`, predicts the rows in
`millpond/expected.json` and compares. Without an argument it makes ready first, and then reads the directory from
standard input: whoever has a model to write meanwhile saves the time of the imports.

The last line of standard output is a JSON object, `{"ok": true, "rows": n}` or `{"ok": false, "reason": "...",
"details": "..."}`; the exit code is 0 or 1.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import math
import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

#: Where the rows and the expected output lie in a model's directory.
EXPECTED = Path("millpond") / "expected.json"
RELATIVE_TOLERANCE = 1e-9
_LIKELY_IMPORTS = ("mlflow.pyfunc", "mlflow.sklearn", "sklearn.compose", "sklearn.pipeline", "lightgbm")


class Mismatch(Exception):
    """The model loads, and does not do what it did in the process that trained it."""


def verify(directory: Path) -> int:
    """Load, predict, compare.

    Returns:
        How many rows were compared.

    Raises:
        Mismatch: A prediction is not a finite number, or differs by more than 1e-9 relative.
        Exception: Whatever loading or predicting raises.
    """
    import mlflow.pyfunc
    import pandas as pd

    record = json.loads((directory / EXPECTED).read_text(encoding="utf-8"))
    if record.get("foreign"):
        return _verify_foreign(directory, record)
    columns = {
        name: pd.Series(values, dtype="float64" if record["inputs"][name] == "double" else "object")
        for name, values in record["columns"].items()
    }
    predicted = mlflow.pyfunc.load_model(str(directory)).predict(pd.DataFrame(columns))
    compare(record["expected"], [float(value) for value in predicted])
    return len(record["expected"])


def _verify_foreign(directory: Path, record: dict[str, Any]) -> int:
    """Of a model that something else wrote: that it loads, and gives the same numbers where it gives numbers."""
    import mlflow.pyfunc
    import numpy as np
    import pandas as pd

    rows = record["rows"]
    given = np.asarray(rows) if isinstance(rows, list) else pd.DataFrame(rows)
    if isinstance(given, pd.DataFrame):
        for name in record["instants"]:
            given[name] = pd.to_datetime(given[name])
    predicted = mlflow.pyfunc.load_model(str(directory)).predict(given)
    if isinstance(predicted, dict):
        predicted = pd.DataFrame({name: list(values) for name, values in predicted.items()})
    values = np.asarray(predicted)
    if len(values) != len(given):
        raise Mismatch(f"predicted {len(values)} values for {len(given)} rows")
    if record["expected"]:
        compare(record["expected"], values.astype("float64").ravel().tolist())
    return len(given)


def compare(expected: list[float], predicted: list[float]) -> None:
    """Raise `Mismatch` unless all values are finite and equal within the tolerance."""
    if len(expected) != len(predicted):
        raise Mismatch(f"predicted {len(predicted)} values for {len(expected)} rows")
    for row, (wanted, got) in enumerate(zip(expected, predicted, strict=True)):
        if not math.isfinite(got):
            raise Mismatch(f"predicted {got} for row {row} of the input example")
        if not math.isclose(wanted, got, rel_tol=RELATIVE_TOLERANCE):
            raise Mismatch(f"predicted {got!r} for row {row} of the input example, and {wanted!r} when it was trained")


def _make_ready() -> None:
    for name in _LIKELY_IMPORTS:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def _result(directory: Path) -> dict[str, Any]:
    try:
        return {"ok": True, "rows": verify(directory)}
    except Mismatch as error:
        return {"ok": False, "reason": str(error), "details": ""}
    except Exception as error:  # noqa: BLE001, RUF100 - whatever it is, it is the answer
        message = str(error).partition("\n")[0]
        return {"ok": False, "reason": f"{type(error).__name__}: {message}", "details": traceback.format_exc()}


def main(arguments: list[str]) -> int:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    sys.dont_write_bytecode = True  # the model's directory holds what was written there, and nothing else
    # Libraries print where they like; the answer keeps a stream of its own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    if not arguments:
        _make_ready()
    logging.disable(logging.WARNING)
    place = arguments[0] if arguments else sys.stdin.readline().rstrip("\n")
    if not place:
        return 1
    result = _result(Path(place))
    answers.write(json.dumps(result) + "\n")
    answers.flush()
    # Native libraries may hang or crash while they shut down; the answer is given.
    os._exit(0 if result["ok"] else 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
