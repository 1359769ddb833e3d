"""The command `millpond register`."""

from __future__ import annotations

from typing import Annotated

import typer

from millpond.cli.output import Output, failures
from millpond.cli.session import Json, session
from millpond.core.errors import RequestError


def command(
    context: typer.Context,
    source: Annotated[str, typer.Argument(help="Folder with MLmodel, models:/NAME/VERSION, or runs:/ID/model.")],
    name: Annotated[str, typer.Option(help="The model's name here.")],
    input: Annotated[
        list[str] | None, typer.Option(help="NAME=TYPE of a column, where the model has no signature; repeatable.")
    ] = None,
    json: Json = False,
) -> None:
    """Take over a model in MLflow's format that was not trained here."""
    output = Output(as_json=json)
    with failures(output):
        from millpond.platform.register import register

        version = register(session(context).open(output), source, name, inputs=_inputs(input))
        value = {"model": name, "version": version.number, "source": source}
        output.data(value, f"{version} is registered")
        output.next(f"millpond deploy {name} {version.number}")


def _inputs(given: list[str] | None) -> dict[str, str] | None:
    if not given:
        return None
    found = {}
    for each in given:
        name, mark, kind = each.rpartition("=")
        if not mark or not name:
            raise RequestError(f"{each!r} is no NAME=TYPE", where="--input", hint="such as --input amount=float64")
        found[name] = kind
    return found
