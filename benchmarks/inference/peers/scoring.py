"""What every peer that is a framework puts behind its route: the model of a folder in MLflow's format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


class Scorer:
    """The LightGBM booster or the scikit-learn pipeline of a folder, called in this process with one thread.

    Attributes:
        pipeline: The pipeline itself, where that is what the folder holds.
    """

    def __init__(self, folder: Path) -> None:
        self._booster: Any = None
        self.pipeline: Any = None
        if (folder / "model.lgb").exists():
            import lightgbm

            self._booster = lightgbm.Booster(model_file=str(folder / "model.lgb"))
        else:
            import cloudpickle

            with (folder / "model.pkl").open("rb") as file:
                self.pipeline = cloudpickle.load(file)

    @property
    def matrix(self) -> bool:
        """Whether the model takes one matrix, and not named columns."""
        return self._booster is not None

    def rows(self, values: Any) -> np.ndarray[Any, Any]:
        """Probabilities of a matrix of rows."""
        found: np.ndarray[Any, Any] = self._booster.predict(np.asarray(values, dtype=np.float64), num_threads=1)
        return found

    def columns(self, values: Mapping[str, Sequence[Any]]) -> np.ndarray[Any, Any]:
        """Probabilities of named columns."""
        import pandas as pd

        found: np.ndarray[Any, Any] = self.pipeline.predict_proba(pd.DataFrame(dict(values)))[:, 1]
        return found

    def document(self, document: Mapping[str, Any]) -> list[float]:
        """Of {"rows": [[...], ...]} or {"columns": {name: [...]}}."""
        found = self.rows(document["rows"]) if "rows" in document else self.columns(document["columns"])
        answers: list[float] = found.tolist()
        return answers
