from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from millpond.core.errors import RequestError
from millpond.serving.batch import output_columns, predict_batches
from millpond.serving.predictor import Predictor

AT = datetime(2013, 12, 1, 8, tzinfo=UTC)
SCHEMA = pa.schema(
    [
        ("flight_id", pa.int64()),
        ("origin", pa.string()),
        ("scheduled_at", pa.timestamp("us", "UTC")),
        ("distance", pa.float64()),
        ("tail", pa.string()),
    ]
)


def stream(sizes: list[int]) -> pa.RecordBatchReader:
    def batches() -> Iterator[pa.RecordBatch]:
        first = 0
        for size in sizes:
            numbers = range(first, first + size)
            first += size
            yield pa.record_batch(
                [
                    pa.array(numbers, pa.int64()),
                    pa.array(["JFK"] * size),
                    pa.array([AT] * size, SCHEMA.field("scheduled_at").type),
                    pa.array([float(number % 1000) for number in numbers]),
                    pa.array(["N1"] * size),
                ],
                schema=SCHEMA,
            )

    return pa.RecordBatchReader.from_batches(SCHEMA, batches())


def test_one_row_out_a_row_in(predictor: Predictor, spool: Any) -> None:
    answers = predict_batches(predictor, stream([3, 0, 10, 1]), keys=["flight_id"], batch_rows=4).read_all()
    answers.validate(full=True)
    assert answers.column_names == ["flight_id", *output_columns(predictor.served)]
    assert output_columns(predictor.served) == (
        "prediction_id",
        "probability",
        "answer",
        "model",
        "version",
        "as_of",
        "snapshots",
        "predicted_at",
    )
    assert answers.column("flight_id").to_pylist() == list(range(14))
    assert answers.column("probability").to_pylist() == [number / 1000 for number in range(14)]
    assert answers.column("as_of").to_pylist() == [AT] * 14
    assert set(answers.column("snapshots").to_pylist()) == {'{"flights": 42}'}
    assert set(answers.column("version").to_pylist()) == {3}
    assert len(set(answers.column("prediction_id").to_pylist())) == 14
    assert not spool.exists()


def test_regression_columns(make_predictor: Any, make_served: Any) -> None:
    answers = predict_batches(make_predictor(make_served("regression")), stream([2]), keys=[]).read_all()
    assert answers.column_names == [
        "prediction_id",
        "prediction",
        "model",
        "version",
        "as_of",
        "snapshots",
        "predicted_at",
    ]


def test_the_same_rows_get_the_same_answers_as_a_request(predictor: Predictor) -> None:
    rows = stream([50]).read_all()
    single = predictor.predict(rows.drop_columns(["flight_id", "tail"]), None, "ann")
    batch = predict_batches(predictor, stream([50]), keys=["flight_id"], batch_rows=7).read_all()
    assert batch.column("probability").to_pylist() == [each.output for each in single]
    assert batch.column("answer").to_pylist() == [each.answer for each in single]


def test_each_row_keeps_its_own_instant_unless_one_is_given(predictor: Predictor) -> None:
    later = datetime(2014, 1, 1, tzinfo=UTC)
    own = predict_batches(predictor, stream([3]), keys=[]).read_all()
    given = predict_batches(predictor, stream([3]), keys=[], as_of=later).read_all()
    assert own.column("as_of").to_pylist() == [AT] * 3
    assert given.column("as_of").to_pylist() == [later] * 3


def test_an_empty_stream_has_its_columns(predictor: Predictor) -> None:
    answers = predict_batches(predictor, stream([]), keys=["flight_id"]).read_all()
    assert answers.num_rows == 0
    assert answers.column_names[0] == "flight_id"


def test_memory_does_not_grow_with_the_stream(predictor: Predictor) -> None:
    def peak(count: int) -> tuple[int, int]:
        before, rows, most = pa.total_allocated_bytes(), 0, 0
        tracemalloc.start()
        for batch in predict_batches(predictor, stream([500] * count), keys=["flight_id"], batch_rows=500):
            rows += batch.num_rows
            most = max(most, pa.total_allocated_bytes() - before)
        python = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert rows == 500 * count
        return most, python

    small, large = peak(2), peak(12)
    assert large[0] <= small[0] * 1.5 + 100_000
    assert large[1] <= small[1] * 1.5 + 100_000


def test_keys_are_checked_at_once(predictor: Predictor) -> None:
    with pytest.raises(RequestError, match="no key column 'flight'") as caught:
        predict_batches(predictor, stream([1]), keys=["flight"])
    assert "did you mean 'flight_id'?" in caught.value.hint
    clash = pa.RecordBatchReader.from_batches(pa.schema([("answer", pa.bool_())]), [])
    with pytest.raises(RequestError, match="has the name of an output"):
        predict_batches(predictor, clash, keys=["answer"])


def test_an_error_names_the_rows(predictor: Predictor) -> None:
    schema = SCHEMA.remove(SCHEMA.get_field_index("scheduled_at"))
    rows = (batch.select(schema.names) for batch in stream([5]))
    with pytest.raises(RequestError, match="'scheduled_at' is missing") as caught:
        predict_batches(predictor, pa.RecordBatchReader.from_batches(schema, rows), keys=[]).read_all()
    assert "in the rows from 0 on" in caught.value.where
