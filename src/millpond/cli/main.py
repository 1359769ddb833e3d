"""The command line: one file a command, joined here."""

from __future__ import annotations

import atexit
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from millpond import __version__
from millpond.cli import (
    audit,
    check,
    deploy,
    feature,
    ingest,
    init,
    model,
    plan,
    predict,
    register,
    skew,
    status,
    table,
    token,
    trace,
    train,
    up,
)
from millpond.cli.session import Session

app = typer.Typer(
    name="millpond",
    help="From a raw table to a served, explained prediction.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    project: Annotated[Path | None, typer.Option(help="Folder of the project (default: the nearest above).")] = None,
    profile: Annotated[str | None, typer.Option(help='Profile of millpond.toml (default: "local").')] = None,
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    context.obj = Session(project, profile)


for _command in (init, ingest, check, plan, train, register, deploy, up, predict, trace, skew, status, audit):
    app.command(_command.__name__.rpartition(".")[2])(_command.command)
for _noun in (table, feature, model, token):
    app.add_typer(_noun.app, name=_noun.__name__.rpartition(".")[2])


def main() -> None:
    """The entry point of the `millpond` command."""
    try:
        app()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    # DuckDB's bindings print a page about leaked objects when the interpreter is taken down in order.
    os._exit(code)
