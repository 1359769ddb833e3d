"""Rows of every type as bytes, and back."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest

from millpond.core.errors import SchemaMismatch
from millpond.features.online.live.columns import Column, Layout, Node
from millpond.features.online.live.values import type_of

VALUES = {
    "boolean": [True, False],
    "int": [0, 1, -(2**31), 2**31 - 1],
    "long": [0, -1, -(2**63), 2**63 - 1],
    "float": [0.0, -0.5, 3.4028234663852886e38, 1.401298464324817e-45],
    "double": [0.0, 0.1, -1e308, 5e-324, float("inf")],
    "string": ["", "p", "é", "\U0001f600", "a\x00b", "z" * 5000],
    "date": [date(1970, 1, 1), date(1, 1, 1), date(9999, 12, 31)],
    "time": [time(0), time(23, 59, 59, 999999)],
    "timestamptz": [
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    ],
    "decimal(10, 2)": [Decimal("0.00"), Decimal("-99999999.99"), Decimal("99999999.99")],
    "decimal(18, 0)": [Decimal(0), Decimal(10**18 - 1), Decimal(1 - 10**18)],
    "decimal(19, 3)": [Decimal("0.000"), Decimal("-0.001"), Decimal("9999999999999999.999")],
    "decimal(38, 4)": [Decimal("0.0000"), Decimal(f"-{'9' * 34}.9999"), Decimal(f"{'9' * 34}.9999")],
    "binary": [b"", b"\x00", b"\xff\x00" * 300],
    "fixed[3]": [b"\x00\x01\x02"],
    "uuid": [UUID(int=0), UUID(int=2**128 - 1)],
}


def layout_of(types: list[str]) -> Layout:
    found = [type_of(each, "c", "v") for each in types]
    return Layout([Column("q"), *(Column(each.code, True, each.pack, each.unpack) for each in found)])


@pytest.mark.parametrize("name", VALUES)
def test_values_come_back(name):
    type, layout = type_of(name, "c", "v"), layout_of([name])
    values = [None, *VALUES[name], None]
    rows = [layout.pack([at, None if each is None else type.raw(each)]) for at, each in enumerate(values)]
    node = Node(layout, layout.build(rows))
    assert list(node.column(0)) == list(range(len(values)))
    found = [layout.item(node.data, 1, row) for row in range(node.count)]
    assert [None if each is None else type.value(each) for each in found] == values
    assert [type.value(each) for each in node.present(1, slice(None))] == VALUES[name]
    assert [type.value(each) for each in node.present(1, [0, 1])] == VALUES[name][:1]
    assert [node.value(1, row) for row in range(node.count)] == found
    for row, value in enumerate(values):
        _, flag, kept = layout.elements(layout.one(node.data, row))
        assert bool(flag) == (value is not None)
        assert value is None or (kept if type.restore is None else type.restore(kept)) == value


@pytest.mark.parametrize("name", VALUES)
def test_raw_values_have_the_order_of_the_values(name):
    type = type_of(name, "c", "v")
    ordered = sorted(VALUES[name])
    assert sorted(ordered, key=type.raw) == ordered


def test_values_keep_their_type():
    for name, values in VALUES.items():
        type = type_of(name, "c", "v")
        assert {each.__class__ for each in map(type.value, map(type.raw, values))} == {values[0].__class__}
    assert str(type_of("decimal(10, 2)", "c", "v").value(150)) == "1.50"


def test_an_instant_of_another_zone_is_the_same_instant():
    type = type_of("timestamptz", "c", "v")
    given = datetime(2020, 1, 1, 5, tzinfo=timezone(timedelta(hours=5)))
    assert type.value(type.raw(given)) == datetime(2020, 1, 1, tzinfo=UTC)


def test_a_float_of_32_bits_is_rounded_as_the_lake_rounds_it():
    type = type_of("float", "c", "v")
    assert type.raw(0.1) == 0.10000000149011612


@pytest.mark.parametrize("name", ["list<string>", "struct<a: int>", "map<string, int>"])
def test_types_without_order_are_refused(name):
    with pytest.raises(SchemaMismatch, match="a live view cannot hold"):
        type_of(name, "c", "v")


def test_splices_are_what_lists_would_be():
    """Random insertions, replacements, deletions and splits, with columns of every type side by side."""
    random_ = random.Random(7)
    layout = layout_of(list(VALUES))
    types = [type_of(each, "c", "v") for each in VALUES]

    def row():
        drawn = [random_.choice([None, *VALUES[name]]) for name in VALUES]
        raw = [None if each is None else type.raw(each) for type, each in zip(types, drawn, strict=True)]
        return [random_.randrange(-(2**63), 2**63), *raw]

    def read(data):
        return [layout.values(layout.elements(layout.one(data, at))) for at in range(layout.count(data))]

    data, rows = layout.build([]), []
    for _ in range(150):
        at = random_.randint(0, len(rows))
        drop = random_.choice([0, 0, 1, 2]) if at + 2 <= len(rows) else 0
        new = [row() for _ in range(random_.choice([0, 1, 1, 2]))]
        data = layout.splice(data, at, drop, [layout.pack(each) for each in new])
        rows[at : at + drop] = new
        assert layout.count(data) == len(rows)
    assert read(data) == rows
    for at in (0, 1, len(rows) // 2, len(rows)):
        left, right = layout.split(data, at)
        assert (read(left), read(right)) == (rows[:at], rows[at:])
    assert layout.build([layout.pack(each) for each in rows]) == data
