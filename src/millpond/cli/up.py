"""The command `millpond up`."""

from __future__ import annotations

from typing import Annotated

import typer

from millpond.cli.output import Output, failures
from millpond.cli.session import Json, session


def command(
    context: typer.Context,
    port: Annotated[
        int | None, typer.Option(help="Port of loopback; default: the profile's.", min=0, max=65535)
    ] = None,
    json: Json = False,
) -> None:
    """Start the platform on one port, until Ctrl-C."""
    output = Output(as_json=json)
    with failures(output):
        from millpond.server.up import up

        platform = session(context).open(output)

        def ready(url: str, login: str) -> None:
            output.data({"url": url, "login": login}, [f"Millpond is up at {url}", f"open {login}"])
            output.next("the link works once, within 10 minutes", "stop with Ctrl-C")

        up(platform, port=port, ready=ready)
