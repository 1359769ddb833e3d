"""What commands print: data on stdout, all else on stderr; text for people, one JSON document with `--json`."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from millpond.core.errors import (
    AccessDenied,
    CheckFailed,
    Conflict,
    DataError,
    DefinitionError,
    MillpondError,
    NotFound,
    RequestError,
    SettingsError,
    Unavailable,
)
from millpond.core.time import format_instant
from millpond.platform.progress import Step

#: Exit codes by error; the first class that matches counts. 2 is Typer's, for a wrong command line.
EXIT_CODES: tuple[tuple[type[MillpondError], int], ...] = (
    (SettingsError, 3),
    (DefinitionError, 3),
    (NotFound, 4),
    (CheckFailed, 5),
    (DataError, 6),
    (RequestError, 6),
    (AccessDenied, 7),
    (Conflict, 8),
    (Unavailable, 8),
    (MillpondError, 1),
)

_MARKS = {"done": "[green]✓[/]", "up to date": "[dim]=[/]", "failed": "[red]✗[/]"}


class Output:
    """Where a command's words go.

    Attributes:
        json: Whether stdout gets one JSON document instead of text.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.json = as_json
        # A pipe or a file has no width: nothing is cut short there.
        self.out = Console(highlight=False, width=None if sys.stdout.isatty() else 240)
        self.err = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 240)

    def step(self, step: Step) -> None:
        """A listener: prints a line when a step ends; on a terminal shows the running one meanwhile."""
        if step.status == "started":
            if self.err.is_terminal:
                detail = f"  {step.detail}" if step.detail else ""
                self.err.print(f"  [dim]… {step.name}{detail}[/]", end="\r", overflow="ellipsis", no_wrap=True)
            return
        line = f"  {_MARKS[step.status]} {step.name:<34} {step.seconds:6.2f} s  {step.detail}"
        if step.status == "up to date":
            line = f"  {_MARKS[step.status]} {step.name:<34} up to date  {step.detail}"
        if self.err.is_terminal:
            self.err.print(" " * (self.err.width - 1), end="\r")
        self.err.print(line)

    def data(self, value: Any, text: str | Table | Sequence[str | Table] = ()) -> None:
        """The command's result: `value` as JSON, or `text` for people."""
        if self.json:
            sys.stdout.write(json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n")
            return
        for part in [text] if isinstance(text, (str, Table)) else text:
            self.out.print(part)

    def line(self, text: str) -> None:
        """A line of the result for people, as it stands: no markup is read out of it."""
        self.out.print(text, markup=False, soft_wrap=True)

    def say(self, line: str) -> None:
        """A remark for people, on stderr."""
        self.err.print(line)

    def next(self, command: str, why: str = "") -> None:
        """The next step, on stderr."""
        if not self.json:
            self.err.print(f"[dim]next:[/] {command}" + (f"  [dim]{why}[/]" if why else ""))

    def crash(self, error: Exception) -> int:
        """Keep the traceback of a fault of Millpond itself, and say where; returns the exit code."""
        with tempfile.NamedTemporaryFile("w", prefix="millpond-crash-", suffix=".txt", delete=False) as file:
            traceback.print_exception(error, file=file)
        what = f"Something went wrong in Millpond itself: {type(error).__name__}: {error}"
        hint = "this is a defect; the traceback in that file says where. What was written before is whole"
        self.fail(MillpondError(what, where=file.name, hint=hint))
        return 70

    def fail(self, error: MillpondError) -> int:
        """Print an error; returns the exit code for it."""
        if self.json:
            sys.stdout.write(json.dumps(error.to_dict(), indent=2, ensure_ascii=False) + "\n")
        self.err.print(f"[bold red]{type(error).__name__}:[/] ", end="")
        self.err.print(error.what, markup=False, soft_wrap=True)
        for label, text in (("where", error.where), ("hint", error.hint)):
            if text:
                self.err.print(f"  [dim]{label + ':':<6}[/] ", end="")
                self.err.print(text, markup=False, soft_wrap=True)
        return next(code for kind, code in EXIT_CODES if isinstance(error, kind))


@contextmanager
def failures(output: Output) -> Iterator[None]:
    """Turn an error into its message and exit code; Ctrl-C into 130."""
    try:
        yield
    except MillpondError as error:
        raise SystemExit(output.fail(error)) from error
    except KeyboardInterrupt:
        output.say("stopped")
        raise SystemExit(130) from None
    except (typer.Exit, typer.BadParameter):
        raise
    except Exception as error:
        raise SystemExit(output.crash(error)) from error


def grid(*columns: str, rows: Sequence[Sequence[Any]]) -> Table:
    """A table for people; numbers to the right, null as a dash."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, column in enumerate(columns):
        values = [row[index] for row in rows if row[index] is not None]
        numeric = bool(values) and all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in values)
        table.add_column(column, justify="right" if numeric else "left", no_wrap=index == 0 or numeric)
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    return table


def outputs(output: float, answer: bool | None, named: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What was predicted, as lines of a grid: all outputs by name, or the one with its answer."""
    if named:
        return list(named.items())
    return [("prediction", output)] if answer is None else [("probability of yes", output), ("answer", answer)]


def plain(value: Any) -> Any:
    """`value` as what JSON can hold: instants as ISO 8601, dataclasses as objects, what is no finite number as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(each) for each in value]
    if isinstance(value, datetime):
        return format_instant(value)
    if isinstance(value, (date, Path)):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _cell(value: Any) -> str:
    if value is None:
        return "[dim]-[/]"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return escape(str(value))
