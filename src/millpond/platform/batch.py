"""A whole table scored into a table: part after part, in constant memory, resumed where it was stopped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from millpond.core.errors import MillpondError, RequestError
from millpond.lake.metadata import refuse_name
from millpond.lake.parts import Part, split
from millpond.lake.ports import Snapshot
from millpond.platform import batch_jobs, versions
from millpond.platform.batch_jobs import Asked, Job, Manifest
from millpond.platform.batch_receipts import SCORED, PinnedSnapshots, pin_for_receipts
from millpond.platform.batch_scoring import Scoring, check_columns
from millpond.platform.events import land_or_wait
from millpond.platform.platform import Platform
from millpond.platform.progress import step
from millpond.platform.runtimes import open_runtime
from millpond.registry.ports import Version

#: Rows of a part: so many are joined at once, held in memory, and lost at most when the job is killed.
PART_ROWS = 250_000


def predict_batch(
    platform: Platform,
    model: str,
    source: str,
    target: str,
    *,
    version: int | None = None,
    fresh: bool = False,
    part_rows: int = PART_ROWS,
) -> Snapshot:
    """Score a table into a table with one version of a model; commits one snapshot of `target`, or nothing.

    Features are as of each row's instant of prediction, else of the instant at which the job began, from snapshots
    that are pinned then. The target has the keys of the source, and `serving.batch.output_columns`.

    A job that was stopped, by whatever, goes on where it was when the same is asked again and the source has not
    changed: with what it had pinned, the version included. What differs is another job, and gives up the one before.

    Args:
        platform: The project.
        model: The model's name.
        source: Table to score.
        target: Table to write.
        version: The version; None is the champion.
        fresh: Start over, whatever was begun.
        part_rows: Rows of a part, of a job that begins.

    Raises:
        NotFound: No such model, version or table; no version serves; or a pinned snapshot is gone.
        RequestError: A row does not fit, or the target is the source or a table that the project declares.
        Conflict: A batch that writes `target` is running.
        MillpondError: The model failed. As above, finished parts stay.
    """
    refuse_name(target)
    if target in platform.definitions.tables:
        raise RequestError(f"{target} is a table that the project declares", hint="name another table with --to")
    if target == source:
        raise RequestError(f"{target} is the table to score", hint="name another table with --to")
    with batch_jobs.writing(platform, target):
        job = _take_up(platform, Asked(model, version, source, target, part_rows), fresh=fresh)
        job.pin()
        written = _carry_out(platform, job)
        pin_for_receipts(platform, job.manifest.pinned)
        job.end()
    return written


def _take_up(platform: Platform, asked: Asked, *, fresh: bool) -> Job:
    """The job that was begun and is asked for again; else a new one, in place of any that was begun."""
    before = batch_jobs.unfinished(platform, asked.target)
    if before is not None:
        reason = "asked for afresh" if fresh else _differs(platform, before, asked)
        if reason is None:
            return before
        with step(platform.listener, f"give up batch {asked.target}") as current:
            before.end()
            current.detail = reason
    version = _version(platform, asked)
    loaded = versions.load(platform, version)
    land_or_wait(platform)
    source = platform.lake.snapshot(asked.source)
    check_columns(loaded.served, source)
    tables = dict.fromkeys(view.source.name for view in loaded.views)
    snapshots = {table: source if table == asked.source else platform.lake.snapshot(table) for table in tables}
    return batch_jobs.begin(platform, batch_jobs.new_manifest(platform, asked, version.number, source, snapshots))


def _differs(platform: Platform, job: Job, asked: Asked) -> str | None:
    """Why a job that was begun is not the one that is asked for; None where it is."""
    begun = job.manifest
    if (begun.model, begun.asked, begun.source) != (asked.model, asked.version, asked.source):
        which = f"version {begun.asked} of {begun.model}" if begun.asked else begun.model
        return f"it scored {begun.source} with {which}"
    if begun.source_snapshot != platform.lake.snapshot(asked.source).id:
        return f"{asked.source} has changed"
    if begun.keys != batch_jobs.keys_of(platform, asked.source):
        return f"the key of {asked.source} has changed"
    return None


def _resumed(platform: Platform, begun: Manifest, there: int, parts: int) -> None:
    """Say with what a job goes on."""
    champion = versions.champion(platform, begun.model)
    with step(platform.listener, f"resume batch {begun.target}") as current:
        told = f"{there} of {parts} parts are there"
        if begun.asked is None and champion is not None and champion.number != begun.version:
            told += f"; goes on with version {begun.version}, although the champion is version {champion.number} now"
        current.up_to_date(told)


def _version(platform: Platform, asked: Asked) -> Version:
    if asked.version is not None:
        return platform.store.version(asked.model, asked.version)
    return versions.require_champion(platform, asked.model)


def _carry_out(platform: Platform, job: Job) -> Snapshot:
    begun = job.manifest
    loaded = versions.load(platform, platform.store.version(begun.model, begun.version))
    plan = platform.lake.plan(job.source)
    parts = split(plan, begun.part_rows)
    with (
        platform.engine() as reader,
        platform.compute() as compute,
        open_runtime(platform, loaded) as runtime,
    ):
        snapshots = PinnedSnapshots(platform.lake, begun.snapshots)
        scoring = Scoring(begun, loaded, runtime, compute, reader, job.source, plan, snapshots)
        left = [number for number, part in enumerate(parts) if not job.finished(number, part.rows)]
        if job.resumed:
            _resumed(platform, begun, len(parts) - len(left), len(parts))
        for number in left:
            _score_part(platform, job, scoring, parts, number)
        schema = scoring.schema
    with step(platform.listener, f"write {begun.target}") as current:
        properties = {SCORED: str(job.source), "requested_by": begun.requested_by}
        rows = job.reader(schema, len(parts))
        written = platform.lake.overwrite(begun.target, rows, properties=properties, token=f"batch-{begun.run}")
        current.detail = f"{written.rows:,} rows"
    return written


def _score_part(platform: Platform, job: Job, scoring: Scoring, parts: list[Part], number: int) -> None:
    part, begun = parts[number], job.manifest
    name = f"score {begun.source} with {begun.model}/{begun.version}"
    started = time.perf_counter()
    with step(platform.listener, name) as current, _located(part, number, len(parts), begun.source):
        job.write(number, scoring.schema, scoring.score(part))
        speed = part.rows / (time.perf_counter() - started)
        told = f"part {number + 1} of {len(parts)}: " if len(parts) > 1 else ""
        current.detail = f"{told}{part.rows:,} rows, {speed:,.0f} rows/s, {scoring.runtime.tier}"


@contextmanager
def _located(part: Part, number: int, parts: int, source: str) -> Iterator[None]:
    """Say of an error in which part it was."""
    try:
        yield
    except MillpondError as error:
        which = f"part {number + 1} of {parts}, which begins with row {part.first} of {source}"
        where = f"{error.where}, in {which}" if error.where else which
        kept = "finished parts are kept, with what they pinned; --fresh starts over with the tables as they are now"
        raise type(error)(error.what, where=where, hint=f"{error.hint}; {kept}" if error.hint else kept) from error
