"""What the nodes of a view's trees hold: rows in leaves, and in the nodes above a summary of each child."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from millpond.features.online.live.columns import Column, Layout, Node
from millpond.features.online.live.values import Type, type_of
from millpond.features.online.ports import OnlineView, Row
from millpond.features.plan import Feature, SourceColumn

#: The event time is the first column of a leaf, and of a summary: the first row's there.
TIME = 0

_WORD = 2**64


@dataclass(frozen=True)
class Measures:
    """What is kept of a column in summaries, by place in them; 0 is not kept.

    Attributes:
        place: The column's place in a leaf.
        type: How its values are kept.
        exact: Whether sums are of raw values, as integers; else of numbers, as floats.
        count: Number of values that are not null.
        high: Exact sum, divided by 2**64 and rounded down.
        low: The rest of it.
        total: Sum of floats.
        squares: Sum of the squares of the differences from the mean, of floats.
        least: Least value.
        greatest: Greatest value.
    """

    place: int
    type: Type
    exact: bool
    count: int = 0
    high: int = 0
    low: int = 0
    total: int = 0
    squares: int = 0
    least: int = 0
    greatest: int = 0

    def sum(self, values: Sequence[Any]) -> Any:
        """Of raw values: an exact integer of raw units, or a float."""
        if self.exact or self.type.scale == 1:
            return sum(values)
        scale = self.type.scale
        return sum([value / scale for value in values])

    def mean(self, total: Any, count: int) -> float:
        """Of a sum as `sum` makes it."""
        return float(total / self.type.scale / count if self.exact and self.type.scale > 1 else total / count)

    def absorb(self, summary: list[Any], value: Any) -> None:
        """Add a raw value to a summary."""
        count = summary[self.count] if self.count else 0
        if self.count:
            summary[self.count] += 1
        total = summary[self.high] * _WORD + summary[self.low] if self.high else 0
        if self.total:
            total = summary[self.total]
        if self.squares and count:
            summary[self.squares] += (value / self.type.scale - self.mean(total, count)) ** 2 * count / (count + 1)
        if self.high:
            summary[self.high], summary[self.low] = divmod(total + value, _WORD)
        if self.total:
            summary[self.total] = total + self.sum((value,))
        if self.least and (summary[self.least] is None or value < summary[self.least]):
            summary[self.least] = value
        if self.greatest and (summary[self.greatest] is None or value > summary[self.greatest]):
            summary[self.greatest] = value

    def totals(self, node: Node, start: int, stop: int) -> Sequence[Any]:
        """The sums of children [start, stop), as `sum` makes them."""
        if self.total:
            return node.column(self.total)[start:stop]
        highs, lows = node.column(self.high)[start:stop], node.column(self.low)[start:stop]
        return [high * _WORD + low for high, low in zip(highs, lows, strict=True)]

    def deviations(self, values: Sequence[Any], mean: float) -> float:
        """Sum of the squares of the differences from a mean."""
        scale = self.type.scale
        return float(sum([(value / scale - mean) ** 2 for value in values]))

    def merged_deviations(self, node: Node, start: int, stop: int) -> float:
        """The same of all rows of children [start, stop), from their own mean."""
        counts, totals = node.column(self.count)[start:stop], self.totals(node, start, stop)
        count = sum(counts)
        return self.shifted(node, start, stop, self.mean(sum(totals), count)) if count else 0.0

    def shifted(self, node: Node, start: int, stop: int, mean: float) -> float:
        """Sum of the squares of the differences of all rows of children [start, stop) from any mean."""
        counts, totals = node.column(self.count)[start:stop], self.totals(node, start, stop)
        squares = node.column(self.squares)[start:stop]
        parts = [
            square + count * (self.mean(total, count) - mean) ** 2
            for count, total, square in zip(counts, totals, squares, strict=True)
            if count
        ]
        return float(sum(parts))


class Shape:
    """The layouts of a view's nodes.

    A leaf's rows are in order of (time, known, key). A summary of a child is: its first row's time, known and key;
    its last row's time; the least and the greatest instant after which one of its rows is visible; the child's number;
    how many rows it has; and the measures. What is always equal to the time is left out, and so is the key where no
    feature is `latest` or `first`, as then it decides nothing.
    """

    def __init__(self, view: OnlineView) -> None:
        self.view = view
        self.late = view.known is not None
        picks = any(each.kind in ("latest", "first") for each in view.features)
        self.keys = view.row_keys if picks else ()
        types = [type_of(view.types[name], name, view.name) for name in self.keys]
        self.key_types = tuple(types)
        self.types = {each.name: type_of(each.type, each.name, view.name) for each in view.columns}
        self._value_types = tuple(self.types.values())
        order = [Column("q")] * (2 if self.late else 1) + [_column(each) for each in types]
        self.order = len(order)
        self.leaf = Layout([*order, *(_column(self.types[each.name], nullable=True) for each in view.columns)])
        columns = [*order, Column("q")]
        self.last = len(columns) - 1
        self.seen_first = self.seen_last = TIME
        if self.late:
            self.seen_first, self.seen_last = len(columns), len(columns) + 1
            columns += [Column("q"), Column("q")]
        else:
            self.seen_last = self.last
        self.child, self.rows = len(columns), len(columns) + 1
        columns += [Column("I"), Column("Q")]
        self.measures = {
            each.name: self._measures(each, index + self.order, columns) for index, each in enumerate(view.columns)
        }
        self.summary = Layout(columns)

    def _measures(self, column: SourceColumn, place: int, columns: list[Column]) -> Measures:
        """What the features need; adds the columns."""
        type = self.types[column.name]
        kinds = {each.kind for each in self.view.features if each.column == column}
        places: dict[str, int] = {}

        def add(name: str, kept: Column) -> None:
            places[name] = len(columns)
            columns.append(kept)

        if kinds & {"count", "sum", "mean", "std"}:
            add("count", Column("Q"))
        if kinds & {"sum", "mean", "std"}:
            if column.exact:
                add("high", Column("q"))
                add("low", Column("Q"))
            else:
                add("total", Column("d"))
        if "std" in kinds:
            add("squares", Column("d"))
        if "min" in kinds:
            add("least", _column(type, nullable=True))
        if "max" in kinds:
            add("greatest", _column(type, nullable=True))
        return Measures(place, type, column.exact, **places)

    def layout(self, level: int) -> Layout:
        """Of nodes `level` steps above the leaves."""
        return self.summary if level else self.leaf

    def raw(self, row: Row) -> list[Any]:
        """The raw values of a row, in order of a leaf's columns; the first `order` of them are what orders rows."""
        found: list[Any] = [row.time, row.known] if self.late else [row.time]
        found += [type.raw(value) for type, value in zip(self.key_types, row.key, strict=False)]
        for type, value in zip(self._value_types, row.values, strict=True):
            found.append(None if value is None else type.raw(value))
        return found

    def value(self, feature: Feature, raw: Mapping[str, Any]) -> Any:
        """A value of the feature's column from raw values by name; null where there is none."""
        assert feature.column is not None
        found = raw.get(feature.column.name)
        return None if found is None else self.types[feature.column.name].value(found)

    def summarize(self, node: Node, level: int) -> list[Any]:
        """The summary of a node, the child's number yet 0."""
        return self._summarize_children(node) if level else self._summarize_rows(node)

    def absorb(self, summary: list[Any], row: list[Any]) -> list[Any]:
        """The summary of a node after a row, given as its raw values, went in below it."""
        found = list(summary)
        time = row[TIME]
        found[: self.order] = min(found[: self.order], row[: self.order])
        found[self.last] = max(found[self.last], time)
        if self.late:
            seen = max(time, row[1])
            found[self.seen_first] = min(found[self.seen_first], seen)
            found[self.seen_last] = max(found[self.seen_last], seen)
        found[self.rows] += 1
        for each in self.measures.values():
            value = row[each.place]
            if value is not None:
                each.absorb(found, value)
        return found

    def _summarize_rows(self, node: Node) -> list[Any]:
        times = node.column(TIME)
        found: list[Any] = [node.value(index, 0) for index in range(self.order)]
        found.append(times[-1])
        if self.late:
            seen = list(map(max, times, node.column(1)))
            found += [min(seen), max(seen)]
        found += [0, node.count]
        for each in self.measures.values():
            if not (each.count or each.least or each.greatest):
                continue
            self._measure(found, each, node.present(each.place, slice(None)))
        return found

    def _measure(self, found: list[Any], each: Measures, values: Sequence[Any]) -> None:
        if each.count:
            found.append(len(values))
        total = each.sum(values) if each.high or each.total else 0
        if each.high:
            found += divmod(total, _WORD)
        if each.total:
            found.append(float(total))
        if each.squares:
            found.append(each.deviations(values, each.mean(total, len(values))) if values else 0.0)
        if each.least:
            found.append(min(values, default=None))
        if each.greatest:
            found.append(max(values, default=None))

    def _summarize_children(self, node: Node) -> list[Any]:
        found: list[Any] = [node.value(index, 0) for index in range(self.order)]
        found.append(node.column(self.last)[-1])
        if self.late:
            found += [min(node.column(self.seen_first)), max(node.column(self.seen_last))]
        found += [0, sum(node.column(self.rows))]
        for each in self.measures.values():
            if each.count:
                found.append(sum(node.column(each.count)))
            if each.high:
                found += divmod(sum(node.column(each.high)) * _WORD + sum(node.column(each.low)), _WORD)
            if each.total:
                found.append(sum(node.column(each.total)))
            if each.squares:
                found.append(each.merged_deviations(node, 0, node.count))
            for place, best in ((each.least, min), (each.greatest, max)):
                if place:
                    found.append(best(node.present(place, slice(None)), default=None))
        return found


def _column(type: Type, *, nullable: bool = False) -> Column:
    return Column(type.code, nullable, type.pack, type.unpack)
