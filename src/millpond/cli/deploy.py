"""The command `millpond deploy`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from millpond.cli.output import Output, failures, grid
from millpond.cli.session import Json, session
from millpond.core.errors import RequestError

if TYPE_CHECKING:
    from rich.table import Table

    from millpond.platform.platform import Platform
    from millpond.platform.release_models import ReleaseRequest, ReleaseView, VariantCounts


def command(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Model.")],
    version: Annotated[str, typer.Argument(help='Number, or alias such as "challenger".')] = "challenger",
    canary: Annotated[float | None, typer.Option(help="Let it answer this percentage until told otherwise.")] = None,
    steps: Annotated[str, typer.Option(help='Percentages, one after the other, such as "5,25,100".')] = "",
    shadow: Annotated[bool, typer.Option("--shadow", help="Let it shadow the live version first.")] = False,
    every: Annotated[str, typer.Option(help='Least time of the shadow and of each step, such as "10m".')] = "",
    now: Annotated[bool, typer.Option("--now", help="At once, whatever release is declared or under way.")] = False,
    advance: Annotated[bool, typer.Option("--advance", help="Take the release to its next step.")] = False,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Take it back, or the champion with no release.")
    ] = False,
    abort: Annotated[bool, typer.Option("--abort", help="End the release; the live version answers all.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Show the release, and what its rules say.")] = False,
    why: Annotated[str, typer.Option(help="Kept in the audit log.")] = "deployed by hand",
    force: Annotated[bool, typer.Option(help="Do it although a gate on live traffic fails.")] = False,
    json: Json = False,
) -> None:
    """Make a version the one that answers for its model: at once, or step by step; or take it back."""
    output = Output(as_json=json)
    with failures(output):
        from millpond.platform import log_policies, release_pages

        chosen = [name for name, given in (("advance", advance), ("rollback", rollback), ("abort", abort)) if given]
        ladder = canary is not None or bool(steps) or shadow or bool(every)
        if len(chosen) + ladder + now + status > 1:
            raise RequestError("These options exclude each other", hint="see millpond deploy --help")
        platform = session(context).open(output)
        if status:
            found = release_pages.releases(platform, model, 1)
            output.data(found[0] if found else None, list(_shown(found[0])) if found else f"{model} was never released")
            return
        log_policies.take_over(platform, [model])
        if chosen:
            done: ReleaseView | None = _move(platform, model, chosen[0], why)
        else:
            wanted = _wanted(version, why, canary, steps, shadow=shadow, every=every, force=force)
            done = _deploy(platform, model, wanted, now=now)
        _wait(platform, output)
        _say(output, platform, model, done)


def _wanted(
    version: str, why: str, canary: float | None, steps: str, *, shadow: bool, every: str, force: bool
) -> ReleaseRequest:
    from millpond.platform.release_models import ReleaseRequest

    if canary is not None and steps:
        raise RequestError("--canary and --steps exclude each other", hint="--canary 5 is one step that stays")
    shares = [canary] if canary is not None else _percentages(steps) if steps else None
    return ReleaseRequest(
        version=int(version) if version.isdigit() else version,
        why=why,
        steps=None if shares is None else tuple(each / 100 for each in shares),
        every=every or ("" if canary is not None else None),
        shadow=every if shadow else None,
        force=force,
    )


def _percentages(text: str) -> list[float]:
    try:
        return [float(each) for each in text.split(",")]
    except ValueError as error:
        raise RequestError(f"--steps is {text!r}", hint='percentages with commas between them: "5,25,100"') from error


def _deploy(platform: Platform, model: str, wanted: ReleaseRequest, *, now: bool) -> ReleaseView | None:
    """Release a version, or promote it at once; None where it answered already."""
    from millpond.platform import release, release_pages

    plan = None if now else release_pages.plan_from(platform, model, wanted)
    if plan is None:
        before = release_pages.releases(platform, model, 1)
        release.promote(platform, model, wanted.version, why=wanted.why, force=wanted.force)
        after = release_pages.releases(platform, model, 1)
        return after[0] if after != before else None
    begun = release.start(platform, model, wanted.version, plan, why=wanted.why, force=wanted.force)
    return release_pages.view(begun)


def _move(platform: Platform, model: str, move: str, why: str) -> ReleaseView:
    from millpond.platform import release, release_pages

    moves = {"advance": release.advance, "rollback": release.rollback, "abort": release.abort}
    return release_pages.view(moves[move](platform, model, why=why))


def _wait(platform: Platform, output: Output) -> None:
    """Return when what was deployed answers, where a server runs."""
    from millpond.platform.deployments import publish
    from millpond.platform.progress import step
    from millpond.server.lock import running_instance
    from millpond.server.traffic import wait_until_served

    if running_instance(platform.settings.run) is None:
        return
    with step(output.step, "serving processes take it") as current:
        number = wait_until_served(platform.settings.run, publish(platform))
        current.detail = f"{number} of them"


def _say(output: Output, platform: Platform, model: str, done: ReleaseView | None) -> None:
    champion = platform.store.version(model, "champion")
    value: dict[str, Any] = {"model": model, "version": champion.number, "aliases": champion.aliases, "release": done}
    if done is None or done.state == "promoted":
        output.data(value, f"{champion} answers for {model} now")
        declared = model in platform.definitions.models
        output.next(f"millpond predict {model} COLUMN=VALUE ..." if declared else "millpond up")
        return
    if done.active:
        output.data(value, f"{model}/{done.version} {_doing(done)}; {champion} answers the rest")
        output.next(f"millpond deploy {model} --status")
        return
    output.data(value, f"{model}/{done.version} was {done.state}; {champion} answers for {model}")


def _doing(done: ReleaseView) -> str:
    return "shadows" if done.state == "shadowing" else f"answers {done.share * 100:.4g} % of the requests"


def _shown(found: ReleaseView) -> Iterator[str | Table]:
    """A release for people: its ladder, what was counted, what the rules say."""
    yield f"{found.kind} of {found.model}/{found.version}: {found.where}"
    yield grid(
        "",
        "",
        rows=[
            ("live when it began", "nothing" if found.against is None else f"version {found.against}"),
            ("by", f"{found.who}: {found.why}"),
            ("began", found.started_at),
            ("this step began" if found.active else "ended", found.step_started_at if found.active else found.ended_at),
            *([("ladder", _ladder(found))] if found.shares or found.shadows else []),
        ],
    )
    if found.variants:
        columns = ("version", "variant", "requests", "failed", "p50 ms", "p99 ms", "compared", "difference", "flips")
        rows = [(each.version, each.variant, *_numbers(each)) for each in found.variants]
        yield from ("", grid(*columns, rows=rows))
    if found.findings:
        yield from ("", grid("rule", "", "", rows=[(each.rule, each.standing, each.said) for each in found.findings]))


def _numbers(each: VariantCounts) -> tuple[float | None, ...]:
    compared = (each.compared, each.mean_difference, each.flips)
    return (each.requests, each.failed, each.p50_ms, each.p99_ms, *compared)


def _ladder(found: ReleaseView) -> str:
    rungs = (["shadow"] if found.shadows else []) + [f"{each * 100:.4g} %" for each in found.shares] + ["100 %"]
    here = found.step if found.shadows else found.step - 1
    if found.state == "promoted":
        here = len(rungs) - 1
    return " > ".join(f"({each})" if index == here else each for index, each in enumerate(rungs))
