"""The command `millpond trace`."""

from __future__ import annotations

from typing import Annotated

import typer

from millpond.cli.output import Output, failures, grid
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
        made = receipt.prediction
        facts = [
            ("prediction", made.id),
            ("made", f"{made.predicted_at:%Y-%m-%d %H:%M:%S} UTC by {made.requested_by}"),
            ("features as of", made.as_of),
            ("output", made.output),
            ("answer", made.answer),
            ("version", f"{made.model}/{made.version}"),
            ("trained by", receipt.trained_by),
            ("training set", receipt.training_set),
            ("code", receipt.code),
        ]
        features = [
            (each.name, _short(each.value), each.visible_since, each.rows, each.source, each.agrees)
            for each in receipt.inputs
        ]
        output.data(
            receipt,
            [
                grid("receipt", "", rows=facts),
                "",
                grid("input", "value", "visible since", "rows", "from", "recomputed equal", rows=features),
            ],
        )


def _short(value: object) -> str | None:
    return None if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
