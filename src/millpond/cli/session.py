"""The options that every command shares, and opening a project with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from millpond.cli.output import Output

if TYPE_CHECKING:
    from millpond.platform.platform import Platform

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout instead of text.")]


@dataclass
class Session:
    """What was said before the command's name."""

    project: Path | None = None
    profile: str | None = None

    def open(self, output: Output) -> Platform:
        """The project at hand, telling its steps to `output`."""
        from millpond.platform.platform import open_project

        return open_project(self.project, profile=self.profile, listener=output.step)


def session(context: typer.Context) -> Session:
    """The session of a command's context."""
    found = context.find_object(Session)
    return found if found is not None else Session()
