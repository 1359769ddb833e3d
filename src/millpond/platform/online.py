"""Keeping the online store up to date: what it holds, refreshing it, and forgetting an entity everywhere."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from millpond.core.errors import Conflict, MillpondError, NotFound, Unavailable
from millpond.core.fingerprints import fingerprint
from millpond.core.names import did_you_mean
from millpond.core.time import Duration, grid_floor, now
from millpond.definitions.features import Features
from millpond.features.online.ports import OnlineView, ViewState
from millpond.features.plan import ViewPlan, plan_view
from millpond.features.ports import PinnedView
from millpond.lake.ports import Snapshot
from millpond.platform import versions
from millpond.platform.applied import record
from millpond.platform.events import land, land_or_wait
from millpond.platform.platform import Platform
from millpond.platform.progress import step
from millpond.registry.ports import Version

_log = logging.getLogger("millpond.upkeep")

How = Literal["full", "incremental", "up to date"]


@dataclass(frozen=True)
class Refreshed:
    """What refreshing a view did.

    Attributes:
        view: The view's name.
        how: "full", "incremental", or "up to date" where nothing was to be done.
        state: What the store holds of it now.
    """

    view: str
    how: How
    state: ViewState


def refresh(platform: Platform, names: Sequence[str] = (), *, full: bool = False) -> list[Refreshed]:
    """Bring views up to date online: the named ones, else all that the project declares or a champion uses.

    A live view is loaded from the lake once and then kept up by pushed events; it is loaded again where its table was
    changed in another way. A view with `every` gets the values of the newest grid point. Killed at any point, the old
    values stay whole.

    Args:
        platform: The project.
        names: Views.
        full: Do everything again, whatever is there.

    Raises:
        NotFound: No such view, or its table has not been ingested.
        Conflict: Another process refreshes the same view.
    """
    champions = [view for each in _champions(platform) for view in versions.load(platform, each).views]
    wanted = list(_each_meaning(platform, champions))
    known = {view.name for view in wanted}
    for name in names:
        if name not in known:
            raise NotFound(f"There is no feature view {name!r}", hint=did_you_mean(name, known, noun="feature views"))
    chosen = [view for view in wanted if not names or view.name in names]
    land(platform, {view.source.name for view in chosen})
    done = []
    for view in chosen:
        done.append(_refresh(platform, view, full=full))
        if platform.definitions.views.get(view.name) is view:
            record(platform, view)
    return done


class Upkeep:
    """What a running platform does every few seconds, beside predictions. Used by one thread."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._views: dict[tuple[str, int], tuple[Features, ...]] = {}
        self._done: dict[str, tuple[int, datetime | None]] = {}

    def run(self) -> list[Refreshed]:
        """Land events, refresh what is not up to date, drop what nobody uses.

        Kept up are the views that champions use, and declared ones that were refreshed by hand once.

        A view that cannot be refreshed now is left as it is; predictions then compute it from the lake.
        """
        platform = self._platform
        land_or_wait(platform)
        champions = list(self._champion_views())
        held = {state.view.name for state in platform.online_states}
        declared = [view for name, view in platform.definitions.views.items() if name in held]
        views = [*champions, *declared]
        done = [each for view in views if (each := self._refresh(view)) is not None and each.how != "up to date"]
        if done:
            drop_unused(platform, champions)
        return done

    def _refresh(self, view: Features) -> Refreshed | None:
        try:
            snapshot = _source(self._platform, view)
            at = (snapshot.id, grid_floor(now(), view.grid) if view.grid else None)
            meaning = fingerprint(view.describe())
            if self._done.get(meaning) == at:
                return None
            done = _refresh(self._platform, view, full=False)
        except (NotFound, Conflict, Unavailable):
            return None
        except MillpondError as error:  # the other views need not wait for this one
            _log.warning("%s is not refreshed: %s", view.subject, error)
            return None
        self._done[meaning] = at
        return done

    def _champion_views(self) -> Iterator[Features]:
        for version in _champions(self._platform):
            number = (version.model, version.number)
            if number not in self._views:
                self._views[number] = versions.load(self._platform, version).views
            yield from self._views[number]


def drop_unused(platform: Platform, champions: Sequence[Features]) -> list[str]:
    """Delete what the store holds of meanings that neither the project nor a champion has any more; their names."""
    kept = {
        online.fingerprint
        for view in _each_meaning(platform, champions)
        if (online := _online(platform, view)) is not None
    }
    dropped = []
    for state in platform.online.states():
        if state.view.fingerprint not in kept:
            platform.online.drop(state.view)
            with suppress(NotFound):  # its table may be gone
                platform.lake.unpin(state.view.table, f"online-{state.view.fingerprint}")
            dropped.append(state.view.name)
    return dropped


def _refresh(platform: Platform, view: Features, *, full: bool) -> Refreshed:
    snapshot = _source(platform, view)
    plan = plan_view(PinnedView(view, snapshot))
    known = OnlineView.of(plan)
    state = _state(platform, known)
    with step(platform.listener, f"refresh {view.name}") as current:
        if known.every is None:
            done = _refresh_live(platform, plan, known, state, full=full)
        else:
            done = _refresh_grid(platform, plan, known, state, full=full)
        if done.how == "up to date":
            current.up_to_date(f"{done.state.entities:,} entities")
        else:
            current.detail = f"{done.state.entities:,} entities, {done.how}"
    return done


def _refresh_live(
    platform: Platform, plan: ViewPlan, known: OnlineView, state: ViewState | None, *, full: bool
) -> Refreshed:
    from millpond.features.online.refresh import live_rows, live_since

    table = known.table
    if state is not None and not full and _follows(platform, state):
        return Refreshed(known.name, "up to date", state)
    position = platform.online.landed(table)  # before the snapshot is taken: it then holds all of these
    plan = plan_view(PinnedView(plan.pinned.view, platform.lake.snapshot(table)))
    with platform.compute() as engine, engine.session():
        since = live_since(engine, plan, now())
        rows = live_rows(engine, plan, since)
        done = platform.online.load(OnlineView.of(plan), plan.pinned.snapshot.id, since, position, rows)
    _keep(platform, known, plan.pinned.snapshot)
    return Refreshed(known.name, "full", done)


def _refresh_grid(
    platform: Platform, plan: ViewPlan, known: OnlineView, state: ViewState | None, *, full: bool
) -> Refreshed:
    from millpond.features.online.refresh import grid_values

    assert known.every is not None
    grid = grid_floor(now(), Duration(known.every))
    if state is not None and not full and state.grid == grid and _follows(platform, state):
        return Refreshed(known.name, "up to date", state)
    changed = None if full else _before(platform, state)
    with platform.compute() as engine, engine.session():
        values = grid_values(engine, plan, grid, changed)
        done = platform.online.publish(known, plan.pinned.snapshot.id, grid, values, full=changed is None)
    _keep(platform, known, plan.pinned.snapshot)
    return Refreshed(known.name, "full" if changed is None else "incremental", done)


def _follows(platform: Platform, state: ViewState) -> bool:
    """Whether nothing but pushed events has come into the view's table since."""
    return platform.lineage.only_landed_since(state.view.table, state.source)


def _keep(platform: Platform, known: OnlineView, snapshot: Snapshot) -> None:
    """Keep the snapshot that a view was made of from expiry, in place of the one before."""
    name = f"online-{known.fingerprint}"
    platform.lake.unpin(snapshot.table, name)
    platform.lake.pin(snapshot, name)


def _before(platform: Platform, state: ViewState | None) -> tuple[Snapshot, datetime] | None:
    """What the values that are there were computed from, where that can still be read."""
    if state is None or state.grid is None:
        return None
    try:
        return platform.lake.snapshot(state.view.table, state.source), state.grid
    except NotFound:
        return None


def _each_meaning(platform: Platform, champions: Sequence[Features]) -> Iterator[Features]:
    """Views that the project declares, and those of champions that mean something else; each meaning once."""
    seen = []
    for view in (*platform.definitions.views.values(), *champions):
        meaning = view.describe()
        if meaning not in seen:
            seen.append(meaning)
            yield view


def _champions(platform: Platform) -> Iterator[Version]:
    for name in platform.store.models():
        version = versions.champion(platform, name)
        if version is not None:
            yield version


def _source(platform: Platform, view: Features) -> Snapshot:
    if not platform.lake.exists(view.source.name):
        raise NotFound(
            f"Table {view.source.name}, which {view.subject} is made of, is not in the lake yet",
            where=str(view.declared_at),
            hint="run `millpond ingest`, and `millpond check` for derived tables",
        )
    return platform.lake.snapshot(view.source.name)


def _online(platform: Platform, view: Features) -> OnlineView | None:
    try:
        return OnlineView.of(plan_view(PinnedView(view, _source(platform, view))))
    except MillpondError:
        return None


def _state(platform: Platform, view: OnlineView) -> ViewState | None:
    with platform.online.read() as reader:
        return reader.state(view)
