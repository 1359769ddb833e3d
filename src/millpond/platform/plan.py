"""The plan of a project: what its definitions change, looked up and not applied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from millpond.core.errors import NotFound
from millpond.definitions.meanings import meanings, parts_of
from millpond.features.online.ports import ViewState
from millpond.platform.applied import Record
from millpond.platform.consequences import Derived, Plan, Trained, make_plan
from millpond.platform.platform import Platform
from millpond.platform.versions import CHAMPION
from millpond.registry.ports import Version


def plan(platform: Platform, states: Sequence[ViewState] | None = None) -> Plan:
    """What the project's definitions change, compared with what was applied; applies nothing.

    New rows are no change of definitions: what they make out of date is not told here.

    Args:
        platform: The project.
        states: What the online store holds; None asks it.

    Raises:
        DefinitionError: The definitions are wrong.
    """
    return make_plan(
        platform.definitions,
        meanings(platform.definitions),
        Record.of(platform),
        _derived(platform),
        [each for name in _models(platform) for each in trained(platform, name)],
        platform.online_states if states is None else states,
    )


def trained(platform: Platform, model: str) -> list[Trained]:
    """The newest version of a model and its champion, with the meanings that they were trained with."""
    versions = platform.store.versions(model)
    chosen = {each.number: each for each in versions[-1:] + [each for each in versions if CHAMPION in each.aliases]}
    return [found for each in chosen.values() for found in trained_with(platform, each)]


def trained_with(platform: Platform, version: Version) -> Iterator[Trained]:
    """A version with the meanings that it was trained with; nothing where it does not keep them."""
    try:
        kept = platform.store.lineage(version).definitions
    except NotFound:  # something else than Millpond may have registered it
        return
    if "model" in kept and "tables" in kept:
        yield Trained(version.model, version.number, CHAMPION in version.aliases, parts_of(kept))


def _models(platform: Platform) -> list[str]:
    return list(dict.fromkeys((*platform.definitions.models, *platform.store.models())))


def _derived(platform: Platform) -> dict[str, Derived]:
    from millpond.lake.derive import defined_otherwise

    found: dict[str, Derived] = {}
    for table in platform.definitions.derivation_order:
        if not platform.lake.exists(table.name):
            found[table.name] = "absent"
        else:
            other = defined_otherwise(table, platform.lake.snapshot(table.name))
            found[table.name] = "other" if other else "same"
    return found
