"""The newest row of an entity, which its head repeats: `latest` is then read off the head.

It is the row with the greatest (time, known, key) of all, with the columns that `latest` takes. Once it is visible
it is the answer. Where rows agree in all of these, each column has the greatest of their values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from millpond.features.online.live.answer import EVER, better, pick
from millpond.features.online.live.columns import Layout, Node
from millpond.features.online.live.shape import TIME, Shape
from millpond.features.online.live.tree import Reader

#: After all time.
NEVER = 2**63 - 1


class Newest:
    """Reads and keeps up the newest row of a view's entities, as bytes; empty where the view has no `latest`."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self.features = tuple(each for each in shape.view.features if each.kind == "latest")
        columns = list(dict.fromkeys(each.column.name for each in self.features if each.column))
        self._names = tuple(columns)
        self._places = tuple(shape.measures[name].place for name in columns)
        self._layout = Layout(
            [*shape.leaf.columns[: shape.order], *(shape.leaf.columns[place] for place in self._places)]
        )
        self._within = any(each.within is not None for each in self.features)
        self._values = []  # of each feature: its flag, its value, what makes the value of it; and its greatest age
        for each in self.features:
            assert each.column is not None
            flags, place, _ = self._layout.places[shape.order + columns.index(each.column.name)]
            self._values.append((flags, place, shape.types[each.column.name].restore, each.within))

    def values(self, data: bytes, start: int, at: int) -> list[Any] | None:
        """The features' values at `at`, the newest row beginning at `start` of `data`; None where it is not visible."""
        elements = self._layout.elements(data, start)
        time = elements[TIME]
        if time >= at or (self._shape.late and elements[1] >= at):
            return None
        if self._within:
            age = at - time
            return [
                None
                if not elements[flags] or (within is not None and age > within)
                else elements[place]
                if restore is None
                else restore(elements[place])
                for flags, place, restore, within in self._values
            ]
        return [
            (elements[place] if restore is None else restore(elements[place])) if elements[flags] else None
            for flags, place, restore, _ in self._values
        ]

    def with_row(self, data: bytes, row: list[Any]) -> bytes:
        """After a row was inserted, given as its raw values."""
        if not self.features:
            return b""
        order = self._shape.order
        raw = row[:order] + [row[place] for place in self._places]
        if data:
            had = self._raw(data)
            if had[:order] > raw[:order]:
                return data
            if had[:order] == raw[:order]:
                raw[order:] = [better(one, other, max) for one, other in zip(had[order:], raw[order:], strict=True)]
        return self._layout.build([self._layout.pack(raw)])

    def without_row(self, data: bytes, row: list[Any], reader: Reader) -> bytes:
        """After a row was removed, given as its raw values; `reader` has the others."""
        order = self._shape.order
        if not self.features or self._raw(data)[:order] != row[:order]:
            return data
        return self.of_rows(lambda: reader.newest_first(EVER, NEVER))

    def of_rows(self, rows: Callable[[], Iterator[tuple[Node, int]]]) -> bytes:
        """From all rows, the last first; it is called twice, and read as far as it must be."""
        if not self.features:
            return b""
        node, index = next(rows())
        order = [node.value(place, index) for place in range(self._shape.order)]
        picked = pick(self._shape, rows(), self.features, max)
        assert picked is not None
        return self._layout.build([self._layout.pack([*order, *(picked.values[name] for name in self._names)])])

    def _raw(self, data: bytes) -> list[Any]:
        return self._layout.values(self._layout.elements(data))
