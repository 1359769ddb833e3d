"""The command `millpond trace`."""

from __future__ import annotations

from typing import Annotated

import typer

from millpond.cli.output import Output, failures, grid, outputs
from millpond.cli.session import Json, session


def command(
    context: typer.Context,
    prediction: Annotated[str, typer.Argument(help="Id of a prediction.")],
    json: Json = False,
) -> None:
    """Print a prediction's receipt: version, features and when each became visible, snapshots, code."""
    output = Output(as_json=json)
    with failures(output):
        from millpond.platform.receipts import trace

        receipt = trace(session(context).open(output), prediction)
        code = (receipt.code_commit or "no commit") + (" with uncommitted changes" if receipt.code_dirty else "")
        facts = [
            ("prediction", receipt.id),
            ("made", f"{receipt.predicted_at:%Y-%m-%d %H:%M:%S} UTC by {receipt.requested_by}"),
            ("features as of", receipt.as_of),
            *outputs(receipt.output, receipt.answer, receipt.outputs),
            ("version", f"{receipt.model}/{receipt.version}"),
            ("trained", f"{receipt.trained_at:%Y-%m-%d %H:%M} UTC by {receipt.trained_by}"),
            ("code", code),
            *((f"table {each.table}", f"snapshot {each.snapshot_id}") for each in receipt.snapshots),
        ]
        features = [
            (
                each.name,
                "(redacted)" if each.name in receipt.redacted else _short(each.value),
                each.visible_since,
                each.rows,
                each.table or "request",
                each.recomputed,
            )
            for each in receipt.inputs
        ]
        columns = ("input", "value", "visible since", "rows", "from", "recomputed equal")
        output.data(receipt, [grid("receipt", "", rows=facts), "", grid(*columns, rows=features)])


def _short(value: object) -> str | None:
    return None if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
