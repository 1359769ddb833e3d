"""The command `millpond plan`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from millpond.cli.output import Output, failures, plain
from millpond.cli.session import Json, session
from millpond.definitions.changes import in_words

if TYPE_CHECKING:
    from millpond.platform.consequences import Plan, ReleaseEffect

_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


def command(context: typer.Context, json: Json = False) -> None:
    """What the definitions change since they were last applied: versions, tables, models, online values."""
    output = Output(as_json=json)
    with failures(output):
        from millpond.platform.plan import plan

        found = plan(session(context).open(output))
        output.data({"empty": found.empty, **plain(found)})
        if json:
            return
        for line in _lines(found):
            output.line(line)
        if found.models or found.tables:
            output.next("millpond train", "applies it")


def _lines(plan: Plan) -> Iterator[str]:
    if plan.empty:
        yield "The definitions are as they were applied; nothing changes."
    if plan.changes:
        yield "Declared otherwise than applied:"
    for change in plan.changes:
        yield f"  {_SIGNS[change.action]} {change.key}"
        if change.action == "changed":
            yield from (f"      {line}" for field in change.fields for line in in_words(field))
    yield from _section(
        "Tables:",
        (
            f"{each.name}{_versions(each.version, each.becomes)}{_derive(each.derive)}{_why(each.because)}"
            for each in plan.tables
        ),
    )
    yield from _section(
        "Views:",
        (
            f"{each.name}{_versions(each.version, each.becomes)}{_users(each.models)}{_why(each.because)}"
            for each in plan.views
        ),
    )
    yield from _section(
        "Models to train again:",
        (
            f"{each.name}: {'training set and fit' if each.training_set else 'fit'}{_why(each.because)}"
            for each in plan.models
        ),
    )
    yield from _section("Releases:", (_release(each) for each in plan.releases))
    yield from _section("Online values:", (f"{each.action} {each.view} ({each.because})" for each in plan.online))
    yield from _section("Versions that answer, and go on as they were trained:", _deployed(plan))


def _section(title: str, lines: Iterator[str]) -> Iterator[str]:
    told = [f"  {line}" for line in lines]
    if told:
        yield from ("", title, *told)


def _deployed(plan: Plan) -> Iterator[str]:
    for each in plan.deployed:
        kept = [f"{view.name} {_number(view.version)}, now {_number(view.becomes)}" for view in each.keeps]
        yield f"{each.model}/{each.version}" + (f" with {'; '.join(kept)}" if kept else "")
        for table in each.tables:
            yield f"  reads table {table}, whose definition is another than it was trained with"


def _release(each: ReleaseEffect) -> str:
    how = "are released as declared" if each.declared else "are promoted as soon as their gates pass"
    return f"{each.model}: its next versions {how}; nothing is trained for it"


def _versions(version: int | None, becomes: int | None) -> str:
    if version == becomes:
        return f" stays version {version}" if version else ""
    return f": {_number(version)} -> {_number(becomes)}" if version else f": {_number(becomes)}"


def _number(version: int | None) -> str:
    return f"version {version}" if version else "no version"


def _derive(derive: bool) -> str:
    return ", derived again" if derive else ""


def _users(models: tuple[str, ...]) -> str:
    return f", used by {', '.join(models)}" if models else ""


def _why(because: tuple[str, ...]) -> str:
    return f" ({'; '.join(because)})"
