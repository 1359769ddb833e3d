"""Definitions take effect: their meanings are put on record once something was made with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from millpond.access.ports import AppliedDefinition
from millpond.core.fingerprints import fingerprint
from millpond.definitions.features import Features, RequestFeatures
from millpond.definitions.meanings import Key, Kind, Meaning, meaning, model_meaning
from millpond.definitions.models import Model
from millpond.definitions.tables import Table
from millpond.platform.platform import Platform
from millpond.platform.progress import step


def record(platform: Platform, *made_with: Table | Features | RequestFeatures | Model) -> None:
    """Put on record that something was made with these definitions as they are now.

    Called after what they made was committed, and before anything is made from that; it is called also where all was
    up to date. So a killed command leaves nothing on record that never took effect, and the next one makes up for
    what it left out. What is on record and no longer declared is put on record as gone. Durable when it returns.
    """
    _record(platform, {key: found for each in made_with for key, found in _meanings(each)})


def record_release(platform: Platform, model: Model) -> None:
    """Put on record that a version was released as the model declares now; as `record`."""
    found = model_meaning(model)
    _record(platform, {key: each for key, each in found.items() if key.kind == "release"})


def _record(platform: Platform, present: Mapping[tuple[str, str], Meaning]) -> None:
    from millpond.registry.git import code_state

    log = platform.access.definitions
    in_force = log.in_force()
    declared = declared_keys(platform)
    gone = [key for key in in_force if key not in declared]

    def code() -> tuple[str | None, bool]:
        state = code_state(platform.settings.root)
        return state.commit, state.dirty

    meanings: dict[tuple[str, str], Meaning | None] = {**dict.fromkeys(gone)}
    meanings.update(present)
    made = log.apply(platform.user, meanings, code)
    changed = [each for each in made if each.number is None or (each.kind, each.name) in in_force]
    if changed:
        with step(platform.listener, "definitions") as current:
            current.detail = ", ".join(_told(each) for each in changed)


def declared_keys(platform: Platform) -> set[tuple[str, str]]:
    """Kind and name of everything that the project declares and that has versions."""
    found = platform.definitions
    groups = {
        "table": found.tables,
        "view": found.views,
        "request_features": found.request_features,
        "model": found.models,
        "release": [name for name, each in found.models.items() if each.release is not None],
    }
    return {(kind, name) for kind, group in groups.items() for name in group}


@dataclass(frozen=True)
class Record:
    """All that was applied, oldest first, and what can be told from it."""

    entries: Sequence[AppliedDefinition]

    @classmethod
    def of(cls, platform: Platform) -> Record:
        return cls(platform.access.definitions.everything())

    @cached_property
    def in_force(self) -> Mapping[Key, AppliedDefinition]:
        """The last of each object that was declared when it was last looked at."""
        last = {_of(each): each for each in self.entries}
        return {key: each for key, each in last.items() if each.number is not None}

    @cached_property
    def numbers(self) -> Mapping[tuple[Key, str], int]:
        """Object and fingerprint of a meaning -> the version."""
        return {
            (_of(each), each.fingerprint): each.number
            for each in self.entries
            if each.fingerprint is not None and each.number is not None
        }

    def number(self, key: Key, each: Meaning | None) -> int | None:
        """The version of an object that has this meaning; None where there is none on record."""
        return None if each is None else self.numbers.get((key, fingerprint(each)))

    def becomes(self, key: Key, each: Meaning) -> int:
        """The version that an object has, or will have, with this meaning."""
        found = self.number(key, each)
        used = [number for (other, _), number in self.numbers.items() if other == key]
        return found if found is not None else max(used, default=0) + 1

    def history(self, key: Key) -> list[AppliedDefinition]:
        return [each for each in self.entries if _of(each) == key]


def _of(each: AppliedDefinition) -> Key:
    kind: Kind = each.kind  # type: ignore[assignment]
    return Key(kind, each.name)


def _meanings(each: Table | Features | RequestFeatures | Model) -> Iterable[tuple[Key, Meaning]]:
    if isinstance(each, Model):
        return model_meaning(each).items()
    kind: Kind = "table" if isinstance(each, Table) else "view" if isinstance(each, Features) else "request_features"
    return [(Key(kind, each.name), meaning(each))]


def _told(each: AppliedDefinition) -> str:
    name = f"{each.kind.replace('_', ' ')} {each.name}"
    if each.number is None:
        return f"{name} is gone"
    return f"{name} changed" if each.kind in ("model", "release") else f"{name} is version {each.number}"
