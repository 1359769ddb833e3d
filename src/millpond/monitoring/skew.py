"""Served feature values beside recomputed ones, compared in the engine, one pass a feature. SQL of DuckDB."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from millpond.core.time import format_instant
from millpond.lake.ports import Engine
from millpond.lake.schema import literal, quoted
from millpond.monitoring.report import FeatureSkew

#: Columns of the spine beside those of the request.
ROW, PREDICTION, AS_OF = "__row", "__prediction", "__as_of"
SNAPSHOTS, EVENTS = "__snapshots", "__events"
#: What the names of request columns, and of model inputs, begin with in the prediction log.
REQUEST, INPUT = "request__", "input__"

_SQL_TYPES = {
    "int64": "BIGINT",
    "float64": "DOUBLE",
    "bool": "BOOLEAN",
    "string": "VARCHAR",
    "instant": "TIMESTAMP WITH TIME ZONE",
}
_NUMBERS = ("int64", "float64")
_EXAMPLES = 3
_VALUES = "__skew_values"


@dataclass(frozen=True)
class LoggedFeature:
    """A feature as the prediction log has it.

    Attributes:
        name: Full name, which is its name in the log and in what was recomputed.
        view: What it belongs to.
        type: "int64", "float64", "bool" or "string".
        tolerance: Relative difference up to which two values are equal; 0 is bit for bit.
        meaning: Fingerprint of what it means.
        reason: Why it cannot be recomputed; empty where it can.
        redacted: Whether the log is not to hold it, or what it is made of; it is then neither compared nor missing.
    """

    name: str
    view: str
    type: str
    tolerance: float
    meaning: str
    reason: str = ""
    redacted: bool = False


@dataclass(frozen=True)
class Window:
    """Which logged predictions: those of a version, answered in `[since, until)`; None is unbounded.

    Requests that carried raw inputs are left out: no feature was looked up for them. So is what a shadow would have
    answered: nobody was.
    """

    model: str
    version: int
    since: datetime | None = None
    until: datetime | None = None

    @property
    def condition(self) -> str:
        """As an SQL condition on the columns of the prediction log."""
        parts = [f"model = {literal(self.model)}", f"version = {self.version}", "NOT coalesce(raw, false)"]
        parts.append("shadow_of IS NULL")
        for bound, sign in ((self.since, ">="), (self.until, "<")):
            if bound is not None:
                parts.append(f"predicted_at {sign} TIMESTAMPTZ {literal(format_instant(bound))}")
        return " AND ".join(parts)


@dataclass(frozen=True)
class Differing:
    """A prediction whose values of a feature differ, with what its features were looked up by and read from."""

    prediction_id: str
    as_of: datetime
    served: Any
    recomputed: Any
    snapshots: Mapping[str, int]
    events: Mapping[str, int]
    keys: Mapping[str, Any]


def count(engine: Engine, log: str, window: Window) -> tuple[int, datetime | None]:
    """Number of predictions in the window, and when the newest was answered."""
    number, newest = engine.rows(f"SELECT count(*), max(predicted_at) FROM {log} WHERE {window.condition}")[0]
    return number, newest


def keep_spine(
    engine: Engine,
    log: str,
    window: Window,
    *,
    name: str,
    sample: int | None,
    request: Mapping[str, str],
    features: Sequence[LoggedFeature],
) -> int:
    """Keep the logged predictions as a table of typed columns, until the session ends; how many there are.

    Args:
        engine: Runs the queries, within a session.
        log: A relation with the columns of the prediction log; an id occurs once. Request columns and features are in
            it as "request__NAME" and "input__NAME", as far as they are logged.
        window: Which predictions.
        name: Of the table. Its columns are `__row`, `__prediction`, `__as_of`, `__snapshots`, `__events`, those of
            `request`,
            and for feature number i `__served_i` and `__logged_i` (whether the log holds a value or null for it).
        sample: Greatest number of predictions; None takes all. The choice is by a hash of the prediction's id: the
            same predictions give the same sample, and a larger sample contains the smaller ones.
        request: Request columns to keep: name -> type.
        features: The features.
    """
    where = window.condition
    if sample is not None:
        chosen = f"SELECT prediction_id FROM {log} WHERE {where} ORDER BY md5(prediction_id), prediction_id"
        where += f" AND prediction_id IN ({chosen} LIMIT {sample})"
    there = set(engine.schema(log).names)
    selected = [f"{_logged(REQUEST + column, kind, there)} AS {quoted(column)}" for column, kind in request.items()]
    for index, feature in enumerate(features):
        is_there = "true" if INPUT + feature.name in there else "false"
        value = _logged(INPUT + feature.name, feature.type, there)
        selected.append(f"{value} AS __served_{index}, {is_there} AS __logged_{index}")
    engine.execute(
        f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT row_number() OVER () AS {ROW}, "
        f"prediction_id AS {PREDICTION}, as_of AS {AS_OF}, snapshots AS {SNAPSHOTS}, "
        f"coalesce(events, '{{}}') AS {EVENTS}"
        + "".join(f", {each}" for each in selected)
        + f" FROM {log} WHERE {where}"
    )
    found: int = engine.rows(f"SELECT count(*) FROM {name}")[0][0]
    return found


def compare(engine: Engine, recomputed: str, features: Sequence[LoggedFeature]) -> list[FeatureSkew]:
    """Compare served with recomputed values, a feature at a time; without examples.

    Null equals null, and differs from every value; NaN counts as null, as in the log. Numbers are equal within the
    feature's tolerance, relative to the greater magnitude; an infinity equals only itself.

    Args:
        engine: Runs the queries, within the session of the spine.
        recomputed: A relation with the spine's columns, and one column a feature that can be recomputed.
        features: The features of the spine, in its order.
    """
    again = [f"{_again(feature)} AS __again_{index}" for index, feature in enumerate(features)]
    replaced = [quoted(feature.name) for feature in features if not feature.reason]
    kept = f"* EXCLUDE ({', '.join(replaced)})" if replaced else "*"
    engine.execute(f"CREATE OR REPLACE TEMP TABLE {_VALUES} AS SELECT {', '.join([kept, *again])} FROM {recomputed}")
    if not features:
        return []
    parts = " UNION ALL ".join(f"SELECT {index}, {_counts(index, each)}" for index, each in enumerate(features))
    return [_skew(features[row[0]], row[1:]) for row in sorted(engine.rows(parts))]


def differing(engine: Engine, features: Sequence[LoggedFeature], index: int, keys: Sequence[str]) -> list[Differing]:
    """Up to three predictions that differ in feature number `index`; call it after `compare`, in its session.

    A null beside a value first, then the greatest relative difference, then the least prediction id.
    """
    feature = features[index]
    listed = "".join(f", {quoted(key)}" for key in keys)
    rows = engine.rows(
        f"SELECT {PREDICTION}, {AS_OF}, __served_{index}, __again_{index}, {SNAPSHOTS}, {EVENTS}{listed} "
        f"FROM {_VALUES} "
        f"WHERE __logged_{index} AND NOT {_same(index, feature)} "
        f"ORDER BY {_relative(index, feature)} DESC NULLS FIRST, {PREDICTION} LIMIT {_EXAMPLES}"
    )
    return [
        Differing(
            prediction_id=row[0],
            as_of=row[1],
            served=row[2],
            recomputed=row[3],
            snapshots=json.loads(row[4]),
            events=json.loads(row[5]),
            keys=dict(zip(keys, row[6:], strict=True)),
        )
        for row in rows
    ]


def _logged(column: str, kind: str, there: Collection[str]) -> str:
    return f"CAST({quoted(column) if column in there else 'NULL'} AS {_SQL_TYPES[kind]})"


def _again(feature: LoggedFeature) -> str:
    if feature.reason:
        return f"CAST(NULL AS {_SQL_TYPES[feature.type]})"
    value = f"CAST({quoted(feature.name)} AS {_SQL_TYPES[feature.type]})"
    return f"CASE WHEN isnan({value}) THEN NULL ELSE {value} END" if feature.type == "float64" else value


def _same(index: int, feature: LoggedFeature) -> str:
    served, again = f"__served_{index}", f"__again_{index}"
    same = f"{served} IS NOT DISTINCT FROM {again}"
    if not feature.tolerance:
        return f"({same})"
    near = f"abs({served} - {again}) <= {feature.tolerance!r} * greatest(abs({served}), abs({again}))"
    return f"({same} OR coalesce(isfinite({served}) AND isfinite({again}) AND {near}, false))"


def _absolute(index: int, feature: LoggedFeature) -> str:
    served, again = f"__served_{index}", f"__again_{index}"
    if feature.type == "int64":  # the difference of two 64-bit integers needs more than 64 bits
        return f"CAST(abs(CAST({served} AS HUGEINT) - CAST({again} AS HUGEINT)) AS DOUBLE)"
    if feature.type == "float64":
        return f"CASE WHEN isfinite({served} - {again}) THEN abs({served} - {again}) END"
    return "CAST(NULL AS DOUBLE)"


def _relative(index: int, feature: LoggedFeature) -> str:
    if feature.type not in _NUMBERS:
        return "CAST(NULL AS DOUBLE)"
    served, again = f"CAST(__served_{index} AS DOUBLE)", f"CAST(__again_{index} AS DOUBLE)"
    greater = f"greatest(abs({served}), abs({again}))"
    difference = _absolute(index, feature)
    return f"CASE WHEN {greater} > 0 THEN {difference} / {greater} ELSE {difference} END"


def _counts(index: int, feature: LoggedFeature) -> str:
    can = f"__logged_{index} AND {'false' if feature.reason else 'true'}"
    same, served, again = _same(index, feature), f"__served_{index}", f"__again_{index}"
    return (
        f"count(*) FILTER ({can}), count(*) FILTER ({can} AND {same}), "
        f"count(*) FILTER ({can} AND {served} IS NOT NULL AND {again} IS NULL), "
        f"count(*) FILTER ({can} AND {served} IS NULL AND {again} IS NOT NULL), "
        f"count(*) FILTER (NOT ({can}) AND {'false' if feature.redacted else 'true'}), "
        f"max({_absolute(index, feature)}) FILTER ({can}), max({_relative(index, feature)}) FILTER ({can}) "
        f"FROM {_VALUES}"
    )


def _skew(feature: LoggedFeature, counts: Sequence[Any]) -> FeatureSkew:
    compared, equal, only_served, only_recomputed, missing, absolute, relative = counts
    return FeatureSkew(
        feature=feature.name,
        view=feature.view,
        meaning=feature.meaning,
        tolerance=feature.tolerance,
        compared=compared,
        equal=equal,
        different=compared - equal,
        only_served=only_served,
        only_recomputed=only_recomputed,
        missing=missing,
        largest_absolute=absolute,
        largest_relative=relative,
        reason=(feature.reason or "the log holds no value of it") if missing or feature.redacted else "",
    )
