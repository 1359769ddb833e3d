"""The command `millpond deploy`."""

from __future__ import annotations

from typing import Annotated

import typer

from millpond.cli.output import Output, failures
from millpond.cli.session import Json, session


def command(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Model.")],
    version: Annotated[str, typer.Argument(help='Number, or alias such as "challenger".')] = "challenger",
    why: Annotated[str, typer.Option(help="Kept in the audit log.")] = "deployed by hand",
    force: Annotated[bool, typer.Option(help="Promote it although a gate on live traffic fails.")] = False,
    json: Json = False,
) -> None:
    """Make a version the one that answers for its model."""
    output = Output(as_json=json)
    with failures(output):
        from millpond.platform.release import promote

        which = int(version) if version.isdigit() else version
        promoted = promote(session(context).open(output), model, which, why=why, force=force)
        value = {"model": model, "version": promoted.number, "aliases": promoted.aliases}
        output.data(value, f"{promoted} answers for {model} now")
        output.next(f"millpond predict {model} COLUMN=VALUE ...")
