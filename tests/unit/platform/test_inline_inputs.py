"""Inputs put together from a request and from features: as training casts them, in order, a matrix where it can be."""

import random
from decimal import Decimal

import numpy as np
import pytest

from millpond.features.online.ports import OnlineView
from millpond.features.plan import Feature, SourceColumn
from millpond.platform.inline_inputs import InputAssembly
from millpond.serving.ports import RequestColumn, ServedModel
from millpond.serving.rows import Rows

CASTS = {"float64": float, "int64": int, "bool": bool, "string": str}


def view(name, **types):
    """A view with a count `n`, and the latest value of a column of each type."""
    columns = {each: SourceColumn(each, type, f"c{at}") for at, (each, type) in enumerate(types.items())}
    latest = [Feature(f"{name}__{each}", "latest", column, None, None) for each, column in columns.items()]
    features = (Feature(f"{name}__n", "count", None, None, None), *latest)
    return OnlineView(
        name, "e", ("k",), "t", ("id",), "at", None, None, tuple(columns.values()), features, {"k": "long", **types}
    )


def served(inputs, **asked):
    columns = tuple(RequestColumn(name, type, False, "input") for name, type in asked.items())
    return ServedModel("m", 1, "regression", None, (RequestColumn("k", "int64", True, "key"), *columns), None, inputs)


A = view("a", x="double", y="int", price="decimal(10, 2)", up="boolean")
B = view("b", z="long", text="string")
NUMBERS = {
    "b__n": "int64", "a__up": "bool", "rank": "float64", "a__x": "float64", "a__price": "float64", "a__n": "int64",
    "a__y": "float64", "seats": "int64", "b__z": "int64",
}  # fmt: skip


def row_a(chance):
    some = lambda value: None if chance.random() < 0.3 else value  # noqa: E731
    price = Decimal(chance.randrange(10_000)).scaleb(-2)
    return (chance.randrange(9), some(chance.gauss(0, 1)), some(chance.randrange(99)), some(price), some(True))


def expected(inputs, names, rows):
    found = []
    for row in rows:
        values = dict(zip(names, row, strict=True))
        found.append(
            {name: None if values[name] is None else CASTS[kind](values[name]) for name, kind in inputs.items()}
        )
    return found


@pytest.mark.parametrize("count", [1, 2, 30])
@pytest.mark.parametrize("arrays", [False, True])
def test_numbers_become_a_matrix(count, arrays):
    chance = random.Random(count)
    assembly = InputAssembly(served(NUMBERS, rank="float64", seats="int64"), [A, B])
    names = [*(each.name for each in A.features), *(each.name for each in B.features), "rank", "seats"]
    for _ in range(5):
        first = [row_a(chance) for _ in range(count)]
        second = [(chance.randrange(9), chance.choice([None, -(2**53), 7]), "text") for _ in range(count)]
        rank = [chance.gauss(0, 1) for _ in range(count)]
        seats = [chance.randrange(300) for _ in range(count)]
        given = {"k": list(range(count)), "rank": rank, "seats": seats}
        if arrays:
            given |= {"rank": np.array(rank), "seats": np.array(seats)}
        found = assembly.assemble(Rows.of(given), [first, second])
        assert found.matrix is not None
        assert found.matrix.flags.c_contiguous
        assert found.names == tuple(NUMBERS)
        rows = [(*one, *two, *own) for one, two, own in zip(first, second, zip(rank, seats, strict=True), strict=True)]
        assert [found.values(row) for row in range(count)] == expected(NUMBERS, names, rows)


def test_a_number_that_no_float_holds_stays_a_whole_number():
    inputs = {"b__z": "int64", "b__n": "int64"}
    assembly = InputAssembly(served(inputs), [B])
    found = assembly.assemble(Rows.of({"k": [1, 2]}), [[(3, 2**53 + 1, "x"), (4, None, "y")]])
    assert found.matrix is None
    assert found.columns == {"b__z": [2**53 + 1, None], "b__n": [3, 4]}
    again = assembly.assemble(Rows.of({"k": [1]}), [[(3, 2**53, "x")]])
    assert again.matrix is not None
    as_floats = InputAssembly(served({"b__z": "float64"}), [B])
    assert as_floats.assemble(Rows.of({"k": [1]}), [[(3, 2**53 + 1, "x")]]).values(0) == {"b__z": float(2**53 + 1)}


def test_text_and_what_is_cast_otherwise_are_columns():
    inputs = {"b__text": "string", "a__x": "int64", "a__price": "float64", "rank": "float64"}
    assembly = InputAssembly(served(inputs, rank="float64"), [A, B])
    first = [(1, 2.75, 5, Decimal("0.10"), True), (0, None, None, None, None)]
    found = assembly.assemble(Rows.of({"k": [1, 2]}), [first, [(1, 2, "x"), (0, None, None)]])
    assert found.matrix is None
    assert found.columns == {
        "b__text": ["x", None],
        "a__x": [2, None],
        "a__price": [0.1, None],
        "rank": [None, None],
    }


def test_one_view_in_its_own_order_with_and_without_nulls():
    inputs = {"a__n": "int64", "a__x": "float64", "a__y": "float64", "a__price": "float64", "a__up": "float64"}
    assembly = InputAssembly(served(inputs), [A])
    rows = Rows.of({"k": [1]})
    for row in ((2, 0.5, 3, Decimal(1), False), (0, None, None, None, None), (2, -0.5, None, Decimal(2), True)):
        found = assembly.assemble(rows, [[row]])
        assert found.matrix is not None
        assert list(found.values(0).values()) == [None if each is None else float(each) for each in row]
