"""The values of a view's features at an instant, from the tree of an entity."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from millpond.core.errors import DataError
from millpond.features.online.live.columns import Node
from millpond.features.online.live.shape import TIME, Measures, Shape
from millpond.features.online.live.tree import Reader
from millpond.features.plan import Feature

#: Before all time.
EVER = -(2**63)
_LARGEST = 2**63 - 1


class Window:
    """The visible rows of `[lo, at)`: single ones in leaves, and children all of whose rows are among them.

    Attributes:
        leaves: Leaves, and the places of rows in them.
        nodes: Nodes above leaves, and the first and the end of a run of children.
    """

    def __init__(self, reader: Reader, lo: int, at: int, *, rows_only: bool = False) -> None:
        self.leaves: list[tuple[Node, slice | list[int]]] = []
        self.nodes: list[tuple[Node, int, int]] = []
        self._reader = reader
        self._shape = reader.shape
        self._lo, self._at = lo, at
        self._rows_only = rows_only
        self._values: dict[int, list[Any]] = {}
        self._summaries: dict[int, list[Any]] = {}
        self._gather(reader.root, reader.level)

    def _gather(self, node: Node, level: int) -> None:
        if level == 0:
            self._gather_rows(node)
            return
        shape, lo, at = self._shape, self._lo, self._at
        firsts, lasts = node.column(TIME), node.column(shape.last)
        start, stop = bisect_left(lasts, lo), bisect_left(firsts, at)
        seen_first, seen_last = node.column(shape.seen_first), node.column(shape.seen_last)
        run = start
        for index in range(start, stop):
            if not self._rows_only and firsts[index] >= lo and seen_last[index] < at:
                continue
            if run < index:
                self.nodes.append((node, run, index))
            run = index + 1
            if seen_first[index] < at:
                self._gather(self._reader.child(node, index, level - 1), level - 1)
        if run < stop:
            self.nodes.append((node, run, stop))

    def _gather_rows(self, node: Node) -> None:
        times = node.column(TIME)
        start, stop = bisect_left(times, self._lo), bisect_left(times, self._at)
        if start >= stop:
            return
        if self._shape.late:
            known, at = node.column(1), self._at
            places = [index for index in range(start, stop) if known[index] < at]
            if len(places) < stop - start:
                if places:
                    self.leaves.append((node, places))
                return
        self.leaves.append((node, slice(start, stop)))

    def values(self, place: int) -> list[Any]:
        """The raw values of a column in single rows, without nulls."""
        found = self._values.get(place)
        if found is None:
            found = []
            for node, rows in self.leaves:
                found += node.present(place, rows)
            self._values[place] = found
        return found

    def summaries(self, place: int) -> list[Any]:
        """A measure of the children, without nulls."""
        found = self._summaries.get(place)
        if found is None:
            found = []
            for node, start, stop in self.nodes:
                found += node.present(place, slice(start, stop))
            self._summaries[place] = found
        return found

    def rows(self) -> int:
        """Number of rows."""
        single = 0
        for _, rows in self.leaves:
            single += rows.stop - rows.start if isinstance(rows, slice) else len(rows)
        return single + (sum(self.summaries(self._shape.rows)) if self.nodes else 0)

    def count(self, each: Measures) -> int:
        """Number of values that are not null."""
        return len(self.values(each.place)) + (sum(self.summaries(each.count)) if self.nodes else 0)

    def total(self, each: Measures) -> Any:
        """Sum of the values, as `Measures.sum` makes it."""
        total = each.sum(self.values(each.place))
        if self.nodes and each.high:
            total += (sum(self.summaries(each.high)) << 64) + sum(self.summaries(each.low))
        elif self.nodes:
            total += sum(self.summaries(each.total))
        return total

    def deviations(self, each: Measures, mean: float) -> float:
        """Sum of the squares of the differences from a mean."""
        found = each.deviations(self.values(each.place), mean)
        return found + sum([each.shifted(node, start, stop, mean) for node, start, stop in self.nodes])


class Answer:
    """Computes the features of a view."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        features = shape.view.features
        self._names = [each.name for each in features]
        self._latest = tuple(each for each in features if each.kind == "latest")
        self._first = _grouped([each for each in features if each.kind == "first"])
        self._distinct = _grouped([each for each in features if each.kind == "nunique"])
        rest = [each for each in features if each.kind not in ("latest", "first", "nunique")]
        self._windows = {
            over: [(each.name, self._function(each)) for each in some] for over, some in _grouped(rest).items()
        }

    def values(self, reader: Reader, at: int, latest: Sequence[Any] | None) -> tuple[Any, ...]:
        """The features' values, in their order.

        Args:
            reader: The entity's rows.
            at: The instant.
            latest: The values of those that are `latest`, if they are known already.
        """
        found: dict[str, Any] = {}
        for over, functions in self._windows.items():
            window = Window(reader, _start(over, at), at)
            for name, function in functions:
                found[name] = function(window)
        for over, features in self._distinct.items():
            window = Window(reader, _start(over, at), at, rows_only=True)
            for each in features:
                found[each.name] = len(set(window.values(self._measures(each).place)))
        for over, features in self._first.items():
            picked = pick(self._shape, reader.oldest_first(_start(over, at), at), features, min)
            for each in features:
                found[each.name] = self._shape.value(each, picked.values if picked else {})
        if self._latest and latest is None:
            newest = pick(self._shape, reader.newest_first(EVER, at), self._latest, max)
            for each in self._latest:
                fresh = newest is not None and (each.within is None or newest.time >= at - each.within)
                found[each.name] = self._shape.value(each, newest.values if newest and fresh else {})
        elif latest is not None:
            found.update({each.name: value for each, value in zip(self._latest, latest, strict=True)})
        return tuple([found[name] for name in self._names])

    def _measures(self, feature: Feature) -> Measures:
        assert feature.column is not None
        return self._shape.measures[feature.column.name]

    def _function(self, feature: Feature) -> Callable[[Window], Any]:
        if feature.column is None:
            return Window.rows
        functions: dict[str, Callable[[Feature, Measures, Window], Any]] = {
            "count": lambda _, each, window: window.count(each),
            "sum": self._sum,
            "mean": _mean,
            "std": _std,
            "min": partial(_extreme, min),
            "max": partial(_extreme, max),
        }
        return partial(functions[feature.kind], feature, self._measures(feature))

    def _sum(self, feature: Feature, each: Measures, window: Window) -> int | float | None:
        if not window.count(each):
            return None
        total = window.total(each)
        if not feature.is_integer_sum:
            return float(total / each.type.scale) if each.exact else float(total)
        if not -_LARGEST - 1 <= total <= _LARGEST:
            assert feature.column is not None
            raise DataError(
                f"The sum {feature.name} reaches {total}, which does not fit into a 64-bit integer",
                where=f"column {feature.column.name!r} of {self._shape.view.table}, online",
                hint="shorten the window, or sum a float column",
            )
        return int(total)


class Picked(NamedTuple):
    """The row that `latest` or `first` takes.

    Attributes:
        time: Its event time.
        values: Raw values of the columns that were asked for, by name; None is null.
    """

    time: int
    values: dict[str, Any]


def pick(
    shape: Shape, rows: Iterator[tuple[Node, int]], features: Sequence[Feature], best: Callable[[Any, Any], Any]
) -> Picked | None:
    """The first of some rows; of rows that agree in all that orders them, each column has its best value."""
    top = next(rows, None)
    if top is None:
        return None
    places = {each.column.name: shape.measures[each.column.name].place for each in features if each.column}
    node, index = top
    order = [node.value(place, index) for place in range(shape.order)]
    values = {name: node.value(place, index) for name, place in places.items()}
    for node, index in rows:
        if [node.value(place, index) for place in range(shape.order)] != order:
            break
        for name, place in places.items():
            values[name] = better(values[name], node.value(place, index), best)
    return Picked(order[TIME], values)


def better(one: Any, other: Any, best: Callable[[Any, Any], Any]) -> Any:
    """The best of two values; a null is worse than any."""
    return other if one is None else one if other is None else best(one, other)


def _mean(_: Feature, each: Measures, window: Window) -> float | None:
    count = window.count(each)
    return each.mean(window.total(each), count) if count else None


def _std(_: Feature, each: Measures, window: Window) -> float | None:
    count = window.count(each)
    if count < 2:
        return None
    return math.sqrt(window.deviations(each, each.mean(window.total(each), count)) / (count - 1))


def _extreme(best: Callable[[Any], Any], _: Feature, each: Measures, window: Window) -> Any:
    values = window.values(each.place)
    if window.nodes:
        place = each.least if best is min else each.greatest
        values = values + window.summaries(place)
    return each.type.value(best(values)) if values else None


def _grouped(features: Sequence[Feature]) -> dict[int | None, list[Feature]]:
    found: dict[int | None, list[Feature]] = {}
    for each in features:
        found.setdefault(each.over, []).append(each)
    return found


def _start(over: int | None, at: int) -> int:
    return EVER if over is None else max(EVER, at - over)
