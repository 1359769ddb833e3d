"""A batch answers what serving answers, for every row once; receipts of it hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from millpond.core.errors import Conflict, DataError, MillpondError, NotFound, RequestError
from millpond.platform import batch_jobs, versions
from millpond.platform.batch import predict_batch
from millpond.platform.platform import Platform
from millpond.platform.predictions import open_predictor, records_to_arrow
from millpond.platform.receipts import trace

pytestmark = pytest.mark.slow

Read = Callable[[Platform, str], list[dict[str, Any]]]


class NoLog:
    """A log of answers that are compared and not kept."""

    def write(self, records: Any) -> None:
        pass


def ask_each(platform: Platform, together: int, chosen: range) -> list[Any]:
    """What serving's code answers to rows of `asks`, so many at a time."""
    version = versions.require_champion(platform, "returned")
    made: list[Any] = []
    with platform.engine() as engine, open_predictor(platform, version, NoLog()) as predictor:
        wanted = [column.name for column in predictor.served.columns]
        listed = ", ".join(wanted)
        source = engine.scan(platform.lake.snapshot("asks"))
        rows = engine.reader(f"SELECT {listed} FROM {source} ORDER BY ask_id").read_all().to_pylist()
        for start in range(chosen.start, chosen.stop, together if together > 1 else chosen.step):
            asked = records_to_arrow(rows[start : start + together], predictor.served)
            made += predictor.predict(asked, None, "ann")
    return made


def test_a_batch_is_the_same_rows_asked_one_by_one(shop: Platform, scores: Read) -> None:
    began = datetime.now(UTC)
    written = predict_batch(shop, "returned", "asks", "scores", part_rows=37)
    found = scores(shop, "scores")
    assert [row["ask_id"] for row in found] == list(range(120))
    assert written.rows == 120
    made = ask_each(shop, 120, range(120))
    for number, each in zip(range(0, 120, 20), ask_each(shop, 1, range(0, 120, 20)), strict=True):
        made[number] = each
    for row, each in zip(found, made, strict=True):
        assert row["probability"] == pytest.approx(each.output, rel=1e-12)
        assert row["answer"] == each.answer
        assert row["as_of"] == each.as_of or (row["as_of"] >= began and each.as_of >= began)
        assert (row["model"], row["version"]) == ("returned", 1)
        assert json.loads(row["snapshots"]) == each.snapshots
    assert len({row["as_of"] for row in found if row["as_of"] >= began}) == 1
    assert len({row["answer"] for row in found}) == 2


def test_receipts_of_a_batch(shop: Platform) -> None:
    written = predict_batch(shop, "returned", "asks", "scores", part_rows=100)
    with shop.engine() as engine:
        [[id, probability]] = engine.rows(
            f"SELECT prediction_id, probability FROM {engine.scan(written)} WHERE ask_id = 81"
        )
    receipt = trace(shop, id)
    assert receipt.output == probability
    assert receipt.request["customer_id"] == "c30"
    assert {each.name for each in receipt.inputs} == set(
        versions.served_model(shop, shop.store.version("returned", 1)).inputs
    )
    assert {each.table for each in receipt.snapshots} == {"orders", "people"}
    refs = shop.lake.require("orders").metadata.refs
    assert any(name.startswith("receipts-") for name in refs)
    assert not any(name.startswith("batch-") for name in refs)
    assert [*(shop.settings.state / "batches").iterdir()] == []
    with pytest.raises(NotFound):
        trace(shop, f"{id}0")


def test_what_cannot_be_scored_is_refused_before_anything_begins(shop: Platform) -> None:
    with pytest.raises(RequestError, match="declares"):
        predict_batch(shop, "returned", "asks", "orders")
    shop.lake.overwrite("own", pa.table({"x": [1]}))
    with pytest.raises(RequestError, match="is the table to score"):
        predict_batch(shop, "returned", "own", "own")
    with pytest.raises(RequestError, match="own has no column"):
        predict_batch(shop, "returned", "own", "scores")
    with pytest.raises(NotFound, match="asks"):
        predict_batch(shop, "returned", "askes", "scores")
    with pytest.raises(NotFound):
        predict_batch(shop, "returned", "asks", "scores", version=7)
    with pytest.raises(DataError, match="cannot name a table"):
        predict_batch(shop, "returned", "asks", "../scores")
    with batch_jobs.writing(shop, "scores"), pytest.raises(Conflict, match="scores"):
        predict_batch(shop, "returned", "asks", "scores")
    assert not shop.lake.exists("scores")
    assert not (shop.settings.state / "batches").exists()


def test_an_empty_table_has_the_columns(shop: Platform) -> None:
    columns = {"customer_id": pa.string(), "category": pa.string(), "amount": pa.float64()}
    shop.lake.overwrite("nobody", pa.schema(columns.items()).empty_table())
    written = predict_batch(shop, "returned", "nobody", "scores")
    assert written.rows == 0
    assert written.column_names[:3] == ("prediction_id", "probability", "answer")


def test_an_unknown_member_is_named_and_finished_parts_stay(shop: Platform) -> None:
    """Rows 0 to 99 are known members, row 123 is not."""
    members = [f"c{number % 30}" for number in range(200)]
    members[123] = "nobody"
    rows = pa.table({"customer_id": members, "pieces": pa.array(range(200), pa.int64())})
    shop.lake.overwrite("joined", rows)
    with pytest.raises(RequestError, match="Unknown member: 'nobody'") as refused:
        predict_batch(shop, "spent", "joined", "scores", part_rows=100)
    assert "row 23, in part 2 of 2, which begins with row 100 of joined" in refused.value.where
    assert "--fresh" in refused.value.hint
    assert not shop.lake.exists("scores")
    with batch_jobs.writing(shop, "scores"):
        job = batch_jobs.unfinished(shop, "scores")
        assert job is not None
        assert (job.finished(0, 100), job.finished(1, 100)) == (True, False)
    shop.lake.append("people", pa.table({"customer_id": ["nobody"], "age": [40], "town": ["Town 1"]}))
    with pytest.raises(RequestError, match="Unknown member"):  # the job sees what it pinned
        predict_batch(shop, "spent", "joined", "scores")
    assert predict_batch(shop, "spent", "joined", "scores", fresh=True).rows == 200


def test_a_row_that_the_model_refuses_is_named(shop: Platform) -> None:
    pieces = [float(number) for number in range(50)]
    pieces[31] = float("inf")
    shop.lake.overwrite("odd", pa.table({"customer_id": ["c1"] * 50, "pieces": pieces}))
    with pytest.raises(MillpondError) as refused:
        predict_batch(shop, "spent", "odd", "scores", part_rows=20)
    assert "in part 2 of 3" in refused.value.where
    assert str(shop.lake.snapshot("odd")) in refused.value.where or "pieces" in refused.value.where
