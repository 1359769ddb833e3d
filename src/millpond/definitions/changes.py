"""How two meanings differ, as data: applied to the one it gives the other."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from millpond.core.fingerprints import canonical_json
from millpond.core.time import Duration
from millpond.definitions.features import Aggregation
from millpond.definitions.meanings import Key, Kind, Meaning, Meanings

Action = Literal["added", "removed", "changed"]

_DURATIONS = ("over", "within", "every")
_AGGREGATION = {"kind", "column", "over", "within"}


@dataclass(frozen=True)
class FieldChange:
    """One value that differs.

    Attributes:
        path: Where it is: the keys that lead to it, such as ("columns", "mean_delay_1h", "over"); () is the whole.
        action: What happened to it. A list is one value.
        old: What it was; None where it was added.
        new: What it is; None where it was removed.
    """

    path: tuple[str, ...]
    action: Action
    old: Any
    new: Any

    def __str__(self) -> str:
        return "\n".join(in_words(self))


@dataclass(frozen=True)
class DefinitionChange:
    """One declared object that differs; added and removed ones differ in one field, the whole."""

    kind: Kind
    name: str
    action: Action
    fields: tuple[FieldChange, ...]

    @property
    def key(self) -> Key:
        return Key(self.kind, self.name)


def diff(old: Meaning | None, new: Meaning | None) -> tuple[FieldChange, ...]:
    """How a meaning differs from another; None is that there is none. Equal are values that are the same JSON."""
    if old is None or new is None:
        if old is new:
            return ()
        return (FieldChange((), "removed", old, None) if new is None else FieldChange((), "added", None, new),)
    return tuple(_walk((), old, new))


def compare(old: Meanings, new: Meanings) -> tuple[DefinitionChange, ...]:
    """How two sets of meanings differ: objects of `new` in its order, then those that are gone."""
    keys = [*new, *(key for key in old if key not in new)]
    return tuple(
        DefinitionChange(key.kind, key.name, "changed" if fields[0].path else fields[0].action, fields)
        for key in keys
        if (fields := diff(old.get(key), new.get(key)))
    )


def apply_fields(old: Meaning | None, changes: Iterable[FieldChange]) -> Meaning | None:
    """The meaning that `changes` lead to from `old`; `old` itself is left as it is."""
    current: Any = old
    for change in changes:
        current = _put(current, change.path, change)
    found: Meaning | None = current
    return found


def apply_changes(old: Meanings, changes: Iterable[DefinitionChange]) -> dict[Key, Meaning]:
    """The meanings that `changes` lead to from `old`."""
    current = dict(old)
    for change in changes:
        found = apply_fields(current.pop(change.key, None), change.fields)
        if found is not None:
            current[change.key] = found
    return current


def in_words(change: FieldChange) -> list[str]:
    """A change for people: one line; for a text of several lines the lines that differ as well."""
    path = change.path[1:] if change.path[:1] == ("columns",) and len(change.path) > 1 else change.path
    name = ": ".join(path) or "all of it"
    if change.action != "changed":
        value = f" {said(change.path, change.new if change.action == 'added' else change.old)}" if path else ""
        return [f"{name} {change.action}{':' if value else ''}{value}"]
    if isinstance(change.old, str) and isinstance(change.new, str) and "\n" in change.old + change.new:
        lines = difflib.unified_diff(change.old.splitlines(), change.new.splitlines(), lineterm="", n=1)
        return [f"{name}:", *(f"  {line}" for line in list(lines)[2:])]
    if isinstance(change.old, Sequence) and not isinstance(change.old, str) and isinstance(change.new, Sequence):
        return [f"{name}: {_items(change.path, change.old, change.new)}"]
    return [f"{name}: {said(change.path, change.old)} -> {said(change.path, change.new)}"]


def said(path: Sequence[str], value: Any) -> str:
    """A value as it would be declared: durations as "1h", aggregations as calls, references by name."""
    if value is None:
        return "none"
    if path and path[-1] in _DURATIONS and isinstance(value, int):
        return str(Duration(value))
    if isinstance(value, Mapping) and set(value) == _AGGREGATION:
        over, within = (str(Duration(value[name])) if value[name] else None for name in ("over", "within"))
        return str(Aggregation(value["kind"], value["column"], over, within))
    if isinstance(value, Mapping) and len(value) == 1:
        [(kind, name)] = value.items()
        return str(name) if kind in ("column", "view", "request_features") else canonical_json(value)
    if isinstance(value, list):
        return ", ".join(said(path, each) for each in value) or "none"
    return value if isinstance(value, str) else canonical_json(value)


def _walk(path: tuple[str, ...], old: Meaning, new: Meaning) -> Iterable[FieldChange]:
    for name in dict.fromkeys((*old, *new)):
        here = (*path, name)
        if name not in new:
            yield FieldChange(here, "removed", old[name], None)
        elif name not in old:
            yield FieldChange(here, "added", None, new[name])
        elif isinstance(old[name], Mapping) and isinstance(new[name], Mapping):
            yield from _walk(here, old[name], new[name])
        elif canonical_json(old[name]) != canonical_json(new[name]):
            yield FieldChange(here, "changed", old[name], new[name])


def _put(value: Any, path: tuple[str, ...], change: FieldChange) -> Any:
    if not path:
        return change.new
    first, rest = path[0], path[1:]
    if not rest and change.action == "removed":
        return {name: each for name, each in value.items() if name != first}
    return {**value, first: _put(value.get(first), rest, change)}


def _items(path: Sequence[str], old: Sequence[Any], new: Sequence[Any]) -> str:
    before, after = [said(path, each) for each in old], [said(path, each) for each in new]
    parts = [f"without {each}" for each in before if each not in after] + [
        f"with {each}" for each in after if each not in before
    ]
    return ", ".join(parts) or f"in another order: {', '.join(after)}"
