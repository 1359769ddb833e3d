from __future__ import annotations

from datetime import UTC, date, datetime

import narwhals as nw
import pyarrow as pa
import pytest

import millpond as mp
from millpond.core.errors import DefinitionError
from millpond.features.request import apply_request_features, required_columns

AT = pa.array([datetime(2013, 1, 1, hour, tzinfo=UTC) for hour in range(6)], pa.timestamp("us", tz="UTC"))
ROWS = pa.table(
    {"at": AT, "carrier": ["AA", "UA", None, "AA", "DL", "AA"], "distance": [1.0, 2.0, None, 4.0, 0.0, 9.0]}
)


@mp.request_features
def calendar(rows):
    return rows.select(hour=mp.col("at").dt.hour(), late=mp.col("at").dt.hour() > 3, name=mp.col("carrier"))


@mp.request_features
def ratios(rows):
    return rows.select(share=mp.col("distance") / mp.col("distance"))


@mp.request_features
def centred(rows):
    return rows.select(away=mp.col("distance") - mp.col("distance").mean())


@mp.request_features
def shifted(rows):
    return rows.select(previous=mp.col("carrier").shift(1))


@mp.request_features
def turned(rows):
    return rows.select("distance").sort("distance")


@mp.request_features
def totals(rows):
    return rows.select(total=mp.col("distance").sum())


@mp.request_features
def days(rows):
    return rows.select(day=mp.col("at").dt.date())


@mp.request_features
def broken(rows):
    return rows.select(mp.col("nowhere"))


@mp.request_features
def native(rows):
    return rows.to_native()


def test_only_the_new_columns_come_back_in_model_types() -> None:
    made = apply_request_features([calendar], ROWS)
    assert made.schema == pa.schema(
        [("calendar__hour", pa.int64()), ("calendar__late", pa.bool_()), ("calendar__name", pa.string())]
    )
    assert made["calendar__hour"].to_pylist() == list(range(6))
    assert made["calendar__name"].to_pylist() == ROWS["carrier"].to_pylist()


def test_nan_becomes_null() -> None:
    assert apply_request_features([ratios], ROWS)["ratios__share"].to_pylist() == [1.0, 1.0, None, 1.0, None, 1.0]


def test_no_functions_make_no_columns() -> None:
    assert apply_request_features([], ROWS).num_columns == 0


@pytest.mark.parametrize("function", [centred, shifted, turned])
def test_a_function_that_looks_at_other_rows_is_refused(function: mp.Features) -> None:
    with pytest.raises(DefinitionError, match="is not row-wise"):
        apply_request_features([function], ROWS)


def test_a_single_row_cannot_be_told_apart_and_is_computed() -> None:
    assert apply_request_features([centred], ROWS.slice(0, 1)).num_rows == 1


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (totals, 'Request features "totals" returned 1 rows for 6'),
        (days, "returns column 'day' of type date32"),
        (broken, 'Request features "broken" failed'),
        (native, 'Request features "native" returned Table'),
    ],
)
def test_what_is_no_request_feature_is_refused(function: mp.Features, message: str) -> None:
    with pytest.raises(DefinitionError, match=message) as error:
        apply_request_features([function], ROWS)
    assert error.value.where.endswith(str(function.declared_at.line))
    assert error.value.hint


def test_required_columns_are_those_that_functions_use() -> None:
    assert required_columns([calendar], ROWS.schema) == ("at", "carrier")
    assert required_columns([ratios], ROWS.schema) == ("distance",)
    assert required_columns([calendar, ratios], ROWS.schema) == ("at", "carrier", "distance")
    assert required_columns([], ROWS.schema) == ()


def test_a_function_over_every_column_requires_every_column() -> None:
    everything = mp.request_features(
        lambda rows: rows.select(nw.all_horizontal(nw.all().is_null(), ignore_nulls=False).alias("nothing"))
    )
    kept = ROWS.select(["carrier", "distance"])
    assert apply_request_features([everything], kept).num_rows == 6
    assert date  # keeps the import that the types above are about
