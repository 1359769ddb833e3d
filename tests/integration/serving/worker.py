"""A serving worker with a real LightGBM model and some that misbehave: worker.py SOCKET SPOOL MODEL [PORT]

Without a model (MODEL is "-") it starts in a moment, and only "slow" answers.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import uvloop

from millpond.access.ports import Identity
from millpond.core.errors import NotFound, Unavailable
from millpond.core.time import now
from millpond.server.http.limits import Limits
from millpond.server.present import ThreadedAnswering
from millpond.server.sockets import listen, part_listener
from millpond.server.worker import Ports, serve
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


class Everybody:
    """Takes any token, and its text for the name of who asks."""

    def authenticate_token(self, secret: str) -> Identity | None:
        return Identity(secret, "user", now()) if secret.isalpha() else None

    def authenticate_session(self, secret: str) -> Identity | None:
        return None


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
    place, spool, directory, *ports = sys.argv[1:]
    models = Models(Path(spool), Path(directory))
    answering = ThreadedAnswering(models, Path(spool).with_name("unloaded.json"), threads=2, waiting=6)
    limits = Limits(message_seconds=1.0)
    port = listen("127.0.0.1", int(ports[0])) if ports else None
    with part_listener(Path(place)) as trusted:
        uvloop.run(serve(answering, trusted, Ports(port), Everybody(), limits))
    answering.close()
