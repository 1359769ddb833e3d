"""`millpond token`: list, create, revoke."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer

from millpond.cli.output import Output, failures, grid
from millpond.cli.session import Json, session
from millpond.core.errors import Conflict

app = typer.Typer(help="Access tokens.", no_args_is_help=True)


@app.command("list")
def list_tokens(context: typer.Context, json: Json = False) -> None:
    """All tokens; never their secrets."""
    output = Output(as_json=json)
    with failures(output):
        found = session(context).open(output).access.tokens()
        rows = [
            (
                str(each.id),
                each.identity,
                each.label,
                each.prefix + "…",
                each.created_at,
                each.last_used_at,
                each.revoked_at,
            )
            for each in found
        ]
        output.data(found, grid("id", "identity", "label", "token", "created", "last used", "revoked", rows=rows))


@app.command()
def create(
    context: typer.Context,
    identity: Annotated[str, typer.Argument(help="Whose it is; made if new.")],
    label: Annotated[str, typer.Option(help="What it is for.")] = "",
    json: Json = False,
) -> None:
    """Make a token and print it, this once."""
    output = Output(as_json=json)
    with failures(output):
        platform = session(context).open(output)
        with suppress(Conflict):
            platform.access.create_identity(identity)
            platform.audit(action="create identity", object=identity)
        issued = platform.access.issue_token(identity, label)
        platform.audit(action="issue token", object=f"{identity}: {issued.token.prefix}", why=label)
        output.data({"id": issued.token.id, "identity": identity, "token": issued.secret}, issued.secret)
        output.say("Keep it; it is not shown again.")


@app.command()
def revoke(
    context: typer.Context,
    number: Annotated[int, typer.Argument(help="Id of the token.")],
    why: Annotated[str, typer.Option(help="Kept in the audit log.")] = "",
    json: Json = False,
) -> None:
    """End a token; it is refused from the next request on."""
    output = Output(as_json=json)
    with failures(output):
        platform = session(context).open(output)
        platform.access.revoke_token(number)
        platform.audit(action="revoke token", object=str(number), why=why)
        output.data({"id": number, "revoked": True}, f"token {number} is revoked")
