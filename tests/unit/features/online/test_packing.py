from datetime import UTC
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.core.errors import DataError, StoreMismatch
from millpond.features.online.packing import Packing
from millpond.features.online.ports import OnlineView
from millpond.features.plan import Feature, SourceColumn

TYPES = {
    "double": (pa.float64(), st.floats(allow_nan=False)),
    "float": (pa.float32(), st.floats(allow_nan=False, width=32)),
    "long": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "int": (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    "boolean": (pa.bool_(), st.booleans()),
    "date": (pa.date32(), st.dates()),
    "timestamptz": (pa.timestamp("us", tz="UTC"), st.datetimes(timezones=st.just(UTC))),
    "decimal(38, 10)": (pa.decimal128(38, 10), st.decimals(-(10**27), 10**27, places=10)),
    "decimal(5, 0)": (pa.decimal128(5, 0), st.decimals(-99999, 99999, places=0)),
    "string": (pa.string(), st.text()),
    "binary": (pa.binary(), st.binary()),
}


def view_of(types, name="view"):
    columns = tuple(SourceColumn(f"c{i}", type, f"c{i}") for i, type in enumerate(types))
    features = tuple(Feature(f"{name}__f{i}", "latest", each, None, None) for i, each in enumerate(columns))
    described = {"k": "string", **{each.name: each.type for each in columns}}
    return OnlineView(name, "e", ("k",), "t", (), None, None, 1, columns, features, described)


@st.composite
def tables(draw):
    types = draw(st.lists(st.sampled_from(sorted(TYPES)), max_size=12))
    rows = draw(st.lists(st.tuples(*(st.none() | TYPES[each][1] for each in types)), max_size=4))
    return types, rows


@settings(deadline=None)
@given(tables())
def test_what_is_packed_comes_back(drawn):
    types, rows = drawn
    view = view_of(types)
    packing = Packing.of_features(view)
    columns = {
        feature.name: pa.array([row[index] for row in rows], TYPES[type][0])
        for index, (feature, type) in enumerate(zip(view.features, types, strict=True))
    }
    batch = pa.table({"k": ["x"] * len(rows), **columns})
    packed = list(packing.pack(batch))
    found = [packing.unpack(each) for each in packed]
    assert found == rows
    assert [[type(v) for v in row] for row in found] == [[type(v) for v in row] for row in rows]
    arrays = packing.columns([None, *packed])
    assert [each.to_pylist() for each in arrays] == [[None, *(row[i] for row in rows)] for i in range(len(types))]


def test_a_slice_of_a_table_is_packed_as_itself():
    rows = {
        "double": [1.0, 2.0, None, 4.0, 5.0],
        "decimal(38, 10)": [Decimal("1.5"), None, Decimal(3), Decimal(4), Decimal(5)],
        "boolean": [True, False, None, True, False],
        "string": ["a", "bb", "ccc", None, ""],
    }
    view = view_of([*rows])
    columns = {
        feature.name: pa.array(values, TYPES[type][0])
        for feature, (type, values) in zip(view.features, rows.items(), strict=True)
    }
    packing = Packing.of_features(view)
    whole = list(packing.pack(pa.table(columns)))
    assert list(packing.pack(pa.table(columns).slice(2, 2))) == whole[2:4]
    assert list(packing.pack(pa.table(columns).to_batches()[0].slice(3, 2))) == whole[3:]
    assert packing.unpack(whole[3]) == (4.0, Decimal(4), True, None)


@pytest.mark.parametrize("types", [["double"], ["double", "string"]])
def test_values_of_another_schema_are_never_read(types):
    view, other = view_of(types), view_of([*types[:-1], "long" if types == ["double"] else "binary"])
    columns = {f"view__f{index}": pa.array([None], TYPES[type][0]) for index, type in enumerate(types)}
    (packed,) = Packing.of_features(view).pack(pa.table(columns))
    packing = Packing.of_features(other)
    for broken in (packed, packed[:3], b"", bytes.fromhex(other.fingerprint)):
        with pytest.raises(StoreMismatch, match="--full|view") as error:
            packing.unpack(broken)
        assert "millpond feature refresh --full" in error.value.hint
        with pytest.raises(StoreMismatch):
            packing.columns([None, broken])


def test_columns_that_do_not_fit_are_refused():
    packing = Packing.of_features(view_of(["long"]))
    with pytest.raises(DataError, match="view__f0"):
        list(packing.pack(pa.table({"view__f0": ["x"]})))
    with pytest.raises(DataError, match="no column"):
        list(packing.pack(pa.table({"other": [1]})))
    with pytest.raises(DataError, match=r"list<string>"):
        Packing.of_features(view_of(["list<string>"]))
