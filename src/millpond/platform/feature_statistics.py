"""Statistics of a view's features, computed in the engine over the newest training set that holds them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from millpond.core.fingerprints import fingerprint
from millpond.definitions.features import Features
from millpond.definitions.meanings import Key, meaning
from millpond.features.point_in_time import dialect_of
from millpond.lake.ports import Engine, Snapshot
from millpond.platform.applied import Record
from millpond.platform.feature_models import FeatureStatistics, StatisticsBasis
from millpond.platform.platform import Platform
from millpond.platform.training_sets import PREFIX, VIEWS

_NUMBERS = ("int", "long", "float", "double")
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_TOP = 5


def statistics(
    platform: Platform, view: Features, record: Record
) -> tuple[StatisticsBasis | None, Mapping[str, FeatureStatistics]]:
    """What is known of the values of a view's features, by feature, and over what.

    A training set of the declared meaning goes before a newer one of another meaning. Features that it does not
    hold have none.
    """
    snapshot = _newest(platform, view)
    if snapshot is None:
        return None, {}
    types = {column.name: column.type for column in snapshot.columns}
    held = [name for name in view.features if f"{view.name}__{name}" in types]
    with platform.engine() as engine:
        relation = engine.scan(snapshot)
        found = {
            name: _statistics(engine, relation, f"{view.name}__{name}", types[f"{view.name}__{name}"], snapshot.rows)
            for name in held
        }
        entities = _entities(engine, relation, [key for key in view.entity.keys if key in types])
    print_ = _views(snapshot)[view.name]
    basis = StatisticsBasis(
        table=snapshot.table,
        snapshot_id=snapshot.id,
        committed_at=snapshot.committed_at,
        rows=snapshot.rows,
        entities=entities,
        version=record.numbers.get((Key("view", view.name), print_)),
        current=print_ == fingerprint(meaning(view)),
    )
    return basis, found


def _newest(platform: Platform, view: Features) -> Snapshot | None:
    sets = [platform.lake.snapshot(name) for name in platform.lake.tables() if name.startswith(PREFIX)]
    holding = [each for each in sets if view.name in _views(each)]
    print_ = fingerprint(meaning(view))
    return max(holding, key=lambda each: (_views(each)[view.name] == print_, each.committed_at), default=None)


def _views(snapshot: Snapshot) -> dict[str, str]:
    found: dict[str, str] = json.loads(snapshot.properties.get(VIEWS, "{}"))
    return found


def _statistics(engine: Engine, relation: str, name: str, type_: str, rows: int) -> FeatureStatistics:
    column = dialect_of(engine).quote(name)
    measured = ["NULL"]
    if type_ in _NUMBERS:
        measured = [f"avg({column})", f"min({column})", f"max({column})"]
        measured += [f"percentile_cont({each}) WITHIN GROUP (ORDER BY {column})" for each in _QUANTILES]
    elif type_ == "boolean":
        measured = [f"avg(CAST({column} AS INT))"]
    counted = f"count({column}), count(DISTINCT {column})"
    present, distinct, mean, *rest = engine.rows(f"SELECT {counted}, {', '.join(measured)} FROM {relation}")[0]
    quantiles: dict[str, float] = {}
    if rest and present:
        least, greatest, *inner = rest
        numbers = zip(("0.0", *map(str, _QUANTILES), "1.0"), (least, *inner, greatest), strict=True)
        quantiles = {share: float(value) for share, value in numbers if math.isfinite(value)}
    top: Sequence[tuple[Any, ...]] = ()
    if type_ not in _NUMBERS:
        top = engine.rows(
            f"SELECT {column}, count(*) AS n FROM {relation} WHERE {column} IS NOT NULL "
            f"GROUP BY {column} ORDER BY n DESC, {column} LIMIT {_TOP}"
        )
    return FeatureStatistics(
        nulls=1 - present / rows if rows else 0.0,
        distinct=distinct,
        mean=float(mean) if mean is not None and math.isfinite(mean) else None,
        quantiles=quantiles,
        top=tuple((value, count) for value, count in top),
    )


def _entities(engine: Engine, relation: str, keys: Sequence[str]) -> int:
    names = [dialect_of(engine).quote(key) for key in keys]
    named = " AND ".join(f"{name} IS NOT NULL" for name in names)
    different = f"SELECT DISTINCT {', '.join(names)} FROM {relation} WHERE {named}"
    return int(engine.rows(f"SELECT count(*) FROM ({different}) AS different")[0][0])
