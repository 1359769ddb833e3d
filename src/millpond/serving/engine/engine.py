"""The engine: answers questions with whichever version a deployment says, and logs what it answered.

Everything happens in the thread of one event loop. A compiled version is answered within the call; a process of a
version answers later. An answer leaves once it is in the prediction log.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from millpond.core.errors import (
    AccessDenied,
    DeadlineExceeded,
    MillpondError,
    NotFound,
    RequestError,
    Unavailable,
)
from millpond.core.ids import new_id
from millpond.core.names import did_you_mean
from millpond.serving.engine.loaded import Loaded, thresholded
from millpond.serving.engine.ports import Featured, Log
from millpond.serving.log.ids import RowIds
from millpond.serving.ports import Answer, Explanation, InferRequest, LogRecord, ModelState, Question, ServedModel
from millpond.serving.rows import Column
from millpond.serving.traffic.deployment import CANARY, LIVE, SHADOW, Deployment
from millpond.serving.traffic.statistics import Statistics

#: Answers that wait to be given to shadows, or to be compared; more are let go, and counted.
MOST_MIRRORED = 1000

#: Errors that another version would give as well, or that leave no time to ask one.
_FINAL = (RequestError, NotFound, AccessDenied, DeadlineExceeded)


class Loop(Protocol):
    """The part of an event loop that the engine needs."""

    def call_soon(self, callback: Callable[..., object], *arguments: Any) -> object: ...


class Deployed(NamedTuple):
    """A model at work.

    Attributes:
        deployment: Which versions answer, and what share.
        versions: Every version that the deployment names, loaded.
    """

    deployment: Deployment
    versions: Mapping[int, Loaded]


class Versions(Protocol):
    """Finds versions that no deployment names, and remembers what is unloaded."""

    def fetch(self, model: str, version: int, then: Callable[[Loaded | Exception], None]) -> None:
        """Load a version beside the traffic; `then` is called in the thread of the event loop."""
        ...

    def states(self, model: str, loaded: Loaded) -> ModelState:
        """Whether a loaded version answers now."""
        ...

    def opening(self) -> Sequence[ModelState]:
        """Models that are deployed, and that this process does not answer for yet."""
        ...

    def set_loaded(self, model: str, loaded: bool) -> None:
        """Note for all workers that a model is to be answered for, or not."""
        ...


class Engine:
    """Implements `serving.ports.Answering`.

    Args:
        versions: Finds versions that are asked for by number.
        log: The prediction log.
        counts: Statistics of versions.
        loop: The event loop in whose thread all of this happens.
    """

    def __init__(self, versions: Versions, log: Log, counts: Statistics, loop: Loop) -> None:
        self._versions = versions
        self.log = log.append
        self._counts = counts
        self._loop = loop
        self._deployed: dict[str, Deployed] = {}
        self._mirrored: deque[Callable[[], None]] = deque()
        self._run = new_id("p")
        self._answered = 0
        self.dropped = 0

    def deploy(self, deployed: Mapping[str, Deployed]) -> None:
        """Answer with these from the next request on; requests that are under way end as they began."""
        self._deployed = dict(deployed)
        for model, each in deployed.items():
            self._counts.enter(model, each.deployment.epoch)

    def ask(self, question: Question) -> None:
        """See `serving.ports.Answering`."""
        started = time.perf_counter()
        model = question.model
        try:
            deployed = self._find(model)
            if question.version is not None:
                self._ask_version(question, deployed, started)
                return
            deployment = deployed.deployment
            loaded = deployed.versions[deployment.live]
            try:
                request = question.read(loaded.served)
            except RequestError as error:
                self._counts.observe(model, deployment.live, LIVE, 0, 0.0, error)
                raise
            if deployment.canary is None:
                _Asked(self, question, request, loaded, LIVE, started, deployed).start()
                return
            version, variant = deployment.choose(request.routing_key or _entity(request, loaded))
            chosen = deployed.versions[version]
            if chosen is not loaded and chosen.signature != loaded.signature:
                try:
                    request = question.read(chosen.served)
                except RequestError as error:  # the live version takes it: the caller is not to suffer
                    self.count(chosen, variant, 0, started, _not_taken(chosen, error))
                    chosen, variant = loaded, LIVE
            _Asked(self, question, request, chosen, variant, started, deployed).start()
        except Exception as error:
            question.done(None, error)

    def served(self, model: str, version: str | None = None) -> ServedModel:
        """See `serving.ports.Answering`."""
        return self._loaded(model, version).served

    def state(self, model: str, version: str | None = None) -> ModelState:
        """See `serving.ports.Answering`."""
        deployed = self._deployed.get(model)
        if deployed is None:
            late = next((each for each in self._versions.opening() if each.name == model), None)
            if late is not None:
                return late
        elif not deployed.deployment.loaded:
            return ModelState(model, version or str(deployed.deployment.live), "UNLOADED", "it was unloaded")
        return self._versions.states(model, self._loaded(model, version))

    def index(self) -> Sequence[ModelState]:
        """See `serving.ports.Answering`."""
        found = list(self._versions.opening())
        for model, deployed in sorted(self._deployed.items()):
            for number, loaded in sorted(deployed.versions.items()):
                state = self._versions.states(model, loaded)
                unloaded = ModelState(model, str(number), "UNLOADED", "it was unloaded")
                found.append(state if deployed.deployment.loaded else unloaded)
        return found

    def load(self, model: str) -> None:
        """See `serving.ports.Answering`."""
        self._set_loaded(model, True)

    def unload(self, model: str) -> None:
        """See `serving.ports.Answering`."""
        self._set_loaded(model, False)

    def _set_loaded(self, model: str, loaded: bool) -> None:
        if model not in self._deployed:
            raise self._no_model(model)
        self._versions.set_loaded(model, loaded)
        deployed = self._deployed[model]
        self._deployed[model] = deployed._replace(deployment=deployed.deployment._replace(loaded=loaded))

    def _find(self, model: str) -> Deployed:
        found = self._deployed.get(model)
        if found is None:
            raise self._no_model(model)
        if not found.deployment.loaded:
            raise NotFound(
                f"model {model!r} was unloaded",
                where="/v2/repository",
                hint=f"load it: POST /v2/repository/models/{model}/load",
            )
        return found

    def _no_model(self, model: str) -> NotFound | Unavailable:
        for each in self._versions.opening():
            if each.name == model:
                what = f"model {model!r} cannot answer yet: {each.reason}"
                return Unavailable(what, where=f"model {model!r}", hint="ask again in a moment")
        hint = did_you_mean(model, self._deployed, noun="models")
        return NotFound(f"there is no model {model!r} to ask", where="/v2/models", hint=hint)

    def _loaded(self, model: str, version: str | None) -> Loaded:
        deployed = self._find(model)
        number = deployed.deployment.live if version is None else _number(model, version)
        found = deployed.versions.get(number)
        if found is None:
            there = ", ".join(map(str, sorted(deployed.versions)))
            what = f"version {number} of model {model!r} is not deployed"
            raise NotFound(what, where="/v2/models", hint=f"deployed: {there}; a request that names it loads it")
        return found

    def _ask_version(self, question: Question, deployed: Deployed, started: float) -> None:
        assert question.version is not None
        number = _number(question.model, question.version)
        loaded = deployed.versions.get(number)

        def go(found: Loaded | Exception) -> None:
            if isinstance(found, Exception):
                question.done(None, found)
                return
            try:
                request = question.read(found.served)
            except Exception as error:
                question.done(None, error)
                return
            _Asked(self, question, request, found, "asked", started, deployed).start()

        if loaded is not None:
            go(loaded)
        else:
            self._versions.fetch(question.model, number, go)

    def ids(self, rows: int) -> Sequence[str]:
        """A new prediction id a row; the ids of a request sort as its rows do."""
        self._answered += 1
        base = f"{self._run}-{self._answered:x}"
        return [base] if rows == 1 else RowIds(base, rows)

    def count(self, loaded: Loaded, variant: str, rows: int, started: float, error: Exception | None = None) -> None:
        served = loaded.served
        self._counts.observe(served.model, served.version, variant, rows, time.perf_counter() - started, error)

    def mirror(self, work: Callable[[], None]) -> None:
        """Do something once the answers of this turn of the loop have been sent."""
        if len(self._mirrored) >= MOST_MIRRORED:
            self.dropped += 1
            return
        if not self._mirrored:
            self._loop.call_soon(self._mirror_next)
        self._mirrored.append(work)

    def _mirror_next(self) -> None:
        try:
            self._mirrored.popleft()()
        finally:
            if self._mirrored:
                self._loop.call_soon(self._mirror_next)

    def compare(self, loaded: Loaded, variant: str, one: Answer, live: Answer) -> None:
        """Count how a version's outputs differ from the ones of the live version on the same rows."""
        served = loaded.served
        for name, outputs in one.outputs.items():
            other = live.outputs.get(name)
            if other is not None and len(other) == len(outputs):
                self._counts.compare(
                    served.model, served.version, variant, list(outputs), list(other), one.answers, live.answers
                )
            return


class _Asked:
    """One question on its way through a version."""

    __slots__ = (
        "_deployed", "_engine", "_given", "_loaded", "_question", "_request", "_started", "_variant",
    )  # fmt: skip

    def __init__(
        self,
        engine: Engine,
        question: Question,
        request: InferRequest,
        loaded: Loaded,
        variant: str,
        started: float,
        deployed: Deployed,
    ) -> None:
        self._engine, self._question, self._request = engine, question, request
        self._loaded, self._variant, self._started, self._deployed = loaded, variant, started, deployed

    def start(self) -> None:
        question = self._question
        try:
            self._loaded.score(self._request, self._scored, question.deadline, question.gone)
        except Exception as error:
            self._refuse(error)

    def _scored(self, featured: Featured | None, outputs: Mapping[str, Column] | Exception) -> None:
        if isinstance(outputs, Exception) or featured is None:
            self._refuse(outputs if isinstance(outputs, Exception) else Unavailable("there are no features"))
            return
        if not self._request.explain:
            self._answer(featured, outputs, None)
            return
        question = self._question

        def explained(found: Explanation | Exception) -> None:
            if isinstance(found, Exception):
                self._refuse(found)
            else:
                self._answer(featured, outputs, found)

        self._loaded.explain(featured, explained, question.deadline, question.gone)

    def _answer(self, featured: Featured, outputs: Mapping[str, Column], explanation: Explanation | None) -> None:
        """Log an answer; who asked is told when that is done."""
        request, question = self._request, self._question
        served = self._loaded.served
        self._given = answer = Answer(
            served,
            self._variant,
            self._engine.ids(request.rows.count),
            outputs,
            None if served.threshold is None else thresholded(served, outputs),
            featured.as_of,
            featured.synced_at,
            explanation,
        )
        record = LogRecord(
            answer,
            request.rows,
            request.raw,
            featured.inputs,
            time.time_ns() // 1000,
            question.user,
            int((time.perf_counter() - self._started) * 1e6),
            request.id,
            featured.snapshots,
            featured.events,
        )
        try:
            self._engine.log(record, self._logged)
        except Exception as error:
            question.done(request, error)

    def _refuse(self, error: Exception) -> None:
        """Tell the error; where a canary has failed, the live version answers instead."""
        self._engine.count(self._loaded, self._variant, self._request.rows.count, self._started, error)
        live = self._deployed.versions.get(self._deployed.deployment.live)
        if self._variant != CANARY or live is None or isinstance(error, _FINAL):
            self._question.done(self._request, error)
            return
        self._variant = LIVE
        if live.signature != self._loaded.signature:
            try:
                self._request = self._question.read(live.served)
            except Exception as refused:
                self._question.done(None, refused)
                return
        self._loaded = live
        self.start()

    def _logged(self, error: Exception | None) -> None:
        if error is not None:
            self._question.done(self._request, error)
            return
        answer = self._given
        self._engine.count(self._loaded, self._variant, self._request.rows.count, self._started)
        self._question.done(self._request, answer)
        if self._variant == CANARY and self._deployed.deployment.compares:
            live = self._deployed.versions[self._deployed.deployment.live]
            self._engine.mirror(lambda: self._compare_with(live, answer))
        elif self._variant == LIVE:
            for number in self._deployed.deployment.shadows:
                shadow = self._deployed.versions[number]
                self._engine.mirror(lambda shadow=shadow: self._shadow(shadow, answer))  # type: ignore[misc]

    def _compare_with(self, live: Loaded, answer: Answer) -> None:
        """Have the live version score what a canary answered, for the comparison alone."""

        def scored(_featured: Featured | None, outputs: Mapping[str, Column] | Exception) -> None:
            if not isinstance(outputs, Exception):
                theirs = Answer(live.served, LIVE, (), outputs, thresholded(live.served, outputs), ())
                self._engine.compare(self._loaded, CANARY, answer, theirs)

        self._again(live, scored)

    def _shadow(self, shadow: Loaded, answer: Answer) -> None:
        """Have a shadow score what the live version answered; its outputs are compared and logged."""
        started = time.perf_counter()
        rows = self._request.rows.count

        def scored(featured: Featured | None, outputs: Mapping[str, Column] | Exception) -> None:
            if isinstance(outputs, Exception) or featured is None:
                failed = outputs if isinstance(outputs, Exception) else Unavailable("there are no features")
                self._engine.count(shadow, SHADOW, rows, started, failed)
                return
            self._engine.count(shadow, SHADOW, rows, started)
            mine = Answer(
                shadow.served,
                SHADOW,
                self._engine.ids(rows),
                outputs,
                thresholded(shadow.served, outputs),
                featured.as_of,
                featured.synced_at,
            )
            self._engine.compare(shadow, SHADOW, mine, answer)
            record = LogRecord(
                mine,
                self._request.rows,
                self._request.raw,
                featured.inputs,
                time.time_ns() // 1000,
                self._question.user,
                int((time.perf_counter() - started) * 1e6),
                self._request.id,
                featured.snapshots,
                featured.events,
                answer.served.version,
            )
            with suppress(Exception):  # it was compared; nobody waits for its answer
                self._engine.log(record, lambda _error: None)

        self._again(shadow, scored)

    def _again(self, loaded: Loaded, scored: Any) -> None:
        request = self._request
        try:
            if loaded.signature != self._loaded.signature:
                request = self._question.read(loaded.served)
        except Exception as error:
            scored(None, _not_taken(loaded, error))
            return
        try:
            loaded.score(request, scored)
        except Exception as error:
            scored(None, error)


def _entity(request: InferRequest, loaded: Loaded) -> str | None:
    """The entity of a request's first row, as text; None where it names none."""
    found = [request.rows.column(name) for name in loaded.keys]
    values = [str(column[0]) for column in found if column is not None]
    return "\x1f".join(values) if values else request.id


def _not_taken(loaded: Loaded, error: Exception) -> MillpondError:
    """That a version refuses what the live one takes: its own fault, not the caller's."""
    found = MillpondError(
        f"{loaded.name} does not take what the live version takes: {error}",
        where=loaded.name,
        hint="give its new columns defaults, or let callers send them before it is released",
    )
    found.__cause__ = error
    return found


def _number(model: str, version: str) -> int:
    if not (version.isascii() and version.isdigit()) or len(version) > 18:
        raise NotFound(
            f"model {model!r} has no version {version!r}", where="/v2/models", hint="versions are numbers: 1, 2, 3 ..."
        )
    return int(version)
