"""The command `millpond predict`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from millpond.cli.output import Output, failures, grid, outputs
from millpond.cli.session import Json, session
from millpond.core.errors import RequestError
from millpond.core.time import parse_instant


def command(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Model.")],
    values: Annotated[list[str] | None, typer.Argument(help="COLUMN=VALUE of one row; an empty value is null.")] = None,
    as_of: Annotated[str | None, typer.Option(help='Instant of the features, such as "2013-12-24T18:00:00Z".')] = None,
    batch: Annotated[str | None, typer.Option(help="Score this table instead of one row.")] = None,
    to: Annotated[str | None, typer.Option(help="Table that --batch writes; default: scores_MODEL.")] = None,
    version: Annotated[
        int | None, typer.Option(help="Version that --batch scores with; default: the champion.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="With --batch: start over, whatever a stopped job has finished.")
    ] = False,
    json: Json = False,
) -> None:
    """Predict for one row, or, with --batch, for a whole table.

    A batch that was stopped goes on where it was when the same command is run again.
    """
    output = Output(as_json=json)
    with failures(output):
        from millpond.platform import predictions
        from millpond.platform.batch import predict_batch

        platform = session(context).open(output)
        if batch is not None:
            scored = predict_batch(platform, model, batch, to or f"scores_{model}", version=version, fresh=fresh)
            value = {"table": scored.table, "rows": scored.rows, "snapshot": scored.id}
            output.data(value, f"wrote {scored.rows:,} predictions to {scored.table}, snapshot {scored.id}")
            output.next(f"millpond table show {scored.table}")
            return
        if to is not None or version is not None or fresh:
            raise RequestError("--to, --version and --fresh go with --batch", hint="name the table: --batch TABLE")
        row = dict(_pair(text) for text in values or [])
        instant = _instant(as_of) if as_of else None
        [made] = predictions.predict_rows(platform, model, [row], as_of=instant)
        about = [("version", str(made.version)), ("as of", made.as_of), ("id", made.id)]
        rows = [*outputs(made.output, made.answer, made.outputs), *about]
        output.data(made, grid("", model, rows=rows))
        output.next(f"millpond trace {made.id}", "what is behind this prediction")


def _pair(text: str) -> tuple[str, str | None]:
    name, equals, value = text.partition("=")
    if not equals:
        raise RequestError(f"{text!r} is no COLUMN=VALUE", hint="such as: carrier=AA")
    return name, value or None


def _instant(text: str) -> datetime:
    try:
        return parse_instant(text)
    except ValueError as error:
        raise RequestError(str(error), where="--as-of") from error
