import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.core.errors import DataError
from millpond.features.online.keys import LONGEST, KeyCodec

STRATEGIES = {
    "string": st.text(st.sampled_from("\0\x01\xffab"), max_size=5) | st.text(),
    "long": st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3),
    "boolean": st.booleans(),
    "date": st.dates(),
    "timestamptz": st.datetimes(timezones=st.just(UTC)),
    "decimal(10, 2)": st.decimals(-(10**7), 10**7, places=2),
    "double": st.floats(allow_nan=False),
}


@st.composite
def keys(draw):
    types = draw(st.lists(st.sampled_from(sorted(STRATEGIES)), min_size=1, max_size=3))
    key = st.tuples(*(STRATEGIES[each] for each in types))
    return types, draw(key), draw(key)


def codec(types):
    names = [f"c{index}" for index in range(len(types))]
    return KeyCodec(names, dict(zip(names, types, strict=True)))


@settings(deadline=None)
@given(keys())
def test_keys_are_prefix_free_and_sort_as_their_values_do(drawn):
    types, one, other = drawn
    encode = codec(types).encode
    first, second = encode(one), encode(other)
    assert len(first) <= LONGEST
    assert (first == second) == (one == other)
    if one != other:
        assert not first.startswith(second)
        assert not second.startswith(first)
        ordered = [tuple(v.encode() if isinstance(v, str) else v for v in key) for key in (one, other)]
        if first[0] == second[0] == 1:
            assert (first < second) == (ordered[0] < ordered[1])


@settings(deadline=None)
@given(keys())
def test_columns_give_the_same_keys_as_values(drawn):
    types, one, other = drawn
    arrow = {
        "string": pa.string(),
        "long": pa.int64(),
        "boolean": pa.bool_(),
        "date": pa.date32(),
        "timestamptz": pa.timestamp("us", tz="UTC"),
        "decimal(10, 2)": pa.decimal128(10, 2),
        "double": pa.float64(),
    }
    columns = {
        f"c{i}": pa.array([first, second, None], arrow[type])
        for i, (type, first, second) in enumerate(zip(types, one, other, strict=True))
    }
    made = codec(types)
    assert made.encode_columns(pa.table(columns)) == [made.encode(one), made.encode(other), None]


def test_long_keys_are_digests_and_told_apart():
    made = codec(["string", "long"])
    found = {made.encode(("x" * length, 1)) for length in range(100, 400)}
    assert len(found) == 300
    assert max(map(len, found)) <= LONGEST
    in_order = sorted(found)
    assert not any(after.startswith(before) for before, after in pairwise(in_order))


def test_equal_values_have_equal_keys():
    assert codec(["decimal(10, 2)"]).encode((Decimal("1"),)) == codec(["decimal(10, 2)"]).encode((Decimal("1.00"),))
    assert codec(["double"]).encode((-0.0,)) == codec(["double"]).encode((0,))
    other_zone = datetime.fromisoformat("2020-01-01T02:00:00+02:00")
    instants = codec(["timestamptz"])
    assert instants.encode((other_zone,)) == instants.encode((datetime(2020, 1, 1, tzinfo=UTC),))
    assert codec(["int"]).encode((5,)) == codec(["long"]).encode((5,))


@pytest.mark.parametrize(
    ("type", "value"),
    [
        ("string", 5),
        ("string", None),
        ("string", b"a"),
        ("long", "5"),
        ("long", True),
        ("long", 1.0),
        ("long", 2**63),
        ("boolean", 1),
        ("date", datetime(2020, 1, 1, tzinfo=UTC)),
        ("date", "2020-01-01"),
        ("timestamptz", datetime(2020, 1, 1)),
        ("timestamptz", "2020"),
        ("double", float("nan")),
        ("double", "x"),
        ("decimal(10, 2)", Decimal("0.001")),
        ("decimal(10, 2)", 0.5),
        ("decimal(10, 2)", Decimal("NaN")),
    ],
)
def test_values_of_another_type_are_refused(type, value):
    with pytest.raises(DataError, match="no key of"):
        codec([type]).encode((value,))


def test_too_many_and_too_few_values_are_refused():
    for key in [(), ("a", "b")]:
        with pytest.raises(DataError):
            codec(["string"]).encode(key)
    with pytest.raises(DataError, match="list<string>"):
        codec(["list<string>"])


def test_instants_may_be_microseconds():
    chance = random.Random(1)
    for _ in range(100):
        microseconds = chance.randrange(-(10**16), 10**16)
        instant = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
        assert codec(["timestamptz"]).encode((microseconds,)) == codec(["timestamptz"]).encode((instant,))
    assert codec(["date"]).encode((date(1969, 12, 31),)) < codec(["date"]).encode((date(1970, 1, 1),))
