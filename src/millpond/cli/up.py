"""The command `millpond up`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from millpond.cli.output import Output, failures
from millpond.cli.session import Json, session

if TYPE_CHECKING:
    from millpond.server.control import Banner


def command(
    context: typer.Context,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on, 0 for free ones; default: the profile's.", min=0, max=65535)
    ] = None,
    json: Json = False,
) -> None:
    """Start the platform on one port, and predictions on one more, until Ctrl-C."""
    output = Output(as_json=json)
    with failures(output):
        from millpond.server.up import up

        platform = session(context).open(output)

        def ready(banner: Banner) -> None:
            serving, grpc = banner.serving_url, banner.grpc_address
            output.data(
                {"url": banner.url, "login": banner.login_url, "serving": serving, "grpc": grpc},
                [
                    f"Millpond is up at {banner.url}",
                    *([f"predictions are answered at {serving}/v2"] if serving else []),
                    *([f"and over gRPC at {grpc}"] if grpc else []),
                    f"open {banner.login_url}",
                ],
            )
            output.next("the link works once, within 10 minutes", "stop with Ctrl-C")

        up(platform, port=port, ready=ready)
