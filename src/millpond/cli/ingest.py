"""The command `millpond ingest`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from millpond.cli.output import Output, failures, grid
from millpond.cli.session import Json, session


def command(
    context: typer.Context,
    table: Annotated[str | None, typer.Argument(help="Table; without one, every table that declares a source.")] = None,
    files: Annotated[list[Path] | None, typer.Argument(help="CSV (also zipped), Parquet, JSON lines, Arrow.")] = None,
    mode: Annotated[str | None, typer.Option(help="append, overwrite or upsert; default: as declared.")] = None,
    force: Annotated[bool, typer.Option(help="Read files again that are in the table already.")] = False,
    json: Json = False,
) -> None:
    """Take files into tables; each file is taken whole or not at all."""
    output = Output(as_json=json)
    with failures(output):
        from millpond.platform import tables

        platform = session(context).open(output)
        if mode not in (None, "append", "overwrite", "upsert"):
            raise typer.BadParameter(f"{mode!r}; allowed: append, overwrite, upsert", param_hint="--mode")
        chosen = cast("Literal['append', 'overwrite', 'upsert'] | None", mode)
        if table is None:
            results = tables.ingest_declared(platform)
            if not results:
                output.say("No table declares source=; name one: millpond ingest TABLE FILE ...")
        else:
            results = [tables.ingest(platform, table, files or [], mode=chosen, force=force)]
        rows = [(each.snapshot.table, each.snapshot.rows, str(each.snapshot.id), each.skipped) for each in results]
        value = [
            {"table": name, "rows": count, "snapshot": snapshot, "up_to_date": skipped}
            for name, count, snapshot, skipped in rows
        ]
        output.data(value, grid("table", "rows", "snapshot", "up to date", rows=rows))
        output.next("millpond train", "or: millpond check")
