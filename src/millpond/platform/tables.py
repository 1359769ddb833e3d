"""Bringing tables up to date: ingest, derive, check."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from millpond.core.errors import DataError, NotFound
from millpond.core.time import now
from millpond.definitions.checks import Check, ForeignKey
from millpond.definitions.project import check_columns, refuse
from millpond.definitions.tables import SqlDerivation, Table, WriteMode
from millpond.lake.ports import Engine, Snapshot
from millpond.platform.alone import alone
from millpond.platform.applied import record
from millpond.platform.events import land_or_wait
from millpond.platform.platform import Platform
from millpond.platform.progress import step

if TYPE_CHECKING:
    from millpond.lake.ingest import Ingested
    from millpond.quality.results import CheckResult


def ingest(
    platform: Platform,
    name: str,
    sources: Sequence[Path] = (),
    *,
    mode: WriteMode | None = None,
    force: bool = False,
) -> Ingested:
    """Take files into a table; without `sources` the ones that its declaration names.

    Sources that are in the table already, by content, are not read again unless `force` is given. Commits one
    snapshot, or nothing.

    Raises:
        NotFound: No such table is declared, or a file is missing.
        DataError: A file cannot be taken as it is.
    """
    from millpond.lake.ingest import ingest as ingest_files

    table = platform.definitions.table(name)
    if table.derivation is not None:
        raise DataError(
            f"{name} is derived and cannot be ingested",
            where=str(table.declared_at),
            hint="it is computed from " + ", ".join(each.name for each in table.derivation.inputs),
        )
    paths = list(sources) or [platform.settings.root / source for source in table.sources]
    if not paths:
        hint = f"name files (`millpond ingest {name} FILE ...`) or declare source= on the table"
        raise NotFound(f"There is nothing to ingest into {name}", where=str(table.declared_at), hint=hint)
    with (
        alone(platform, f"table-{name}"),
        step(platform.listener, f"ingest {name}") as current,
        platform.engine() as engine,
    ):
        result = ingest_files(platform.lake, engine, table, paths, mode=mode, force=force, scratch=platform.scratch)
        rows = f"{result.snapshot.rows:,} rows"
        if result.skipped:
            current.up_to_date(rows)
        else:
            current.detail = rows
    record(platform, table)
    return result


def ingest_declared(platform: Platform) -> list[Ingested]:
    """Ingest every table that declares a source, in order of declaration."""
    return [ingest(platform, name) for name, table in platform.definitions.tables.items() if table.sources]


def refresh(platform: Platform, tables: Iterable[Table]) -> dict[str, Snapshot]:
    """Derive and check tables, inputs first, pushed events included; returns the current snapshot of each.

    A table whose code and inputs have not changed is not derived again, and one that passed its checks at this
    snapshot is not checked again. A blocking check that fails stops here: nothing that reads the table is written.

    Raises:
        NotFound: A table that others are made from was never ingested.
        CheckFailed: A blocking check found violations.
        DefinitionError: A definition names a column that a table does not have.
    """
    snapshots: dict[str, Snapshot] = {}
    tables = list(tables)
    land_or_wait(platform, [table.name for table in tables])
    with platform.compute() as engine:
        for table in tables:
            with alone(platform, f"table-{table.name}"):
                snapshots[table.name] = _current(platform, engine, table, snapshots)
                record(platform, table)
                known = {name: each.column_names for name, each in snapshots.items()}
                refuse(check_columns(platform.definitions, known))
                _check(platform, engine, table, snapshots)
    return snapshots


def _current(platform: Platform, engine: Engine, table: Table, snapshots: Mapping[str, Snapshot]) -> Snapshot:
    from millpond.lake.derive import derive

    if table.derivation is None:
        return _ingested(platform, table)
    inputs = {each.name: snapshots[each.name] for each in table.derivation.inputs}
    with step(platform.listener, f"derive {table.name}") as current:
        with _engine_of(platform, engine, table) as own:
            derived = derive(platform.lake, own, table, inputs)
        rows = f"{derived.snapshot.rows:,} rows"
        if derived.skipped:
            current.up_to_date(rows)
        else:
            current.detail = rows
    return derived.snapshot


@contextmanager
def _engine_of(platform: Platform, engine: Engine, table: Table) -> Iterator[Engine]:
    """The engine that a table is derived on: the one its SQL is written for, else the profile's."""
    if isinstance(table.derivation, SqlDerivation) and table.derivation.engine != engine.dialect:
        with platform.compute(table.derivation.engine) as own:
            yield own
    else:
        yield engine


def check(platform: Platform, names: Sequence[str] = ()) -> list[CheckResult]:
    """Run the checks of tables as they stand now (default: all that exist and have checks), and keep the results.

    Unlike `refresh` this derives nothing, skips nothing, and raises nothing for a check that fails.
    """
    from millpond.quality.results import store_results
    from millpond.quality.run import run_checks

    declared = platform.definitions.tables
    chosen = [platform.definitions.table(name) for name in names] or [
        table for table in declared.values() if table.checks and platform.lake.exists(table.name)
    ]
    results: list[CheckResult] = []
    with platform.compute() as engine:
        for table in chosen:
            snapshot = platform.lake.snapshot(table.name)
            refuse(check_columns(platform.definitions, {table.name: snapshot.column_names}))
            with step(platform.listener, f"check {table.name}") as current:
                found = run_checks(engine, table, snapshot, targets=_targets(platform, table), now=now())
                current.detail = _summary(found)
                results += found
    if results:
        store_results(platform.lake, results)
    return results


def _check(platform: Platform, engine: Engine, table: Table, snapshots: Mapping[str, Snapshot]) -> None:
    from millpond.quality.results import passed_before, require, store_results
    from millpond.quality.run import run_checks

    if not table.checks:
        return
    snapshot = snapshots[table.name]
    targets = {**_targets(platform, table), **snapshots}
    with step(platform.listener, f"check {table.name}") as current:
        with platform.engine() as small:
            checked = passed_before(platform.lake, small, table, snapshot, targets)
        if checked:
            current.up_to_date(f"{len(table.checks)} checks")
            return
        results = run_checks(engine, table, snapshot, targets=targets, now=now())
        store_results(platform.lake, results)
        current.detail = _summary(results)
        require(results)


def _targets(platform: Platform, table: Table) -> dict[str, Snapshot]:
    """The current snapshots of the tables that foreign keys point at."""
    wanted: list[Check] = list(table.checks)
    targets = {each.target.name for each in wanted if isinstance(each, ForeignKey) and each.target is not None}
    return {name: platform.lake.snapshot(name) for name in sorted(targets) if platform.lake.exists(name)}


def _ingested(platform: Platform, table: Table) -> Snapshot:
    if not platform.lake.exists(table.name):
        raise NotFound(
            f"Table {table.name} has not been ingested yet",
            where=str(table.declared_at),
            hint=f"run `millpond ingest {table.name}" + ("`" if table.sources else " FILE ...`"),
        )
    return platform.lake.snapshot(table.name)


def _summary(results: Sequence[CheckResult]) -> str:
    failed = [result for result in results if not result.passed]
    if not failed:
        return f"{len(results)} checks passed"
    names = ", ".join(result.check for result in failed)
    return f"{len(results) - len(failed)} of {len(results)} checks passed; not: {names}"
