"""The command `millpond skew`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from millpond.cli.output import Output, failures, grid
from millpond.cli.session import Json, session
from millpond.core.errors import RequestError
from millpond.core.time import parse_boundary

if TYPE_CHECKING:
    from rich.table import Table

    from millpond.monitoring.report import FeatureSkew, SkewExample, SkewReport

#: Exit code of --fail when values differ: that of a check that fails.
_DIFFERS = 5
_KEYS = 2


def command(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Model.")],
    version: Annotated[int | None, typer.Option(help="Number of a version; default: the one that answers.")] = None,
    sample: Annotated[int | None, typer.Option(help="Look at so many predictions; default: 10,000.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Look at all predictions.")] = False,
    since: Annotated[str | None, typer.Option(help="Predictions answered from this instant or date on.")] = None,
    until: Annotated[str | None, typer.Option(help="Predictions answered before this instant or date.")] = None,
    fail: Annotated[bool, typer.Option("--fail", help="Exit with 5 where a value differs or is missing.")] = False,
    json: Json = False,
) -> None:
    """Recompute served feature values from the lake, and compare; exit code 0 when measured, whatever was found."""
    output = Output(as_json=json)
    with failures(output):
        from millpond.platform.skew import SAMPLE, measure_skew
        from millpond.server.lock import running_instance

        if everything and sample is not None:
            raise RequestError("--all and --sample exclude each other", hint="give one of them")
        platform = session(context).open(output)
        report = measure_skew(
            platform,
            model,
            version=version,
            sample=None if everything else SAMPLE if sample is None else sample,
            since=_instant(since, "--since"),
            until=_instant(until, "--until"),
        )
        server = (running_instance(platform.settings.run) or {}).get("url") or ""
        page = f"{server.rstrip('/')}/models/{model}/skew?version={report.version}"
        output.data({"page": page, "clean": report.clean, **vars(report)}, list(_text(report, page)))
        first = next((each.examples[0] for each in report.features if each.examples), None)
        if first is not None:
            output.next(f"millpond trace {first.prediction_id}", "what was behind it when it was served")
        if fail and not report.clean:
            raise typer.Exit(_DIFFERS)


def _text(report: SkewReport, page: str) -> Iterator[str | Table]:
    looked_at = f"{report.looked_at:,} of {report.predictions:,}" if report.sample else f"all {report.predictions:,}"
    yield f"{report.model}/{report.version}: {looked_at} predictions, the newest of {report.newest:%Y-%m-%d %H:%M} UTC"
    columns = ("feature", "compared", "equal", "different", "missing", "largest difference", "relative")
    rows = [
        (
            each.feature,
            each.compared,
            each.equal,
            each.different,
            each.missing,
            _short(each.largest_absolute),
            _short(each.largest_relative),
        )
        for each in report.features
    ]
    yield grid(*columns, rows=rows)
    for each in report.features:
        yield from _behind(each)
    yield f"kept in the table millpond.skew as {report.id}; page: {page}"


def _behind(feature: FeatureSkew) -> Iterator[str | Table]:
    if feature.reason:
        yield f"\n{feature.feature}: {feature.missing:,} missing: {feature.reason}"
    if not feature.examples:
        return
    nulls = [f"{feature.only_served:,} null when recomputed"] if feature.only_served else []
    nulls += [f"{feature.only_recomputed:,} null when served"] if feature.only_recomputed else []
    yield f"\n{feature.feature}: {feature.different:,} different" + (f", of which {', '.join(nulls)}" if nulls else "")
    rows = [(e.prediction_id, e.as_of, _short(e.served), _short(e.recomputed), _rows(e)) for e in feature.examples]
    yield grid("prediction", "as of", "served", "recomputed", "rows behind", rows=rows)
    yield f"  {feature.examples[0].why}"


def _rows(example: SkewExample) -> str:
    """How many, and the keys of those that came and went since; else of the newest."""
    if example.rows is None:
        return "-"
    parts = [f"new {_keys(example.arrived_keys, example.arrived)}"] if example.arrived_keys else []
    parts += [f"gone {_keys(example.gone_keys, example.gone)}"] if example.gone_keys else []
    parts = parts or [_keys(example.row_keys, example.rows)]
    return f"{example.rows:,}: {'; '.join(parts)}" if example.row_keys or parts[0] else f"{example.rows:,}"


def _keys(keys: Sequence[str], number: int | None) -> str:
    return ", ".join(keys[:_KEYS]) + (", ..." if (number or 0) > _KEYS else "")


def _short(value: object) -> str | None:
    return None if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _instant(text: str | None, option: str) -> datetime | None:
    try:
        return parse_boundary(text) if text is not None else None
    except ValueError as error:
        raise RequestError(str(error), where=option) from error
