"""The command `millpond check`."""

from __future__ import annotations

from typing import Annotated

import typer

from millpond.cli.output import Output, failures, grid
from millpond.cli.session import Json, session


def command(
    context: typer.Context,
    tables: Annotated[list[str] | None, typer.Argument(help="Tables; default: all with checks.")] = None,
    json: Json = False,
) -> None:
    """Run the checks of tables as they stand; exit code 5 when a blocking one fails."""
    output = Output(as_json=json)
    with failures(output):
        from millpond.platform import tables as use_cases
        from millpond.quality.results import require

        results = use_cases.check(session(context).open(output), tables or [])
        rows = [(each.table, each.check, each.severity, each.passed, each.violations, each.rows) for each in results]
        output.data(results, grid("table", "check", "severity", "passed", "violations", "rows", rows=rows))
        require(results)
        output.next("millpond train")
