"""The versions that a worker answers with, each in threads of its own, for wires that ask from one event loop."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillAtWork
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from millpond.core.errors import DeadlineExceeded, MillpondError, NotFound, Overloaded, RequestError, Unavailable
from millpond.core.names import did_you_mean
from millpond.core.time import from_microseconds, to_microseconds
from millpond.platform.served import ServedModels
from millpond.serving.columns import request_schema
from millpond.serving.log.spool import PredictionLog
from millpond.serving.ports import Answer, InferRequest, ModelState, Question, ServedModel

if TYPE_CHECKING:
    from millpond.platform.platform import Platform
    from millpond.serving.predictor import Predictor

#: Requests of one model that are worked on at the same time, and that may be there at the same time.
THREADS, WAITING = 4, 64

_LOOK_SECONDS = 0.25
_PATIENCE_SECONDS = 0.5
T = TypeVar("T")


class Directory(Protocol):
    """Knows which version answers for a model. Called from several threads at once; may block while it loads."""

    def names(self) -> Sequence[str]:
        """The models that have a version to serve, sorted."""
        ...

    def get(self, model: str, version: str | None = None) -> Predictor:
        """The predictor of a version, or of the one that serves. Raises NotFound, Unavailable."""
        ...


class ThreadedAnswering:
    """An `Answering` over predictors that block. What is deployed is looked up beside the requests.

    Args:
        models: The predictors.
        unloaded: File that names the models that do not answer; shared with other workers.
        threads: Requests of one model that are worked on at the same time.
        waiting: Requests of one model that may be there; one more is refused.
    """

    def __init__(self, models: Directory, unloaded: Path, *, threads: int = THREADS, waiting: int = WAITING) -> None:
        self._models = models
        self._unloaded_file = unloaded
        self._threads, self._most = threads, waiting
        self._lanes: dict[str, ThreadPoolExecutor] = {}
        self._present: dict[str, int] = {}
        self._looking = ThreadPoolExecutor(4, "looking")
        self._stopping = threading.Event()
        self._live: dict[str, Predictor | MillpondError] = {}
        self._unloaded: frozenset[str] = frozenset()
        self._looked = threading.Event()
        self._loading: dict[str, Future[Predictor]] = {}
        self._watch = threading.Thread(target=self._keep_looking, daemon=True)
        self._watch.start()

    def close(self) -> None:
        """Stop looking; requests that have begun are finished by their threads."""
        self._stopping.set()
        self._looking.shutdown(wait=False, cancel_futures=True)
        for lane in self._lanes.values():
            lane.shutdown(wait=False, cancel_futures=True)

    def ask(self, question: Question) -> None:
        """See `Answering`."""
        model = question.model
        try:
            lane = self._lane(model)
            present = self._present[model]
            if present >= self._most:
                raise Overloaded(
                    f"model {model!r} has {present} requests to answer already",
                    where=f"model {model!r}",
                    hint="ask again in a moment, or send more rows in one request",
                )
        except Exception as error:
            question.done(None, error)
            return
        self._present[model] = present + 1
        loop = asyncio.get_running_loop()

        def told(request: InferRequest | None, answer: Answer | Exception) -> None:
            self._present[model] -= 1
            question.done(request, answer)

        def work() -> None:
            request: InferRequest | None = None
            try:
                if question.gone():
                    raise DeadlineExceeded("nobody waits for the answer any more", where=f"model {model!r}")
                predictor = self._models.get(model, question.version)
                request = question.read(predictor.served)
                answer: Answer | Exception = _predict(predictor, request, question.user)
            except Exception as error:
                answer = error
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(told, request, answer)

        lane.submit(work)

    def served(self, model: str, version: str | None = None) -> ServedModel:
        """See `Answering`."""
        return self._predictor(model, version).served

    def state(self, model: str, version: str | None = None) -> ModelState:
        """See `Answering`."""
        if model in self._unloaded:
            return ModelState(model, version or "", "UNAVAILABLE", "unloaded")
        try:
            found = self._predictor(model, version)
        except Unavailable as error:
            return ModelState(model, version or "", "LOADING", error.what)
        return ModelState(model, str(found.served.version), "READY")

    def index(self) -> Sequence[ModelState]:
        """See `Answering`."""
        self._looked.wait(_PATIENCE_SECONDS)
        found = []
        for name, predictor in sorted(self._live.items()):
            if name in self._unloaded:
                found.append(ModelState(name, "", "UNLOADED", "unloaded"))
            elif isinstance(predictor, MillpondError):
                found.append(ModelState(name, "", "LOADING", predictor.what))
            else:
                found.append(ModelState(name, str(predictor.served.version), "READY"))
        return found if self._looked.is_set() else [ModelState("*", "", "LOADING", "models are being looked for")]

    def load(self, model: str) -> None:
        """See `Answering`."""
        self._check_name(model)
        self._write_unloaded(self._unloaded - {model})

    def unload(self, model: str) -> None:
        """See `Answering`."""
        self._check_name(model)
        self._write_unloaded(self._unloaded | {model})

    def _lane(self, model: str) -> ThreadPoolExecutor:
        if model in self._unloaded:
            raise NotFound(f"model {model!r} was unloaded", where="/v2/models", hint="load it: POST .../load")
        lane = self._lanes.get(model)
        if lane is None:
            self._check_name(model)
            lane = self._lanes[model] = ThreadPoolExecutor(self._threads, f"model {model}")
            self._present[model] = 0
        return lane

    def _check_name(self, model: str) -> None:
        if model not in self._live:
            names = self._patiently(self._looking.submit(self._models.names), "models")
            if model not in names:
                hint = did_you_mean(model, names, noun="models")
                raise NotFound(f"there is no model {model!r} to ask", where="/v2/models", hint=hint)
            self._live.setdefault(model, self._late(model))

    @staticmethod
    def _late(model: str) -> Unavailable:
        return Unavailable(f"model {model!r} is not loaded yet", where="/v2/models", hint="ask again in a moment")

    def _predictor(self, model: str, version: str | None) -> Predictor:
        if model in self._unloaded:
            raise NotFound(f"model {model!r} was unloaded", where="/v2/models", hint="load it: POST .../load")
        self._check_name(model)
        if version is None and model in self._live:
            found = self._live[model]
            if isinstance(found, MillpondError):
                raise found
            return found
        key = f"{model}/{version}"
        loading = self._loading.get(key)
        if loading is None:
            loading = self._loading[key] = self._looking.submit(self._models.get, model, version)
            loading.add_done_callback(lambda _done: self._loading.pop(key, None))
        return self._patiently(loading, f"version {version} of model {model!r}")

    def _patiently(self, work: Future[T], what: str) -> T:
        """What `work` gives, where that is soon."""
        try:
            return work.result(_PATIENCE_SECONDS)
        except StillAtWork as error:
            raise Unavailable(f"{what}: not loaded yet", where="/v2/models", hint="ask again in a moment") from error

    def _keep_looking(self) -> None:
        while not self._stopping.is_set():
            with suppress(Exception):
                self._look()
            self._stopping.wait(_LOOK_SECONDS)

    def _look(self) -> None:
        with suppress(OSError, ValueError):
            self._unloaded = frozenset(json.loads(self._unloaded_file.read_text()))
        names = self._models.names()
        for name in names:
            self._live.setdefault(name, self._late(name))
        self._looked.set()
        for name in set(self._live) - set(names):
            del self._live[name]
        for name in names:
            try:
                self._live[name] = self._models.get(name)
            except MillpondError as error:
                self._live[name] = error

    def _write_unloaded(self, names: frozenset[str]) -> None:
        self._unloaded_file.parent.mkdir(parents=True, exist_ok=True)
        partial = self._unloaded_file.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(sorted(names)))
        partial.replace(self._unloaded_file)
        self._unloaded = names


@contextmanager
def open_answering(platform: Platform) -> Iterator[ThreadedAnswering]:
    """The champions of a project, loaded beside the first requests."""
    log = PredictionLog(platform.settings.spool)
    answering = ThreadedAnswering(ServedModels(platform, log), platform.settings.state / "serving" / "unloaded.json")
    try:
        yield answering
    finally:
        answering.close()
        log.close()


def _predict(predictor: Predictor, request: InferRequest, user: str) -> Answer:
    served = predictor.served
    if request.raw or request.explain:
        raise RequestError("raw inputs and explanations are not taken", where=f"model {served.model!r}")
    rows = request.rows.to_arrow(request_schema(served.columns))
    as_of = from_microseconds(request.as_of) if request.as_of is not None else None
    predictions = predictor.predict(rows, as_of, user)
    synced = [to_microseconds(each.synced_at) for each in predictions if each.synced_at is not None]
    return Answer(
        served,
        "live",
        [each.id for each in predictions],
        {served.outputs[0].name: [each.output for each in predictions]},
        None if served.threshold is None else [bool(each.answer) for each in predictions],
        [to_microseconds(each.as_of) for each in predictions],
        min(synced, default=None),
    )
