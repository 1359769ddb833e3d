"""Skew, measured: what a version was served, beside what the lake gives for the same instants now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from millpond.core.errors import DataError, NotFound, RequestError
from millpond.core.fingerprints import fingerprint
from millpond.core.ids import new_id
from millpond.core.time import format_instant, now
from millpond.definitions.features import Features
from millpond.definitions.models import Model
from millpond.features.ports import PinnedView
from millpond.monitoring.report import FeatureSkew, SkewReport, worst_first
from millpond.platform import logged, skew_examples, versions
from millpond.platform.events import land
from millpond.platform.platform import Platform
from millpond.platform.predictions import flush
from millpond.platform.progress import step
from millpond.registry.ports import Version

if TYPE_CHECKING:
    from millpond.features.plan import Feature
    from millpond.lake.ports import Engine
    from millpond.monitoring.skew import Differing, LoggedFeature, Window

#: Predictions that are looked at where nothing else is said.
SAMPLE = 10_000
#: Relative difference up to which floating sums, and what is made of them, are equal.
TOLERANCE = 1e-9

_SPINE, _MADE, _BATCH = "__skew_spine", "__skew_made", "millpond_skew_batch"
_KEPT_SNAPSHOTS = 30
_REDACTED = "redacted: the log does not keep its values"


@dataclass(frozen=True)
class _Compared:
    """What the engine found: the features, the predictions that differ by feature, and their number."""

    looked_at: int
    features: tuple[FeatureSkew, ...]
    differing: Mapping[str, Sequence[Differing]]


def measure_skew(
    platform: Platform,
    model: str,
    *,
    version: int | None = None,
    sample: int | None = SAMPLE,
    since: datetime | None = None,
    until: datetime | None = None,
) -> SkewReport:
    """Recompute the features of logged predictions from the lake, compare, and keep the result in `millpond.skew`.

    Pushed events, and the prediction log, are moved into the lake first; what a running server still writes is
    looked at too. Features are recomputed with the version's own definitions, as of each prediction's instant, from
    the current snapshot of each table: a row that landed after the prediction counts only where its time, and its
    known time, lie before the instant. The same predictions and snapshots give the same numbers. One commit, or none.

    Args:
        platform: The project.
        model: The model's name.
        version: A version of it; None takes the champion.
        sample: Greatest number of predictions to look at, chosen by a hash of their ids; None looks at all.
        since: Predictions answered at or after this instant; None has no bound.
        until: Predictions answered before this instant; None has no bound.

    Raises:
        NotFound: No such model or version; no version serves; or no prediction of it is logged in the window.
        RequestError: The sample or the window is empty, or the model takes no features.
    """
    from millpond.monitoring.skew import Window
    from millpond.monitoring.skew_table import TABLE, store

    if sample is not None and sample < 1:
        raise RequestError(f"A sample of {sample} predictions shows nothing", where="sample", hint="at least 1, or all")
    if since is not None and until is not None and until <= since:
        what = f"The window ends at {format_instant(until)}, and begins at {format_instant(since)}"
        raise RequestError(what, where="since, until", hint="since lies before until")
    chosen = _version(platform, model, version)
    with step(platform.listener, f"skew of {chosen}") as current:
        report = _measure(platform, chosen, Window(model, chosen.number, since, until), sample)
        store(platform.lake, report)
        if len(platform.lake.history(TABLE)) > 2 * _KEPT_SNAPSHOTS:
            platform.lake.expire(TABLE, keep_last=_KEPT_SNAPSHOTS, older_than=timedelta(minutes=10))
        compared = sum(each.compared for each in report.features)
        different = sum(each.different for each in report.features)
        current.detail = f"{different:,} of {compared:,} values differ, in {report.looked_at:,} predictions"
    return report


def newest_skew(platform: Platform, model: str, version: int | None = None) -> SkewReport:
    """The newest stored measurement of a model, or of one of its versions.

    Raises:
        NotFound: No such model, or nothing was measured yet.
    """
    from millpond.monitoring.skew_table import newest

    with platform.engine() as engine:
        found = newest(platform.lake, engine, model, version)
    if found is None:
        if model not in platform.store.models():
            platform.definitions.model(model)
        asked = model if version is None else f"{model}/{version}"
        raise NotFound(f"The skew of {asked} was never measured", hint=f"measure it: millpond skew {model}")
    return found


def meanings(model: Model) -> frozenset[str]:
    """Fingerprints of what the model's looked-up and request features mean, as `FeatureSkew.meaning` has them."""
    looked_up = {_meaning(view, name) for view in model.views for name in view.columns}
    return frozenset(looked_up | {fingerprint(each.describe()) for each in model.request_features})


def current_skew(platform: Platform, version: Version, since: datetime) -> SkewReport:
    """A measurement of a version's traffic from `since` on that nothing has changed since; measures where none is.

    A stored one counts where it looked at as many predictions up to the version's newest, against the snapshots that
    are current now.
    """
    from millpond.monitoring.skew_table import newest

    _, last = traffic(platform, version)
    with platform.engine() as engine:
        found = newest(platform.lake, engine, version.model, version.number)
    if (
        found is not None
        and (found.since, found.until, found.newest) == (since, None, last)
        and (found.sample is None or found.sample >= SAMPLE)
        and not any(each.missing for each in found.features)
        and all(_is_current(platform, table, number) for table, number in found.snapshots.items())
    ):
        return found
    return measure_skew(platform, version.model, version=version.number, since=since)


def traffic(platform: Platform, version: Version, since: datetime | None = None) -> tuple[int, datetime | None]:
    """How many predictions of a version are logged (answered at or after `since`), and when the newest was."""
    from millpond.monitoring.skew import Window, count

    flush(platform)
    with platform.engine() as engine:
        return count(engine, _log(platform, engine, version), Window(version.model, version.number, since))


def _is_current(platform: Platform, table: str, number: int) -> bool:
    return platform.lake.exists(table) and platform.lake.snapshot(table).id == number


def _version(platform: Platform, model: str, version: int | None) -> Version:
    if model not in platform.store.models():
        platform.definitions.model(model)  # says what is close to it
        raise NotFound(f"Model {model!r} has no version yet", hint=f"train one: millpond train {model}")
    if version is not None:
        return platform.store.version(model, version)
    champion = versions.champion(platform, model)
    if champion is None:
        raise NotFound(f"No version of model {model!r} serves", hint="name one with --version")
    return champion


def _measure(platform: Platform, version: Version, window: Window, sample: int | None) -> SkewReport:
    from millpond.monitoring.skew import count

    flush(platform)
    loaded = versions.load(platform, version)
    with platform.engine() as engine:
        log = logged.relation(platform, engine, loaded.served)
        number, newest = count(engine, log, window)
        if not number or newest is None:
            raise _nothing_logged(platform, engine, version, window)
        # After the log was read: then every pushed event that a prediction saw is in the lake.
        land(platform, {view.source.name for view in loaded.model.views})
        pinned, reasons = _pin(platform, loaded)
        with engine.session():
            compared = _compare(engine, log, window, sample, loaded, pinned, reasons)
        features = skew_examples.explained(platform, engine, compared.features, compared.differing, pinned)
    return SkewReport(
        id=new_id("skew"),
        model=version.model,
        version=version.number,
        measured_at=now(),
        measured_by=platform.user,
        predictions=number,
        looked_at=compared.looked_at,
        sample=sample,
        since=window.since,
        until=window.until,
        newest=newest,
        snapshots={each.snapshot.table: each.snapshot.id for each in pinned},
        features=worst_first(features),
    )


def _log(platform: Platform, engine: Engine, version: Version) -> str:
    return logged.relation(platform, engine, versions.served_model(platform, version))


def _nothing_logged(platform: Platform, engine: Engine, version: Version, window: Window) -> NotFound:
    from millpond.monitoring.skew import Window, count

    ever, _ = count(engine, _log(platform, engine, version), Window(version.model, version.number))
    if ever:
        bounds = [format_instant(each) if each else "ever" for each in (window.since, window.until)]
        what = f"None of the {ever:,} predictions of {version} was answered between {bounds[0]} and {bounds[1]}"
        return NotFound(what, hint="since and until bound when predictions were answered")
    hint = f"the skew of another version: millpond skew {version.model} --version N"
    return NotFound(f"{version} has answered no prediction yet", hint=hint)


def _pin(platform: Platform, loaded: versions.LoadedVersion) -> tuple[list[PinnedView], dict[str, str]]:
    """The views that can be computed, on current snapshots; and for the others why not, by view."""
    from millpond.features.plan import plan_view

    pinned, reasons = [], {}
    for view in loaded.model.views:
        hidden = sorted({*view.entity.keys} & {*loaded.redacted})
        if hidden:
            reasons[view.name] = f"redacted: the log does not keep {hidden[0]}, by which it is looked up"
            continue
        try:
            each = PinnedView(view, platform.lake.snapshot(view.source.name))
            plan_view(each)
        except (NotFound, DataError) as error:
            reasons[view.name] = error.what
        else:
            pinned.append(each)
    return pinned, reasons


def _compare(
    engine: Engine,
    log: str,
    window: Window,
    sample: int | None,
    loaded: versions.LoadedVersion,
    pinned: Sequence[PinnedView],
    reasons: Mapping[str, str],
) -> _Compared:
    from millpond.features.point_in_time import join_features
    from millpond.monitoring.skew import AS_OF, compare, differing, keep_spine

    features = _features(loaded, pinned, reasons)
    if not features:
        what = f"{loaded.version} takes no features: all that it sees comes with the request"
        raise RequestError(what, hint="skew is between served features and the lake")
    request = {column.name: column.type for column in loaded.served.columns}
    if not loaded.model.request_features:
        request = {key: request[key] for key in loaded.model.entity_keys}
    looked_at = keep_spine(engine, log, window, name=_SPINE, sample=sample, request=request, features=features)
    joined = join_features(engine, _SPINE, AS_OF, pinned) if pinned else _SPINE
    recomputed = _with_request_features(engine, loaded, joined)
    found = compare(engine, recomputed, features)
    keys = loaded.model.entity_keys
    differ = {
        each.feature: differing(engine, features, index, keys) for index, each in enumerate(found) if each.different
    }
    return _Compared(looked_at, tuple(found), differ)


def _with_request_features(engine: Engine, loaded: versions.LoadedVersion, joined: str) -> str:
    """`joined` with the model's request features, computed from the logged requests a batch at a time."""
    import pyarrow as pa

    from millpond.features.request import apply_request_features
    from millpond.lake.schema import quoted
    from millpond.monitoring.skew import ROW
    from millpond.serving.columns import request_schema

    functions = loaded.model.request_features
    if not functions or _hidden_from_functions(loaded):
        return joined
    schema = pa.schema([field.with_nullable(True) for field in request_schema(loaded.served.columns)])
    listed = ", ".join([ROW, *(quoted(name) for name in schema.names)])
    for number, batch in enumerate(engine.reader(f"SELECT {listed} FROM {_SPINE}")):
        rows = pa.Table.from_batches([batch])
        made = apply_request_features(functions, rows.drop_columns([ROW]).cast(schema), verify=False)
        engine.register(_BATCH, made.append_column(ROW, rows[ROW]))
        begin = f"INSERT INTO {_MADE}" if number else f"CREATE OR REPLACE TEMP TABLE {_MADE} AS"
        engine.execute(f"{begin} SELECT * FROM {_BATCH}")
    return f"(SELECT * FROM {joined} AS joined JOIN {_MADE} USING ({ROW}))"


def _features(
    loaded: versions.LoadedVersion, pinned: Sequence[PinnedView], reasons: Mapping[str, str]
) -> list[LoggedFeature]:
    """The version's looked-up and request features, in the order of its inputs."""
    from millpond.features.plan import plan_view
    from millpond.monitoring.skew import LoggedFeature

    inputs, redact = loaded.served.inputs, loaded.redacted
    rounded = {feature.name for each in pinned for feature in plan_view(each).features if _is_rounded(feature)}
    found = []
    for view in loaded.model.views:
        for name in view.columns:
            tolerance = TOLERANCE if name in rounded else 0.0
            reason = _REDACTED if name in redact else reasons.get(view.name, "")
            found.append(LoggedFeature(name, view.name, inputs[name], tolerance, _meaning(view, name), reason))
    hidden = _hidden_from_functions(loaded)
    for function in loaded.model.request_features:
        meaning = fingerprint(function.describe())
        for name, kind in inputs.items():
            if name.startswith(f"{function.name}__"):  # a processor may compute many rows otherwise than one
                tolerance = TOLERANCE if kind == "float64" else 0.0
                reason = _REDACTED if name in redact else hidden
                found.append(LoggedFeature(name, function.name, kind, tolerance, meaning, reason))
    return [replace(each, redacted=each.reason.startswith("redacted")) for each in found]


def _hidden_from_functions(loaded: versions.LoadedVersion) -> str:
    """Why request features cannot be computed again; empty where they can.

    Which columns they read is not kept with a version: each column of the request may be one.
    """
    hidden = sorted({column.name for column in loaded.served.columns} & {*loaded.redacted})
    return f"redacted: the log does not keep {hidden[0]}, from which it may be computed" if hidden else ""


def _meaning(view: Features, name: str) -> str:
    described = view.describe()
    own = name.removeprefix(f"{view.name}__")
    return fingerprint({**described, "columns": {own: described["columns"][own]}})


def _is_rounded(feature: Feature) -> bool:
    """Whether a value depends on the order of floating additions, or is a quotient of what does."""
    if feature.kind == "sum":
        return feature.column is not None and not feature.column.exact
    return feature.kind in ("mean", "std")
