"""How MLflow's pyfunc scores a Millpond model. A copy of this file lies inside every version, in `code/`.

It needs MLflow and what the model itself needs, and not Millpond, so that any MLflow tool can use a version by itself:
`mlflow.pyfunc.load_model(...).predict(frame)` gives a float64 array of shape (rows,) with the probability of yes of a
classification, or the number of a regression. `mlflow.sklearn.load_model(...)` gives the bare scikit-learn pipeline.

Several versions in one process share the first copy that was imported, so what this file does with a model directory
may grow but not change.
"""

from typing import Any

import numpy as np
import pandas as pd  # noqa: TID253 - imported by MLflow alone


class Scorer:
    """A pipeline behind the one shape of input and output that all versions share.

    Args:
        pipeline: Fitted; takes the raw inputs as a frame.
        inputs: Name -> whether it is a number, in the pipeline's order.
        task: "classification" or "regression".
    """

    def __init__(self, pipeline: Any, inputs: dict[str, bool], task: str) -> None:
        self.pipeline = pipeline
        self.inputs = inputs
        self.task = task

    def get_raw_model(self) -> Any:
        return self.pipeline

    def predict(self, data: Any, params: Any = None) -> Any:  # noqa: ARG002 - the signature is MLflow's
        """Score a frame of raw inputs: columns in any order, an absent one is null in every row.

        Returns:
            float64, shape (rows,).
        """
        frame = self._frame(data if isinstance(data, pd.DataFrame) else pd.DataFrame(data))
        if self.task == "classification":
            return np.asarray(self.pipeline.predict_proba(frame), dtype=np.float64)[:, 1]
        return np.asarray(self.pipeline.predict(frame), dtype=np.float64).reshape(-1)

    def _frame(self, data: pd.DataFrame) -> pd.DataFrame:
        """Numbers as float64 with NaN for null, strings as objects with None for null, in the pipeline's order."""
        columns = {}
        for name, numeric in self.inputs.items():
            column = data[name] if name in data else pd.Series([None] * len(data), index=data.index, dtype=object)
            if numeric:
                columns[name] = pd.to_numeric(column, errors="raise").astype(np.float64)
            else:
                values = column.astype(object)
                columns[name] = values.where(values.notna(), None)
        return pd.DataFrame(columns, index=data.index)


def _load_pyfunc(path: str) -> Scorer:
    """MLflow calls this with the model's directory."""
    import mlflow.sklearn
    from mlflow.models import Model

    model = Model.load(path)
    inputs = {column.name: column.type.name == "double" for column in model.signature.inputs}
    return Scorer(mlflow.sklearn.load_model(path), inputs, model.metadata["millpond"]["task"])
