"""A serving process' versions: opened as the routing document says, changed between requests, closed when unused."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from millpond.core.errors import MillpondError, NotFound, Unavailable
from millpond.platform.bundles import inline_views
from millpond.platform.inline_features import InlineFeatures, TableWatch
from millpond.platform.platform import Platform
from millpond.serving.engine.engine import Deployed, Engine
from millpond.serving.engine.explaining import Explainer
from millpond.serving.engine.loaded import Loaded
from millpond.serving.engine.ports import Log, Plan
from millpond.serving.lanes.command import native_command
from millpond.serving.lanes.environments import environment_for, needs_of
from millpond.serving.lanes.lane import Lane
from millpond.serving.lanes.ports import LaneLimits
from millpond.serving.ports import LogPolicy, ModelState
from millpond.serving.routing import Routing, RoutingTable, ServedVersion, set_loaded
from millpond.serving.traffic.deployment import Deployment
from millpond.serving.traffic.statistics import Statistics

#: Seconds between two looks at the routing document.
LOOK_EVERY = 0.1

#: Seconds for which a version that nothing names any more stays open.
KEPT_SECONDS = 60.0

#: Versions that are open because somebody asked for them by number.
MOST_ASKED = 8

Key = tuple[str, int]

_log = logging.getLogger("millpond.serving")


class _Open(NamedTuple):
    """An open version.

    Attributes:
        entry: What it was opened from.
        loaded: Its parts.
        lanes: Its processes.
        required: Those that must be ready before it can answer; the others are started when they are needed.
        features: Looks features up in this process, or None.
        featurizer: The process that knows them where this one does not, or None.
    """

    entry: ServedVersion
    loaded: Loaded
    lanes: tuple[Lane, ...]
    required: tuple[Lane, ...]
    features: InlineFeatures | None = None
    featurizer: Lane | None = None

    def waiting(self) -> list[Lane] | None:
        """The processes without which it cannot answer well yet; None where that will be known in a moment."""
        needed = list(self.required)
        if self.features is not None and self.featurizer is not None:
            warm = self.features.warm
            if warm is None:
                return None
            if not warm:
                self.featurizer.start()
                needed.append(self.featurizer)
        return [lane for lane in needed if lane.state.state != "ready"]


class Gateway:
    """Implements `serving.engine.engine.Versions`, and keeps an engine with what is deployed.

    Made and used in the thread of one event loop; plans are read, and environments made, in threads beside it.

    Args:
        platform: The project. What it imports is little: neither definitions nor the model store are read here.
        log: The prediction log.
        loop: The event loop.
    """

    def __init__(self, platform: Platform, log: Log, loop: asyncio.AbstractEventLoop) -> None:
        self._platform = platform
        self._loop = loop
        self._routing = Routing(platform.settings.serving)
        self._table = RoutingTable()
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="open")
        self._open: dict[Key, _Open] = {}
        self._opening: dict[Key, list[Callable[[Loaded | Exception], None]]] = {}
        self._failed: dict[Key, str] = {}
        self._proven: set[Key] = set()
        self._unused: dict[Key, float] = {}
        self._asked: dict[Key, None] = {}
        self._deployed: dict[str, Deployed] = {}
        self._watch: TableWatch | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._generation = 0
        self._explainer = Explainer(loop)
        self.statistics = Statistics()
        self.engine = Engine(self, log, self.statistics, loop)

    def start(self) -> None:
        """Open what is deployed, and follow it from now on."""
        self._look()

    async def close(self) -> None:
        """Stop all processes; to be called when no request is under way any more."""
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.gather(*(lane.close() for each in self._open.values() for lane in each.lanes))
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._explainer.close()
        if self._watch is not None:
            await self._loop.run_in_executor(None, self._watch.close)

    def traffic(self) -> list[dict[str, Any]]:
        """What was counted, and by which generation of the routing document this process answers; one snapshot."""
        failed = [(model, version, why) for (model, version), why in self._failed.items()]
        return [self.statistics.snapshot(self._generation, failed)]

    def opening(self) -> Sequence[ModelState]:
        """See `serving.engine.engine.Versions`."""
        late = {name: each.live for name, each in self._table.deployments.items() if name not in self._deployed}
        return [
            ModelState(name, str(live), "UNAVAILABLE", self._failed[name, live])
            if (name, live) in self._failed
            else ModelState(name, str(live), "LOADING", "it is being opened")
            for name, live in sorted(late.items())
        ]

    # --- what the engine asks

    def fetch(self, model: str, version: int, then: Callable[[Loaded | Exception], None]) -> None:
        """See `serving.engine.engine.Versions`."""
        key = (model, version)
        self._asked.pop(key, None)
        self._asked[key] = None
        found = self._open.get(key)
        if found is not None:
            then(found.loaded)
        elif key in self._table.versions:
            self._begin(key, self._table.versions[key], then)
        else:
            self._begin(key, None, then)

    def states(self, model: str, loaded: Loaded) -> ModelState:
        """See `serving.engine.engine.Versions`."""
        key = (model, loaded.served.version)
        found = self._open.get(key)
        told = partial(ModelState, model, str(loaded.served.version))
        if found is None:
            return told("UNAVAILABLE", self._failed.get(key, "it is not open"))
        troubles = [lane.state for lane in found.required if lane.state.state != "ready"]
        if not troubles:
            return told("READY")
        failing = next((each for each in troubles if each.state == "failing"), None)
        return told("UNAVAILABLE", failing.reason) if failing is not None else told("LOADING", "its process starts")

    def set_loaded(self, model: str, loaded: bool) -> None:
        """See `serving.engine.engine.Versions`."""
        set_loaded(self._platform.settings.serving, model, loaded)

    # --- following the routing document

    def _look(self) -> None:
        try:
            table = self._routing.current()
            if table is not self._table:
                self._table = table
                self._failed.clear()
            if table.generation != self._generation or self._waiting():
                self._follow(table)
            self._close_unused()
        except Exception:
            _log.exception("what is deployed cannot be followed")
        self._timer = self._loop.call_later(LOOK_EVERY, self._look)

    def _waiting(self) -> bool:
        return any(
            self._deployed.get(name) is None or self._deployed[name].deployment != each
            for name, each in self._table.deployments.items()
        )

    def _follow(self, table: RoutingTable) -> None:
        """Deploy every model whose versions are open and ready; start opening the others."""
        deployed: dict[str, Deployed] = {}
        complete = True
        for name, deployment in table.deployments.items():
            found = self._deploy(name, deployment)
            if found is not None and found.deployment == deployment:
                deployed[name] = found
                continue
            complete = complete and self._given_up(deployment, found)
            before = found or self._deployed.get(name)
            if before is not None:
                deployed[name] = before
        if deployed != self._deployed:
            self._deployed = deployed
            self.engine.deploy(deployed)
        if complete:
            self._generation = table.generation

    def _given_up(self, deployment: Deployment, found: Deployed | None) -> bool:
        """Whether all versions that are not at work cannot be opened, so that there is nothing to wait for."""
        name, live = deployment.model, deployment.live
        if found is None:
            return (name, live) in self._failed
        tried = [each for each in (deployment.canary, *deployment.shadows) if each is not None]
        return all(each in found.versions or (name, each) in self._failed for each in tried)

    def _deploy(self, name: str, deployment: Deployment) -> Deployed | None:
        """The deployment with its versions, where they can answer; without a canary or shadow that cannot be opened."""
        wanted = [deployment.live, *([deployment.canary] if deployment.canary is not None else []), *deployment.shadows]
        usable: dict[int, Loaded] = {}
        for number in wanted:
            loaded = self._usable((name, number))
            if loaded is not None:
                usable[number] = loaded
        if deployment.live not in usable:
            return None
        if len(usable) == len(set(wanted)):
            return Deployed(deployment, usable)
        canary = deployment.canary if deployment.canary in usable else None
        shadows = tuple(number for number in deployment.shadows if number in usable)
        return Deployed(deployment._replace(canary=canary, shadows=shadows), usable)

    def _usable(self, key: Key) -> Loaded | None:
        found = self._open.get(key)
        entry = self._table.versions.get(key)
        if found is not None and entry is not None and found.entry != entry:
            if _but_for_log(found.entry) == _but_for_log(entry):
                self._open[key] = found = found._replace(entry=entry, loaded=found.loaded.serving(entry.served))
            else:
                self._retire(key)
                found = None
        if found is None:
            if key not in self._failed and entry is not None:
                self._begin(key, entry, lambda _done: None)
            return None
        if key in self._proven:  # what becomes of its processes shows in its answers
            return found.loaded
        late = found.waiting()
        if late is None:
            return None
        for lane in late:
            if lane.state.state == "failing":
                self._failed[key] = lane.state.reason
        if late:
            return None
        self._proven.add(key)
        self._failed.pop(key, None)
        return found.loaded

    def _close_unused(self) -> None:
        used = {(name, number) for name, each in self._deployed.items() for number in each.versions}
        used |= set(self._table.versions)
        while len(self._asked) > MOST_ASKED:
            self._asked.pop(next(iter(self._asked)))
        moment = time.monotonic()
        for key in list(self._open):
            if key in used or key in self._asked:
                self._unused.pop(key, None)
            elif moment - self._unused.setdefault(key, moment) > KEPT_SECONDS:
                self._unused.pop(key)
                self._retire(key)

    def _retire(self, key: Key) -> None:
        self._proven.discard(key)
        for lane in self._open.pop(key).lanes:
            self._loop.create_task(lane.close())

    # --- opening a version

    def _begin(self, key: Key, entry: ServedVersion | None, then: Callable[[Loaded | Exception], None]) -> None:
        if key in self._opening:
            self._opening[key].append(then)
            return
        self._opening[key] = [then]

        def prepared(future: Any) -> None:
            error = future.exception()
            result: Loaded | Exception
            if error is None:
                found = self._put_together(*future.result())
                self._open[key] = found
                for lane in found.required:
                    lane.start()
                result = found.loaded
            else:
                result = error if isinstance(error, MillpondError) else _broken(key, error)
                self._failed[key] = str(getattr(result, "what", result))
                _log.warning("version %s of model %s cannot be opened: %s", key[1], key[0], result)
            for each in self._opening.pop(key):
                each(result)

        self._loop.run_in_executor(self._threads, self._prepare, key, entry).add_done_callback(prepared)

    def _prepare(self, key: Key, entry: ServedVersion | None) -> tuple[ServedVersion, Plan | None, Path | None]:
        """What takes time: reading the plan, or finding the interpreter of the estimator. In a thread."""
        if entry is None:
            from millpond.platform import deployments

            entry = deployments.find(self._platform, key[0], key[1])
        if entry.plan is not None and (entry.tier or {}).get("tier") == "compiled":
            from millpond.serving.plans.store import load_plan

            try:
                return entry, load_plan(entry.plan), None
            except MillpondError as error:
                _log.warning("version %s of model %s serves natively: %s", key[1], key[0], error)
        if not (entry.directory / "MLmodel").is_file():
            raise NotFound(f"the files of version {key[1]} of model {key[0]!r} are missing", where=str(entry.directory))
        needs = needs_of(entry.directory)
        root = self._platform.settings.state / "environments"
        return entry, None, environment_for(needs.requirements, needs.python, root)

    def _put_together(self, entry: ServedVersion, plan: Plan | None, interpreter: Path | None) -> _Open:
        served = entry.served
        name = f"version {served.version} of model {served.model!r}"
        native = None
        if interpreter is not None:
            native = self._lane(native_command(interpreter, entry.directory, served), name, "native", served)
        told: Mapping[str, Any] = entry.extras.get("features", {})
        featurizer = features = None
        if told.get("needed"):
            featurizer = self._lane(self._featurizer_command(served.model, served.version), name, "features", served)
            if told["inline"]:
                features = InlineFeatures(served, inline_views(told), self._platform.online, self._tables())
        explainer = self._explainer if plan is not None else None
        loaded = Loaded(served, plan=plan, native=native, features=features, featurizer=featurizer, explainer=explainer)
        required = [lane for lane in (native, featurizer if features is None else None) if lane is not None]
        lanes = [lane for lane in (native, featurizer) if lane is not None]
        return _Open(entry, loaded, tuple(lanes), tuple(required), features, featurizer)

    def _lane(self, command: Sequence[str], name: str, kind: str, served: Any) -> Lane:
        log = self._platform.settings.state / "logs" / f"{kind}-{served.model}-{served.version}.log"
        profile = self._platform.settings.profile
        limits = LaneLimits(memory_bytes=profile.model_memory)
        if kind == "native":
            limits = replace(limits, call_seconds=profile.model_seconds)
        return Lane(command, name=name, limits=limits, log=log, loop=self._loop)

    def _featurizer_command(self, model: str, version: int) -> list[str]:
        settings = self._platform.settings
        command = [sys.executable, "-m", "millpond.platform.featurizer_host", "--project", str(settings.root)]
        return [*command, "--profile", settings.profile_name, "--model", model, "--version", str(version)]

    def _tables(self) -> TableWatch:
        if self._watch is None:
            self._watch = TableWatch(self._platform.lineage, self._platform.online)
        return self._watch


def _but_for_log(entry: ServedVersion) -> ServedVersion:
    """An entry without what is logged of its answers, which changes while it serves."""
    return replace(entry, served=replace(entry.served, logging=LogPolicy()))


def _broken(key: Key, error: BaseException) -> Unavailable:
    found = Unavailable(
        f"version {key[1]} of model {key[0]!r} cannot be opened: {type(error).__name__}: {error}",
        where=f"model {key[0]!r}",
        hint="serve an earlier version; the log of the worker says more",
    )
    found.__cause__ = error
    return found
