"""Writes docs/reference/ from the code: `python docs/reference.py` (a test holds the files to it)."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import millpond
from millpond.core import errors

FOLDER = Path(__file__).with_name("reference")
GROUPS = {
    "Tables": ["Table", "table", "sql_table"],
    "Checks": [
        "not_null",
        "in_range",
        "accepted_values",
        "unique",
        "fresh",
        "row_count",
        "foreign_key",
        "check",
    ],
    "Features": [
        "Entity",
        "Features",
        "count",
        "sum",
        "mean",
        "std",
        "min",
        "max",
        "nunique",
        "first",
        "latest",
        "request_features",
        "col",
    ],
    "Models": ["Model", "Classification", "Regression", "Split", "Tune", "PredictionLog"],
    "Gates": ["at_least", "at_most", "beats_baseline", "beats_champion", "no_skew"],
    "Releases": ["Release", "max_errors", "max_latency", "max_difference", "live_metric"],
    "A project in Python": ["open"],
}


def pages() -> dict[str, str]:
    """File name -> content."""
    return {"definitions.md": definitions(), "commands.md": commands(), "errors.md": error_page()}


def definitions() -> str:
    lines = ["# Definitions", "", "Everything in `import millpond as mp`. Made from the code by `docs/reference.py`."]
    for group, names in GROUPS.items():
        lines += ["", f"## {group}"]
        for name in names:
            value = getattr(millpond, name)
            lines += ["", f"### mp.{name}", "", f"`{name}{signature(value)}`", "", *prose(inspect.getdoc(value) or "")]
    return "\n".join(lines) + "\n"


def signature(value: Any) -> str:
    shown = []
    for name, parameter in inspect.signature(value).parameters.items():
        if name in ("declared_at", "derivation"):
            continue
        text = f"**{name}" if parameter.kind is parameter.VAR_KEYWORD else name
        text = f"*{name}" if parameter.kind is parameter.VAR_POSITIONAL else text
        if parameter.default is not parameter.empty and "factory" not in repr(parameter.default):
            text += f"={parameter.default!r}"
        elif parameter.default is not parameter.empty:
            text += "=..."
        if parameter.kind is parameter.KEYWORD_ONLY and not any("*" in each for each in shown):
            shown.append("*")
        shown.append(text)
    return f"({', '.join(shown)})"


def prose(text: str) -> Iterator[str]:
    """A Google-style docstring as Markdown: sections become lists, indented code stays code."""
    lines = text.splitlines()
    section = False
    for line in lines:
        heading = re.fullmatch(r"(Args|Attributes|Raises|Returns):", line.strip())
        entry = re.match(r"    (\*{0,2}\w+): (.*)", line)
        if heading:
            section = True
            yield f"{heading[1]}:"
            yield ""
        elif section and entry:
            yield f"- `{entry[1]}`: {entry[2]}"
        elif section and line.startswith("        "):
            yield f"  {line.strip()}"
        else:
            section = section and line.startswith(" ")
            yield line


def commands() -> str:
    from typer.main import get_command

    from millpond.cli.main import app

    lines = [
        "# Commands",
        "",
        "Made from the code by `docs/reference.py`. Each takes `--json`: one document on stdout.",
    ]
    root: Any = get_command(app)
    for path, command in walk(root, "millpond"):
        lines += ["", f"## {path}", "", (command.help or "").strip()]
        rows = [each for each in command.params if each.name != "help"]
        if rows:
            lines += ["", "| argument | meaning |", "|---|---|"]
        for each in rows:
            name = " ".join(each.opts) if each.param_type_name == "option" else (each.name or "").upper()
            lines.append(f"| `{name}` | {getattr(each, 'help', '') or ''} |")
    return "\n".join(lines) + "\n"


def walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", {})
    if not children or path == "millpond":
        yield path, command
    for name, child in children.items():
        yield from walk(child, f"{path} {name}")


def error_page() -> str:
    from millpond.cli.output import EXIT_CODES
    from millpond.server.errors import status_of

    lines = [
        "# Errors",
        "",
        "Made from the code by `docs/reference.py`. Every error says what, where, and what to do. A retryable one may",
        "pass when the same call is made again, without any change.",
        "",
        "| error | meaning | exit code | HTTP status | retryable |",
        "|---|---|---:|---:|---|",
    ]
    for name, kind in vars(errors).items():
        if not (isinstance(kind, type) and issubclass(kind, errors.MillpondError)):
            continue
        code = next(code for known, code in EXIT_CODES if issubclass(kind, known))
        first = (inspect.getdoc(kind) or "").splitlines()[0]
        retry = "yes" if kind.retryable else ""
        lines.append(f"| {name} | {first} | {code} | {status_of(kind('x'))} | {retry} |")
    lines += [
        "",
        "Exit code 2 is a wrong command line, 70 a defect of Millpond, 130 Ctrl-C. The routes of the inference",
        "protocol, below `/v2`, answer a RequestError with 400.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        sys.stderr.write(f"{FOLDER / name}\n")


if __name__ == "__main__":
    main()
