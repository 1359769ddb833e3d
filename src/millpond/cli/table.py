"""`millpond table`: list, show, history, push."""

from __future__ import annotations

import sys
from datetime import datetime
from json import loads as decode
from pathlib import Path
from typing import Annotated, Any

import typer

from millpond.cli.output import Output, failures, grid
from millpond.cli.session import Json, session
from millpond.core.errors import DataError, NotFound, RequestError
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


@app.command()
def push(
    context: typer.Context,
    name: Name,
    file: Annotated[Path, typer.Argument(help="Events as JSON lines; - reads them from standard input.")],
    json: Json = False,
) -> None:
    """Push events into a table: durable, and in the next lookup, when it returns."""
    output = Output(as_json=json)
    with failures(output):
        from millpond.platform import events

        platform = session(context).open(output)
        text = sys.stdin.read() if str(file) == "-" else _read(file)
        done = events.push(platform, name, _records(text, str(file)))
        output.data(done, [f"{done.applied:,} events into {done.table}, {done.duplicates:,} known already"])
        output.next("millpond predict MODEL", "they reach the lake with the next train, or while `millpond up` runs")


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise NotFound(f"{file} cannot be read: {error}", hint="name a file of JSON lines, or -") from error


def _records(text: str, label: str) -> list[dict[str, Any]]:
    records = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                record = decode(line)
            except ValueError as error:
                raise DataError(f"The line is not JSON: {error}", where=f"{label}, line {number}") from error
            if not isinstance(record, dict):
                raise DataError("The line is no JSON object", where=f"{label}, line {number}", hint='such as {"id": 1}')
            records.append(record)
    return records


def _moment(text: str | None) -> int | datetime | None:
    if text is None:
        return None
    if text.isdigit():
        return int(text)
    try:
        return parse_boundary(text)
    except ValueError as error:
        raise RequestError(str(error), where="--at") from error
