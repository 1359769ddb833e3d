"""A serving worker with a real LightGBM model and some that misbehave: worker.py (SOCKET | PORT) SPOOL MODEL

Without a model (MODEL is "-") it starts in a moment, and only "slow" answers.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from millpond.core.errors import NotFound, Unavailable
from millpond.core.time import now
from millpond.server.inference import Limits, inference_app
from millpond.server.inference_worker import serve_port, serve_socket
from millpond.serving.log.spool import PredictionLog
from millpond.serving.ports import Featurized, RequestColumn, ServedModel
from millpond.serving.predictor import Predictor
from millpond.serving.runtime import NativeRuntime

COLUMNS = (
    RequestColumn("origin", "string", True, "key"),
    RequestColumn("scheduled_at", "instant", False, "request"),
    RequestColumn("distance", "float64", False, "input"),
    RequestColumn("seats", "int64", False, "input"),
)
INPUTS = {"distance": "float64", "seats": "int64"}


def to_frame(rows: Any, inputs: Mapping[str, str]) -> Any:
    import pandas as pd

    return pd.DataFrame(
        {
            name: pd.array(rows.column(name).to_pylist(), "Float64").to_numpy("float64", na_value=float("nan"))
            for name in inputs
        }
    )


def served(model: str) -> ServedModel:
    return ServedModel(model, 3, "classification", 0.5, COLUMNS, "scheduled_at", INPUTS)


class FromRequest:
    def featurize(self, rows: Any, as_of: datetime | None) -> Featurized:
        instants = tuple(as_of or each or now() for each in rows.column("scheduled_at").to_pylist())
        return Featurized(rows.select(list(INPUTS)), instants, {"flights": 42})


class Slow:
    def predict(self, inputs: Any) -> list[float]:
        time.sleep(0.3)
        return [0.5] * inputs.num_rows


class Broken:
    def featurize(self, rows: Any, as_of: datetime | None) -> Featurized:
        raise KeyError("a secret of the house")


class Models:
    def __init__(self, spool: Path, directory: Path) -> None:
        log = PredictionLog(spool)
        self._predictors = {"slow": Predictor(served("slow"), Slow(), FromRequest(), log)}
        if directory.is_dir():
            runtime = NativeRuntime(directory, served("late_arrival"), to_frame)
            self._predictors["late_arrival"] = Predictor(served("late_arrival"), runtime, FromRequest(), log)
            self._predictors["broken"] = Predictor(served("broken"), runtime, Broken(), log)
        self.waiting = directory / "loading"

    def names(self) -> list[str]:
        return sorted([*self._predictors, *(["loading"] if self.waiting.exists() else [])])

    def get(self, model: str, version: str | None = None) -> Predictor:
        if model == "loading":
            raise Unavailable("version 1 of model 'loading' is not loaded yet", hint="ask again in a moment")
        if version not in (None, "3"):
            raise NotFound(f"model {model!r} has no version {version!r}", hint="versions: 3")
        return self._predictors[model]


if __name__ == "__main__":
    place, spool, directory = sys.argv[1:]
    app = inference_app(Models(Path(spool), Path(directory)), limits=Limits(body_seconds=1.0, threads=2, waiting=6))
    if place.isdigit():
        serve_port(app, int(place))
    else:
        serve_socket(app, Path(place))
