"""The newest row of an entity, which its head repeats: `latest` is then read off the head.

It is the row with the greatest (time, known, key) of all, with the columns that `latest` takes. Once it is visible
it is the answer. Where rows agree in all of these, each column has the greatest of their values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from millpond.features.online.live.answer import EVER, Picked, better, pick
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
        columns = {each.column.name: each.column for each in self.features if each.column}
        self._names = tuple(columns)
        self._places = tuple(shape.measures[name].place for name in columns)
        self._layout = Layout(
            [*shape.leaf.columns[: shape.order], *(shape.leaf.columns[place] for place in self._places)]
        )

    def read(self, data: bytes, at: int, start: int) -> Picked | None:
        """The newest row, if it is visible at `at`; its bytes begin at `start` of `data`."""
        if not self.features:
            return None
        raw = self._layout.only(data, start)
        if raw[TIME] >= at or (self._shape.late and raw[1] >= at):
            return None
        return Picked(raw[TIME], dict(zip(self._names, raw[self._shape.order :], strict=True)))

    def with_row(self, data: bytes, row: list[Any]) -> bytes:
        """After a row was inserted, given as its raw values."""
        if not self.features:
            return b""
        order = self._shape.order
        raw = row[:order] + [row[place] for place in self._places]
        if data:
            had = self._layout.only(data)
            if had[:order] > raw[:order]:
                return data
            if had[:order] == raw[:order]:
                raw[order:] = [better(one, other, max) for one, other in zip(had[order:], raw[order:], strict=True)]
        return self._layout.build([self._layout.pack(raw)])

    def without_row(self, data: bytes, row: list[Any], reader: Reader) -> bytes:
        """After a row was removed; `reader` has the others."""
        if not self.features or self._layout.only(data)[: self._shape.order] != row[: self._shape.order]:
            return data
        return self.of(reader)

    def of(self, reader: Reader) -> bytes:
        """From all rows."""
        return self.of_rows(lambda: reader.newest_first(EVER, NEVER))

    def of_rows(self, rows: Callable[[], Iterator[tuple[Node, int]]]) -> bytes:
        """From the last rows, the last of all first; `rows` is called twice."""
        if not self.features:
            return b""
        node, index = next(rows())
        order = [node.column(place)[index] for place in range(self._shape.order)]
        picked = pick(self._shape, rows(), self.features, max)
        assert picked is not None
        return self._layout.build([self._layout.pack([*order, *(picked.values[name] for name in self._names)])])
