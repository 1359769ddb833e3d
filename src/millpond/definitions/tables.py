"""Tables of the lake: ingested ones, and ones derived from other tables."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from millpond.core.names import NAME_RULE, did_you_mean, is_name
from millpond.core.time import Duration
from millpond.definitions.checks import Check
from millpond.definitions.place import Place, Problem, caller

WriteMode = Literal["append", "overwrite", "upsert"]
Engine = Literal["duckdb", "spark"]

#: Types a user may name for a column, and nothing else.
COLUMN_TYPES = ("bool", "int", "float", "string", "date", "instant", "decimal", "binary")


@dataclass(frozen=True)
class FunctionDerivation:
    """Rows computed by a Narwhals function: one lazy frame an input table, in order, to one lazy frame."""

    function: Callable[..., Any]
    inputs: tuple[Table, ...]

    def describe(self) -> dict[str, Any]:
        source = textwrap.dedent(inspect.getsource(self.function))
        return {"function": source, "inputs": [table.name for table in self.inputs]}


@dataclass(frozen=True)
class SqlDerivation:
    """Rows computed by one SELECT of the named engine's dialect; each input table is a relation of its own name."""

    query: str
    engine: Engine
    inputs: tuple[Table, ...]

    def describe(self) -> dict[str, Any]:
        return {"sql": self.query, "engine": self.engine, "inputs": [table.name for table in self.inputs]}


Derivation = FunctionDerivation | SqlDerivation


@dataclass(frozen=True, eq=False)
class Table:
    """A table of the lake.

    Args:
        name: The table's name in the lake.
        key: The column or columns that identify a row. Needed for upsert, entities and exact tie-breaking.
        time: The column with the instant at which a row's event happened. A table without one holds facts that
            are visible at every instant.
        known: The column with the instant at which the row became known, where that may be after `time`.
        zone: IANA zone of naive timestamps in this table's sources. Without it a naive timestamp is refused.
        source: File, or files, that `millpond ingest` reads when it is given none; relative to the project.
        mode: What ingesting does with rows already there.
        types: Types of columns that cannot be read off the source, by column.
        nulls: Texts that mean null in a CSV source, beside the empty one.
        lateness: How far behind the newest event's time a pushed event's may lie. None takes any.
        checks: What the rows must satisfy.
    """

    name: str
    key: str | Sequence[str] = ()
    time: str | None = None
    known: str | None = None
    zone: str | None = None
    source: str | Sequence[str] | None = None
    mode: WriteMode | None = None
    types: Mapping[str, str] = field(default_factory=dict)
    nulls: Sequence[str] = ()
    lateness: str | None = None
    checks: Sequence[Check] = ()
    description: str = ""
    owner: str = ""
    tags: Sequence[str] = ()
    derivation: Derivation | None = None
    declared_at: Place = field(default_factory=caller, repr=False)

    @property
    def keys(self) -> tuple[str, ...]:
        """The key columns, possibly none."""
        return (self.key,) if isinstance(self.key, str) else tuple(self.key)

    @property
    def known_or_time(self) -> str | None:
        """The column that says when a row became known."""
        return self.known or self.time

    @property
    def sources(self) -> tuple[str, ...]:
        if self.source is None:
            return ()
        return (self.source,) if isinstance(self.source, str) else tuple(self.source)

    @property
    def write_mode(self) -> WriteMode:
        """The declared mode; by default upsert where there is a key, else overwrite."""
        return self.mode or ("upsert" if self.keys else "overwrite")

    @property
    def subject(self) -> str:
        return f'Table "{self.name}"'

    def describe(self) -> dict[str, Any]:
        """What the table means, as plain data: documentation and checks are left out."""
        return {
            "table": self.name,
            "key": list(self.keys),
            "time": self.time,
            "known": self.known,
            "zone": self.zone,
            "derivation": self.derivation.describe() if self.derivation else None,
        }

    def problems(self) -> Iterator[Problem]:
        def problem(where: str, found: str, hint: str = "") -> Problem:
            return Problem(self.declared_at, self.subject, where, found, hint)

        if not is_name(self.name):
            yield problem("name", f"is {self.name!r}", NAME_RULE)
        if self.known and not self.time:
            yield problem("known", f"is {self.known!r}, but the table has no time", "declare time= as well")
        if self.zone is not None:
            try:
                ZoneInfo(self.zone)
            except (KeyError, ValueError, OSError):
                yield problem("zone", f"is {self.zone!r}", did_you_mean(self.zone, available_timezones(), noun="zones"))
        if self.mode not in (None, "append", "overwrite", "upsert"):
            yield problem("mode", f"is {self.mode!r}", 'allowed: "append", "overwrite", "upsert"')
        if self.mode == "upsert" and not self.keys:
            yield problem("mode", "is upsert, but the table has no key", "declare key=")
        if self.lateness is not None:
            try:
                Duration.parse(self.lateness)
            except (ValueError, TypeError) as error:
                yield problem("lateness", str(error))
        for column, kind in self.types.items():
            if kind not in COLUMN_TYPES:
                yield problem(f"types: {column}", f"is {kind!r}", did_you_mean(kind, COLUMN_TYPES, noun="types"))
        for check in self.checks:
            if isinstance(check, Check):
                yield from check.problems(self.subject)
            else:
                yield problem("checks", f"holds {check!r}, which is no check", 'such as mp.not_null("origin")')
        if self.derivation is not None:
            if self.source is not None:
                yield problem("source", "is given, but the table is derived", "a derived table has no source")
            for each in self.derivation.inputs:
                if not isinstance(each, Table):
                    yield problem("inputs", f"holds {each!r}, which is no table", "give mp.Table objects")


def table(
    *inputs: Table,
    key: str | Sequence[str] = (),
    time: str | None = None,
    known: str | None = None,
    checks: Sequence[Check] = (),
    name: str | None = None,
    description: str = "",
    owner: str = "",
    tags: Sequence[str] = (),
) -> Callable[[Callable[..., Any]], Table]:
    """Declare a derived table by a Narwhals function; the function's name is the table's.

    The function takes one `narwhals.LazyFrame` an input table, in order, and returns one. It must be pure: the
    same rows from the same rows. It is run again when its source text or a snapshot it reads has changed.

        @mp.table(raw_weather, key=("origin", "observed_at"), time="observed_at")
        def weather(raw):
            return raw.select("origin", mp.col("time_hour").alias("observed_at"), "temp")
    """
    place = caller()

    def decorate(function: Callable[..., Any]) -> Table:
        return Table(
            name or function.__name__,
            key=key,
            time=time,
            known=known,
            checks=checks,
            description=description or inspect.cleandoc(function.__doc__ or ""),
            owner=owner,
            tags=tags,
            derivation=FunctionDerivation(function, inputs),
            declared_at=place,
        )

    return decorate


def sql_table(
    name: str,
    *inputs: Table,
    query: str,
    engine: Engine = "duckdb",
    key: str | Sequence[str] = (),
    time: str | None = None,
    known: str | None = None,
    checks: Sequence[Check] = (),
    description: str = "",
    owner: str = "",
    tags: Sequence[str] = (),
) -> Table:
    """Declare a derived table by one SELECT in the dialect of `engine`; input tables are relations by their names."""
    return Table(
        name,
        key=key,
        time=time,
        known=known,
        checks=checks,
        description=description,
        owner=owner,
        tags=tags,
        derivation=SqlDerivation(query, engine, inputs),
        declared_at=caller(),
    )
