from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

import millpond as mp
from millpond.core.errors import DefinitionError, SchemaMismatch, TrainingError
from millpond.features.ports import PinnedView
from millpond.features.training_set import TrainingSet, build_training_set

INSTANT = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("origin", pa.string()),
        ("scheduled", INSTANT),
        ("arrived", INSTANT),
        ("delay", pa.float64()),
        ("distance", pa.int32()),
        ("carrier", pa.string()),
        ("day", pa.date32()),
    ]
)


def instant(hour: int) -> datetime:
    return datetime(2013, 1, 1, tzinfo=UTC) + timedelta(hours=hour)


def flight(id: int, hour: int | None, delay: float | None, **more: Any) -> dict[str, Any]:
    return {
        "id": id,
        "origin": "JFK",
        "scheduled": None if hour is None else instant(hour),
        "arrived": None if hour is None else instant(hour + 3),
        "delay": delay,
        "distance": 100 * id,
        "carrier": "AA" if id % 2 else "UA",
        "day": date(2013, 1, 1),
        **more,
    }


ROWS = [
    flight(1, 0, 10.0),
    flight(2, 1, 50.0),
    flight(3, 5, 30.0),
    flight(4, 6, None),
    flight(5, None, 5.0),
    flight(6, 8, None),
    flight(7, 9, 0.0, origin=None),
]
flights = mp.Table("flights", key="id", time="scheduled", known="arrived")
airport = mp.Entity("airport", key="origin")
traffic = mp.Features(
    "traffic",
    entity=airport,
    source=flights,
    flights=mp.count(over="6h"),
    mean_delay=mp.mean("delay", over="6h"),
    carrier=mp.latest("carrier"),
)


@mp.request_features
def calendar(rows):
    return rows.select(hour=mp.col("scheduled").dt.hour(), far=mp.col("distance") > 300)


def model(**changes: Any) -> mp.Model:
    declared = {
        "task": mp.Classification(label=mp.col("delay") >= 30),
        "examples": flights,
        "label_known": "arrived",
        "inputs": ["distance", traffic, calendar, "carrier"],
        "slices": ["carrier", "day"],
        **changes,
    }
    return mp.Model("late", **declared)


def build(engine: Any, model: mp.Model, rows: list[dict[str, Any]] = ROWS) -> TrainingSet:
    snapshot = engine.add("flights", pa.Table.from_pylist(rows, schema=SCHEMA))
    return build_training_set(engine, model, snapshot, [PinnedView(view, snapshot) for view in model.views])


def rows_of(built: TrainingSet) -> list[dict[str, Any]]:
    return sorted(built.rows.read_all().to_pylist(), key=lambda row: row["id"])


def test_rows_hold_inputs_label_and_instants(engine: Any) -> None:
    built = build(engine, model())
    rows = rows_of(built)
    assert [row["id"] for row in rows] == [1, 2, 3, 7]
    assert rows[2] == {
        "id": 3,
        "origin": "JFK",
        "distance": 300,
        "carrier": "AA",
        "day": date(2013, 1, 1),
        "traffic__flights": 2,
        "traffic__mean_delay": 30.0,
        "traffic__carrier": "UA",
        "calendar__hour": 5,
        "calendar__far": False,
        "__at": instant(5),
        "__label": True,
        "__label_known": instant(8),
    }
    assert rows[3]["traffic__flights"] == 0
    assert rows[3]["traffic__carrier"] is None


def test_columns_say_what_they_are_for_in_declared_order(engine: Any) -> None:
    columns = build(engine, model()).columns
    assert columns.keys == ("id",)
    assert list(columns.inputs.items()) == [
        ("distance", "int64"),
        ("traffic__flights", "int64"),
        ("traffic__mean_delay", "float64"),
        ("traffic__carrier", "string"),
        ("calendar__hour", "int64"),
        ("calendar__far", "bool"),
        ("carrier", "string"),
    ]
    assert columns.slices == ("carrier", "day")
    assert (columns.at, columns.label, columns.label_known) == ("__at", "__label", "__label_known")


def test_types_of_the_stream_are_the_types_named(engine: Any) -> None:
    built = build(engine, model())
    arrow = {"int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_(), "string": pa.string()}
    for name, type_ in built.columns.inputs.items():
        assert built.rows.schema.field(name).type == arrow[type_]
    assert built.rows.schema.field("__label").type == pa.bool_()
    assert built.rows.schema.field("__at").type == INSTANT


def test_examples_left_out_are_counted(engine: Any) -> None:
    counts = build(engine, model(where=mp.col("distance") > 100)).counts
    assert (counts.examples, counts.excluded, counts.without_time, counts.without_label, counts.rows) == (7, 1, 1, 2, 3)


def test_nan_is_no_label_in_regression(engine: Any) -> None:
    rows = [*ROWS, flight(8, 9, float("nan"))]
    built = build(engine, model(task=mp.Regression(label="delay"), label_known=None), rows)
    assert [row["__label"] for row in rows_of(built)] == [10.0, 50.0, 30.0, 0.0]
    assert built.columns.label_known is None
    assert "__label_known" not in built.rows.schema.names


def test_the_greater_of_two_values_is_the_positive_one(engine: Any) -> None:
    built = build(engine, model(task=mp.Classification(label="carrier"), inputs=["distance"], slices=[]))
    assert {row["id"]: row["__label"] for row in rows_of(built)} == {
        1: False,
        2: True,
        3: False,
        4: True,
        6: True,
        7: False,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": mp.Classification(label=mp.col("delay") >= 1000)}, 'Every label of Model "late" is False'),
        (
            {"task": mp.Classification(label="distance"), "inputs": ["carrier"]},
            "has more than two values: 100, 200, 300",
        ),
        ({"task": mp.Regression(label="carrier"), "inputs": ["distance"]}, "is no number"),
        (
            {"where": mp.col("distance") > 9999},
            "has no examples to learn from: flights@.* has 7 rows, 7 left out by where=",
        ),
    ],
)
def test_labels_that_cannot_be_learnt_are_refused(engine: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        build(engine, model(**changes))


def test_an_empty_table_and_null_labels_are_refused(engine: Any) -> None:
    with pytest.raises(TrainingError, match="has 0 rows\n"):
        build(engine, model(), [])
    with pytest.raises(TrainingError, match="has 1 rows, 1 without a label"):
        build(engine, model(), [flight(1, 0, None)])
    with pytest.raises(TrainingError, match="has 1 rows, 1 without 'scheduled'"):
        build(engine, model(), [flight(1, None, 1.0)])
    with pytest.raises(TrainingError, match=r"1 labels of .* are infinite"):
        build(engine, model(task=mp.Regression(label="delay")), [flight(1, 1, float("inf"))])


def test_dates_and_instants_are_no_inputs(engine: Any) -> None:
    with pytest.raises(DefinitionError, match=r"Input 'day' .* of kind 'date'") as error:
        build(engine, model(inputs=["day"]))
    assert "request_features" in error.value.hint
    last = mp.Features("last", entity=airport, source=flights, seen=mp.latest("arrived"))
    with pytest.raises(DefinitionError, match=r"Input 'last__seen' .* of kind 'instant'"):
        build(engine, model(inputs=[last]))


def test_request_features_may_not_read_the_label(engine: Any) -> None:
    @mp.request_features
    def leak(rows):
        return rows.select(delay=mp.col("delay"))

    with pytest.raises(DefinitionError, match="read 'delay', which is not known when a prediction is made"):
        build(engine, model(inputs=[leak]))


def test_functions_over_rows_are_refused_before_the_stream_is_read(engine: Any) -> None:
    @mp.request_features
    def ranked(rows):
        return rows.select(rank=mp.col("distance").rank("min"))

    with pytest.raises(DefinitionError, match="not row-wise"):
        build(engine, model(inputs=[ranked]))


def test_missing_columns_are_named_with_a_close_match(engine: Any) -> None:
    with pytest.raises(SchemaMismatch, match="names column 'distanse'") as error:
        build(engine, model(inputs=["distanse"]))
    assert "distance" in error.value.hint
    with pytest.raises(DefinitionError, match="label or where expression"):
        build(engine, model(where=mp.col("nowhere") > 3))


def test_examples_without_time_take_features_without_time(engine: Any) -> None:
    planes = mp.Table("planes", key="id")
    facts = mp.Features("facts", entity=airport, source=planes, mean=mp.mean("distance"), last=mp.latest("carrier"))
    declared = mp.Model("plain", task=mp.Regression(label="delay"), examples=planes, inputs=[facts])
    built = build(engine, declared)
    assert built.columns.at is None
    assert rows_of(built)[0] == {
        "id": 1,
        "origin": "JFK",
        "facts__mean": 350.0,
        "facts__last": "UA",
        "__label": 10.0,
    }
