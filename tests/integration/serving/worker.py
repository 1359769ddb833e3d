"""A serving worker with a real LightGBM model and some that misbehave: worker.py SOCKET SPOOL MODEL [PORT]

Without a model (MODEL is "-") it starts in a moment, and only "slow" answers. As worker.py slow it is that model's
process.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import uvloop

from millpond.access.ports import Identity
from millpond.core.errors import NotFound
from millpond.core.time import now
from millpond.server.http.limits import Limits
from millpond.server.sockets import listen, part_listener
from millpond.server.worker import Ports, serve
from millpond.serving.engine.engine import Deployed, Engine
from millpond.serving.engine.loaded import Loaded
from millpond.serving.engine.ports import Featured
from millpond.serving.lanes import host
from millpond.serving.lanes.command import native_command
from millpond.serving.lanes.lane import Lane
from millpond.serving.lanes.ports import LaneLimits
from millpond.serving.log.spool import PredictionLog
from millpond.serving.ports import ModelState, RequestColumn, ServedModel
from millpond.serving.rows import Rows
from millpond.serving.traffic.deployment import Deployment
from millpond.serving.traffic.statistics import Statistics

COLUMNS = (
    RequestColumn("origin", "string", True, "key"),
    RequestColumn("scheduled_at", "instant", False, "request"),
    RequestColumn("distance", "float64", False, "input"),
    RequestColumn("seats", "int64", False, "input"),
)
INPUTS = {"distance": "float64", "seats": "int64"}


def served(model: str) -> ServedModel:
    return ServedModel(model, 3, "classification", 0.5, COLUMNS, "scheduled_at", INPUTS)


class FromRequest:
    """All inputs are in the request."""

    def look_up(self, rows: Rows, as_of: int | None) -> Featured:
        moment = time.time_ns() // 1000
        own = rows.columns.get("scheduled_at") or [None] * rows.count
        instants = [as_of or (moment if each is None else int(each)) for each in own]
        inputs = Rows(rows.count, tuple(INPUTS), tuple(rows.columns.get(name, [None] * rows.count) for name in INPUTS))
        return Featured(inputs, instants, {"flights": 42}, {})


class Broken:
    def look_up(self, rows: Rows, as_of: int | None) -> Featured:
        raise KeyError("a secret of the house")


class Everybody:
    """Takes any token, and its text for the name of who asks."""

    def authenticate_token(self, secret: str) -> Identity | None:
        return Identity(secret, "user", now()) if secret.isalpha() else None

    def authenticate_session(self, secret: str) -> Identity | None:
        return None


class Versions:
    """What is not deployed: a model that is being opened for as long as a file is there."""

    def __init__(self, lanes: dict[str, Lane], waiting: Path) -> None:
        self._lanes, self._waiting = lanes, waiting

    def fetch(self, model: str, version: int, then: Callable[[Loaded | Exception], None]) -> None:
        then(NotFound(f"model {model!r} has no version {version}", hint="versions: 3"))

    def states(self, model: str, loaded: Loaded) -> ModelState:
        ready = model not in self._lanes or self._lanes[model].state.state == "ready"
        return ModelState(model, "3", "READY" if ready else "LOADING")

    def opening(self) -> Sequence[ModelState]:
        return [ModelState("loading", "1", "LOADING", "it is being opened")] if self._waiting.exists() else []

    def set_loaded(self, model: str, loaded: bool) -> None:
        pass


async def run(trusted: Path, spool: Path, directory: Path, port: int | None) -> None:
    loop = asyncio.get_running_loop()
    few = LaneLimits(batch_rows=1, most_batch_rows=1, waiting_requests=4)
    lanes = {"slow": Lane([sys.executable, __file__, "slow"], name="version 3 of model 'slow'", limits=few, loop=loop)}
    known = {"slow": Loaded(served("slow"), native=lanes["slow"], features=FromRequest())}
    if directory.is_dir():
        command = native_command(Path(sys.executable), directory, served("late_arrival"))
        lanes["late_arrival"] = lane = Lane(command, name="version 3 of model 'late_arrival'", loop=loop)
        known["late_arrival"] = Loaded(served("late_arrival"), native=lane, features=FromRequest())
        known["broken"] = Loaded(served("broken"), native=lane, features=Broken())
    for lane in lanes.values():
        lane.start()
    log = PredictionLog(spool, loop=loop)
    engine = Engine(Versions(lanes, directory / "loading"), log, Statistics(), loop)
    engine.deploy({name: Deployed(Deployment(name, 3), {3: loaded}) for name, loaded in known.items()})
    listener = listen("127.0.0.1", port) if port is not None else None
    with part_listener(trusted) as socket:
        await serve(engine, socket, Ports(listener), Everybody(), Limits(message_seconds=1.0))
    for lane in lanes.values():
        await lane.close()
    log.close()


def answer_slowly(rows: Rows) -> tuple[Rows, dict[str, object]]:
    time.sleep(0.3)
    return Rows.of({"output": [0.5] * rows.count}), {}


if __name__ == "__main__":
    if sys.argv[1] == "slow":
        sys.exit(host.serve(lambda: answer_slowly))
    place, spool, directory, *ports = sys.argv[1:]
    uvloop.run(run(Path(place), Path(spool), Path(directory), int(ports[0]) if ports else None))
