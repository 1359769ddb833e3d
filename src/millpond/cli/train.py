"""The command `millpond train`."""

from __future__ import annotations

from typing import Annotated

import typer

from millpond.cli.output import Output, failures, grid
from millpond.cli.session import Json, session


def command(
    context: typer.Context,
    model: Annotated[str | None, typer.Argument(help="Model; without one, all of them.")] = None,
    force: Annotated[bool, typer.Option(help="Train even where nothing has changed.")] = False,
    json: Json = False,
) -> None:
    """Bring models up to date: derive, check, training set, fit, judge, register, promote."""
    output = Output(as_json=json)
    with failures(output):
        from millpond.platform.train import train

        platform = session(context).open(output)
        names = [model] if model else list(platform.definitions.models)
        if not names:
            output.say("The definitions declare no model yet; add an mp.Model(...).")
        results = [train(platform, name, force=force) for name in names]
        value = [
            {
                "model": each.version.model,
                "version": each.version.number,
                "trained": each.trained,
                "promoted": each.promoted,
                "aliases": each.version.aliases,
                "metrics": each.version.metrics,
                "gates": each.gates,
                "report": each.report,
            }
            for each in results
        ]
        output.data(value)
        for each in [] if json else results:
            headline = [(name, score) for name, score in each.version.metrics.items() if name.startswith("test.")]
            baseline = each.version.metrics
            rows = [(name[5:], score, baseline.get(f"baseline.{name}")) for name, score in headline]
            title = f"\n{each.version}  [dim]{', '.join(each.version.aliases)}[/]"
            output.data(None, [title, grid("on the test part", "model", "baseline", rows=rows)])
            for gate in each.gates:
                output.data(None, f"gate {gate.gate}: {'passed' if gate.passed else 'failed'} ({gate.reason})")
            output.data(None, f"report: {each.report}")
        if results:
            output.next("millpond up", "serves the champion, with a page to try it on")
