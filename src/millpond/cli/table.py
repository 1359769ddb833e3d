"""`millpond table`: list, show, history."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from millpond.cli.output import Output, failures, grid
from millpond.cli.session import Json, session
from millpond.core.errors import RequestError
from millpond.core.time import parse_boundary

app = typer.Typer(help="Tables of the lake.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Table.")]


@app.command("list")
def list_tables(context: typer.Context, json: Json = False) -> None:
    """All tables with their rows and last change."""
    output = Output(as_json=json)
    with failures(output):
        lake = session(context).open(output).lake
        snapshots = [lake.snapshot(name) for name in lake.tables()]
        rows = [(each.table, each.rows, each.committed_at, str(each.id)) for each in snapshots]
        output.data(snapshots, grid("table", "rows", "changed", "snapshot", rows=rows))


@app.command()
def show(
    context: typer.Context,
    name: Name,
    at: Annotated[str | None, typer.Option(help="Snapshot id, date or instant; default: now.")] = None,
    rows: Annotated[int, typer.Option(help="Number of rows.", min=0, max=1000)] = 10,
    json: Json = False,
) -> None:
    """Columns and first rows of a table, at any of its snapshots."""
    output = Output(as_json=json)
    with failures(output):
        platform = session(context).open(output)
        snapshot = platform.lake.snapshot(name, _moment(at))
        with platform.engine() as engine:
            sample = engine.rows(f"SELECT * FROM {engine.scan(snapshot)} LIMIT {rows}")
        columns = snapshot.column_names
        records = [dict(zip(columns, row, strict=True)) for row in sample]
        types = grid("column", "type", rows=[(column.name, column.type) for column in snapshot.columns])
        shown = [[None if value is None else str(value) for value in row] for row in sample]
        output.data(
            {"snapshot": snapshot, "sample": records},
            [f"{snapshot}: {snapshot.rows:,} rows", types, "", grid(*columns, rows=shown)],
        )


@app.command()
def history(context: typer.Context, name: Name, json: Json = False) -> None:
    """Snapshots of a table, newest last."""
    output = Output(as_json=json)
    with failures(output):
        found = session(context).open(output).lake.history(name)
        rows = [(str(each.id), each.committed_at, each.operation, each.rows) for each in found]
        output.data(found, grid("snapshot", "committed", "operation", "rows", rows=rows))


def _moment(text: str | None) -> int | datetime | None:
    if text is None:
        return None
    if text.isdigit():
        return int(text)
    try:
        return parse_boundary(text)
    except ValueError as error:
        raise RequestError(str(error), where="--at") from error
