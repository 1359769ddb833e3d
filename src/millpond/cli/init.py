"""The command `millpond init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from millpond.cli.output import Output, failures
from millpond.cli.session import Json


def command(
    folder: Annotated[Path, typer.Argument(help="Folder to make, or an existing one without a project.")],
    data: Annotated[
        list[Path] | None, typer.Option("--data", help="A CSV or Parquet file to declare a table for; repeatable.")
    ] = None,
    json: Json = False,
) -> None:
    """Make a project: millpond.toml and a first definitions.py."""
    output = Output(as_json=json)
    with failures(output):
        from millpond.platform.scaffold import create_project

        created = create_project(folder, data or [])
        output.data({"project": created}, f"made a project in {created}")
        away = created != Path.cwd()
        output.next(
            f"cd {folder}" if away else "edit definitions.py", "then: millpond ingest, millpond train, millpond up"
        )
