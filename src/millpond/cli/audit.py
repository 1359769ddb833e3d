"""The command `millpond audit`."""

from __future__ import annotations

from typing import Annotated

import typer

from millpond.cli.output import Output, failures, grid
from millpond.cli.session import Json, session
from millpond.core.errors import MillpondError


def command(
    context: typer.Context,
    limit: Annotated[int, typer.Option(help="Number of entries.", min=1, max=10_000)] = 30,
    verify: Annotated[bool, typer.Option("--verify", help="Check that nobody has changed the log.")] = False,
    json: Json = False,
) -> None:
    """Who did what, when and why, newest first."""
    output = Output(as_json=json)
    with failures(output):
        log = session(context).open(output).access.audit
        if verify:
            verdict = log.verify()
            output.data(
                verdict, f"{verdict.entries:,} entries, " + ("as they were written" if verdict.intact else "ALTERED")
            )
            if not verdict.intact:
                raise MillpondError(f"The audit log was changed: {verdict.problem}", where=f"entry {verdict.broken_at}")
            return
        entries = log.entries(limit)
        rows = [(each.at, each.who, each.action, each.object, each.why) for each in entries]
        output.data(entries, grid("when", "who", "action", "object", "why", rows=rows))
