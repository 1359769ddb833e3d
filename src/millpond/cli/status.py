"""The command `millpond status`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from millpond.cli.output import Output, failures, grid, plain
from millpond.cli.session import Json, session

if TYPE_CHECKING:
    from rich.table import Table


def command(context: typer.Context, json: Json = False) -> None:
    """What there is: tables, models, and which version answers."""
    output = Output(as_json=json)
    with failures(output):
        from millpond.platform.status import project_status
        from millpond.server.lock import running_instance

        platform = session(context).open(output)
        status = project_status(platform)
        running = running_instance(platform.settings.run) or {}
        server, serving = running.get("url"), running.get("serving")
        tables = [(each.name, each.rows, each.changed_at, each.kind) for each in status.tables]
        models = [(each.name, each.versions, each.champion, each.trained_at) for each in status.models]
        under_way = [
            (str(each.name), each.release.version, each.release.where, each.release.step_started_at)
            for each in status.models
            if each.release is not None
        ]
        online = [(each.view, each.entities, each.refreshed_at, each.exact_from) for each in status.online]
        parts: list[str | Table] = (
            ["", grid("release of", "version", "where", "since", rows=under_way)] if under_way else []
        )
        parts += ["", grid("online view", "entities", "refreshed", "exact from", rows=online)] if online else []
        if status.synced_at is not None:
            parts.append(f"the shared store does not answer; what is online is complete until {status.synced_at}")
        output.data(
            {"server": server, "serving": serving, "grpc": running.get("grpc"), **plain(status)},
            [
                f"project {status.project}, profile {status.profile}, "
                + (f"server at {server}" if server else "server not running")
                + (f", predictions at {serving}" if serving else ""),
                "",
                grid("table", "rows", "changed", "kind", rows=tables),
                "",
                grid("model", "versions", "champion", "trained", rows=models),
                *parts,
            ],
        )
