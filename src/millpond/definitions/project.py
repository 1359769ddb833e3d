"""All that a project declares, validated as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from millpond.core.errors import DefinitionError, NotFound
from millpond.core.names import did_you_mean
from millpond.definitions.checks import ForeignKey
from millpond.definitions.features import Entity, Features, RequestFeatures
from millpond.definitions.models import Model
from millpond.definitions.place import Place, Problem
from millpond.definitions.tables import Table

Definition = Table | Entity | Features | RequestFeatures | Model
D = TypeVar("D", Table, Entity, Features, RequestFeatures, Model)


@dataclass(frozen=True)
class Definitions:
    """What a project declares, by name. Made by `collect`, which validates."""

    tables: Mapping[str, Table]
    entities: Mapping[str, Entity]
    views: Mapping[str, Features]
    request_features: Mapping[str, RequestFeatures]
    models: Mapping[str, Model]

    def table(self, name: str) -> Table:
        return _get(self.tables, name, "table")

    def view(self, name: str) -> Features:
        return _get(self.views, name, "feature view")

    def model(self, name: str) -> Model:
        return _get(self.models, name, "model")

    @property
    def derivation_order(self) -> tuple[Table, ...]:
        """The derived tables, each after the ones it reads."""
        return tuple(table for table in _walk_tables(self.tables.values()) if table.derivation is not None)

    def upstream(self, model: Model) -> tuple[Table, ...]:
        """Every table that a model's training reads, directly or through derivations, inputs first."""
        return self.behind(model.examples, *(view.source for view in model.views))

    def behind(self, *tables: Table) -> tuple[Table, ...]:
        """The given tables and all that they are derived from, inputs first."""
        return tuple(_walk_tables(tables))


def collect(objects: Iterable[object]) -> Definitions:
    """Take the definitions among `objects`, with all that they refer to, and validate them together.

    Raises:
        DefinitionError: Says every problem, each with file, object, field, what was found and what is allowed.
    """
    found: dict[int, Definition] = {}
    for each in objects:
        _add(each, found)
    problems = [problem for each in found.values() for problem in each.problems()]
    objects = found.values()
    definitions = Definitions(
        tables=_by_name(objects, Table, problems),
        entities=_by_name(objects, Entity, problems),
        views=_by_name(objects, Features, problems),
        request_features=_by_name(objects, RequestFeatures, problems),
        models=_by_name(objects, Model, problems),
    )
    refuse([*problems, *_clashes(definitions)])
    return definitions


def check_columns(definitions: Definitions, columns: Mapping[str, Iterable[str]]) -> Iterator[Problem]:
    """Columns that definitions name and tables do not have.

    Args:
        columns: The columns of each table that exists in the lake; other tables are not judged.
    """
    known = {name: tuple(each) for name, each in columns.items()}

    def missing(place: Place, subject: str, where: str, column: str | None, table: Table) -> Iterator[Problem]:
        if column is not None and table.name in known and column not in known[table.name]:
            hint = did_you_mean(column, known[table.name], noun=f"columns of {table.name}")
            yield Problem(place, subject, where, f"names column {column!r}, which {table.name} does not have", hint)

    for table in definitions.tables.values():
        named = [("key", key) for key in table.keys] + [("time", table.time), ("known", table.known)]
        for where, column in named:
            yield from missing(table.declared_at, table.subject, where, column, table)
        for check in table.checks:
            for column in check.columns:
                yield from missing(check.declared_at, table.subject, f"checks: {check.kind}", column, table)
            if isinstance(check, ForeignKey) and check.target is not None:
                where = f"checks: {check.kind}"
                yield from missing(check.declared_at, table.subject, where, check.target_column, check.target)
    for view in definitions.views.values():
        for key in view.entity.keys:
            yield from missing(view.declared_at, view.subject, "entity", key, view.source)
        for where, column in (("time", view.time), ("known", view.known)):
            yield from missing(view.declared_at, view.subject, where, column, view.source)
        for name, each in view.features.items():
            yield from missing(view.declared_at, view.subject, name, each.column, view.source)
    for model in definitions.models.values():
        named = [("at", model.at), ("label_known", model.label_known)]
        named += [("inputs", column) for column in model.columns] + [("inputs", key) for key in model.entity_keys]
        named += [("slices", column) for column in model.slices]
        named += [("task: label", column) for column in model.task.label_columns]
        for where, column in named:
            yield from missing(model.declared_at, model.subject, where, column, model.examples)


def refuse(problems: Iterable[Problem]) -> None:
    """Raise a `DefinitionError` that lists the problems, if there are any."""
    listed = list(dict.fromkeys(problems))
    if listed:
        raise DefinitionError(_listing(listed), hint="mend the lines above, then run the command again")


def _add(each: object, found: dict[int, Definition]) -> None:
    if id(each) in found or not isinstance(each, (Table, Entity, Features, RequestFeatures, Model)):
        return
    found[id(each)] = each
    for other in _references(each):
        _add(other, found)


def _references(each: Definition) -> Iterator[object]:
    if isinstance(each, Table):
        yield from each.derivation.inputs if each.derivation else ()
        yield from (check.target for check in each.checks if isinstance(check, ForeignKey))
    elif isinstance(each, Features):
        yield from (each.entity, each.source)
    elif isinstance(each, Model):
        yield from (each.examples, *each.inputs)


def _by_name(found: Iterable[Definition], kind: type[D], problems: list[Problem]) -> dict[str, D]:
    named: dict[str, D] = {}
    for each in found:
        if isinstance(each, kind):
            other = named.setdefault(each.name, each)
            if other is not each:
                text = f"{each.name!r} is declared at {other.declared_at} as well"
                problems.append(Problem(each.declared_at, each.subject, "name", text, "names are unique"))
    return named


def _clashes(definitions: Definitions) -> Iterator[Problem]:
    for name in sorted(set(definitions.views) & set(definitions.request_features)):
        function = definitions.request_features[name]
        text = f"{name!r} names a feature view and request features"
        yield Problem(function.declared_at, function.subject, "name", text, "rename one of them")


def _walk_tables(tables: Iterable[Table]) -> Iterator[Table]:
    seen: dict[str, Table] = {}

    def visit(table: Table) -> Iterator[Table]:
        if table.name in seen:
            return
        seen[table.name] = table
        for each in table.derivation.inputs if table.derivation else ():
            yield from visit(each)
        yield table

    for table in tables:
        yield from visit(table)


def _get(group: Mapping[str, D], name: str, noun: str) -> D:
    if name not in group:
        raise NotFound(f"There is no {noun} {name!r} in this project", hint=did_you_mean(name, group, noun=f"{noun}s"))
    return group[name]


def _listing(problems: list[Problem]) -> str:
    if len(problems) == 1:
        return str(problems[0])
    return "\n".join([f"The definitions have {len(problems)} problems:", *(f"  {each}" for each in problems)])
