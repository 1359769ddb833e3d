"""Behind a value that differs: the rows it is recomputed from, and what became of the rows it was served from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from millpond.core.errors import MillpondError, NotFound
from millpond.core.time import grid_floor
from millpond.features.ports import PinnedView
from millpond.monitoring.report import FeatureSkew, SkewExample
from millpond.platform.platform import Platform

if TYPE_CHECKING:
    from millpond.features.explain import FeatureExplanation
    from millpond.features.plan import Feature, ViewPlan
    from millpond.lake.ports import Engine, Snapshot
    from millpond.monitoring.changes import Changes
    from millpond.monitoring.skew import Differing


def explained(
    platform: Platform,
    engine: Engine,
    features: Sequence[FeatureSkew],
    differing: Mapping[str, Sequence[Differing]],
    pinned: Sequence[PinnedView],
) -> tuple[FeatureSkew, ...]:
    """The features with their examples. Opens sessions of the engine; call it outside of one."""
    behind = _Behind(platform, engine, pinned)
    return tuple(
        replace(each, examples=tuple(behind.example(each, one) for one in differing.get(each.feature, ())))
        for each in features
    )


class _Behind:
    """Looks behind values; what is asked for one feature of a view is kept for its others."""

    def __init__(self, platform: Platform, engine: Engine, pinned: Sequence[PinnedView]) -> None:
        from millpond.features.plan import plan_view

        self._platform = platform
        self._engine = engine
        self._plans = {each.view.name: plan_view(each) for each in pinned}
        self._known: dict[tuple[str, str], dict[str, FeatureExplanation]] = {}

    def example(self, feature: FeatureSkew, found: Differing) -> SkewExample:
        plain = SkewExample(
            prediction_id=found.prediction_id,
            as_of=found.as_of,
            served=found.served,
            recomputed=found.recomputed,
            receipt=f"/predictions/{found.prediction_id}",
        )
        plan = self._plans.get(feature.view)
        if plan is None:
            return replace(plain, why="it is computed from the request alone, and comes out otherwise today")
        now_behind = self._explain(plan, found)[feature.feature]
        arrived, gone, why = self._changes(plan, feature.feature, found)
        return replace(
            plain,
            rows=now_behind.rows,
            row_keys=_texts(tuple(key.values()) for key in now_behind.example_rows),
            arrived=arrived.rows if arrived else None,
            arrived_keys=_texts(arrived.keys) if arrived else (),
            gone=gone.rows if gone else None,
            gone_keys=_texts(gone.keys) if gone else (),
            why=why,
        )

    def _explain(self, plan: ViewPlan, found: Differing) -> dict[str, FeatureExplanation]:
        from millpond.features.explain import explain

        key = (plan.view, found.prediction_id)
        if key not in self._known:
            self._known[key] = {
                each.name: each for each in explain(self._engine, [plan.pinned], found.keys, found.as_of)
            }
        return self._known[key]

    def _changes(self, plan: ViewPlan, name: str, found: Differing) -> tuple[Changes | None, Changes | None, str]:
        """Rows that came, and that went, between the snapshot served from and the current one; and that in words."""
        from millpond.monitoring.changes import Sight, rows_only_in

        after = plan.pinned.snapshot
        number = found.snapshots.get(after.table)
        before = self._snapshot(after.table, number)
        if before is None:
            return None, None, f"the snapshot of {after.table} that it was served from is not kept"
        feature = next(each for each in plan.features if each.name == name)
        sight = Sight(
            entity={key: found.keys[key] for key in plan.entity_keys},
            columns=_columns(plan, feature),
            row_keys=plan.row_keys,
            time=plan.time,
            known=plan.known,
            at=_moment(plan, found.as_of),
            reach=feature.within if feature.kind == "latest" else feature.over,
        )
        try:
            arrived = rows_only_in(self._engine, after, before, sight)
            gone = rows_only_in(self._engine, before, after, sight)
        except MillpondError as error:
            return None, None, error.what
        return arrived, gone, _words(after.table, arrived, gone, pushed=bool(found.events.get(after.table)))

    def _snapshot(self, table: str, number: int | None) -> Snapshot | None:
        try:
            return None if number is None else self._platform.lake.snapshot(table, number)
        except NotFound:
            return None


def _columns(plan: ViewPlan, feature: Feature) -> tuple[str, ...]:
    """The columns on which the feature's value depends."""
    used = [*plan.row_keys, plan.time, plan.known, feature.column.name if feature.column else None]
    return tuple(dict.fromkeys(each for each in used if each is not None)) or plan.entity_keys


def _moment(plan: ViewPlan, as_of: datetime) -> datetime | None:
    grid = plan.pinned.view.grid
    return None if plan.time is None else grid_floor(as_of, grid) if grid else as_of


def _texts(keys: Iterable[tuple[Any, ...]]) -> tuple[str, ...]:
    return tuple(str(key[0]) if len(key) == 1 else f"({', '.join(map(str, key))})" for key in keys)


def _words(table: str, arrived: Changes | None, gone: Changes | None, *, pushed: bool) -> str:
    if arrived is None or gone is None:
        return f"{table} did not have these columns when it was served"
    if not arrived.rows and not gone.rows:
        return f"the rows of {table} are what they were when it was served: the value was not made of them"
    parts = []
    if arrived.rows:
        were = "row was" if arrived.rows == 1 else "rows were"
        parts.append(f"{arrived.rows:,} {were} added or changed later, at an instant before the prediction's")
    if gone.rows:
        parts.append(f"{gone.rows:,} that it was made of {'is' if gone.rows == 1 else 'are'} no longer there as then")
    seen = " (pushed events among them that had come by then were seen)" if pushed else ""
    return f"{table}: {'; '.join(parts)}{seen}"
