"""Skew on real parts: a trained version answers, the lake changes or not, and the values are compared."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from millpond.core.errors import NotFound, RequestError
from millpond.core.time import now, to_microseconds
from millpond.platform import versions
from millpond.platform.platform import Platform
from millpond.platform.predictions import predict_rows
from millpond.platform.receipts import trace
from millpond.platform.skew import measure_skew, newest_skew
from millpond.serving.log.spool import PredictionLog
from millpond.serving.ports import Answer, LogRecord, Prediction
from millpond.serving.rows import Rows

pytestmark = pytest.mark.slow

START = datetime.fromtimestamp(1_700_000_000, UTC)


def by_name(report: Any) -> dict[str, Any]:
    return {each.feature: each for each in report.features}


def late_order(key: str, customer: str, at: datetime, amount: float = 5000.25) -> pa.Table:
    return pa.table(
        {
            "order_id": [key],
            "customer_id": [customer],
            "ordered_at": pa.array([at], pa.timestamp("us", "UTC")),
            "category": ["boats"],
            "amount": [amount],
            "pieces": pa.array([7], pa.int64()),
            "gift": [True],
            "returned": pa.array([0], pa.int64()),
        }
    )


def test_an_honest_run_has_no_difference(shop: Platform, orders_to_ask: Any) -> None:
    made = predict_rows(shop, "returned", orders_to_ask(300))
    # Events that happen after the predictions change nothing.
    shop.lake.append("orders", late_order("later", "c1", START + timedelta(days=400)))
    report = measure_skew(shop, "returned", sample=None)
    assert report.clean
    assert (report.predictions, report.looked_at, report.version) == (300, 300, 1)
    assert report.newest == max(each.predicted_at for each in made)
    assert report.snapshots["orders"] == shop.lake.snapshot("orders").id
    found = by_name(report)
    assert set(found) == {name for name in made[0].inputs if "__" in name}
    assert {(each.compared, each.equal, each.missing) for each in found.values()} == {(300, 300, 0)}
    assert found["habit__spent_7d"].tolerance == found["habit__spread"].tolerance == 1e-9
    exact = ("orders_30d", "pieces", "dearest", "kinds", "last_kind", "last_gift", "first_pieces")
    assert {found[f"habit__{name}"].tolerance for name in exact} == {0.0}
    assert found["habit__dearest"].largest_absolute == 0.0
    assert found["habit__last_kind"].largest_absolute is None
    # Some of the values are null and some are not, of each kind that can be.
    for name in ("habit__spent_7d", "habit__last_kind", "habit__first_pieces", "person__town"):
        assert {each.inputs[name] is None for each in made} == {True, False}, name


def test_rows_that_claim_an_earlier_time_are_found_and_named(shop: Platform, orders_to_ask: Any) -> None:
    made = predict_rows(shop, "returned", orders_to_ask(200))
    victims = {each.id for each in made if each.request["customer_id"] == "c5"}
    assert victims
    # It says that it happened before all predictions, and nobody could have known of it: the table has no known time.
    shop.lake.append("orders", late_order("backdated", "c5", START + timedelta(hours=199)))
    report = measure_skew(shop, "returned", sample=None)
    found = by_name(report)
    differ = {name for name, each in found.items() if each.different}
    assert {"habit__orders_30d", "habit__spent_7d", "habit__mean_spent", "habit__dearest"} <= differ
    assert all(each.different <= len(victims) for each in found.values())
    assert found["habit__orders_30d"].different == len(victims)
    assert found["habit__orders_30d"].largest_absolute == 1.0
    for name in ("hourly__orders_1d", "person__age", "clock__hour", "habit__first_pieces"):
        assert found[name].different <= (0 if name != "hourly__orders_1d" else len(victims))
    assert report.features[0].different, "what differs comes first"
    dearest = found["habit__dearest"]
    assert len(dearest.examples) == 3
    for example in dearest.examples:
        assert example.prediction_id in victims
        assert example.recomputed == 5000.25
        assert example.served == next(e for e in made if e.id == example.prediction_id).inputs["habit__dearest"]
        assert (example.arrived, example.arrived_keys, example.gone) == (1, ("backdated",), 0)
        assert "added or changed later" in example.why
        assert example.receipt == f"/predictions/{example.prediction_id}"
        # The receipt, from the snapshot that was served, still comes out equal.
        assert all(each.recomputed is not False for each in trace(shop, example.prediction_id).inputs)
    count = found["habit__orders_30d"].examples[0]
    assert count.recomputed == count.served + 1
    assert count.rows == count.recomputed
    assert "backdated" in count.row_keys or count.rows > 5


def test_a_changed_row_and_a_removed_one_are_told_apart(shop: Platform, orders_to_ask: Any) -> None:
    predict_rows(shop, "returned", orders_to_ask(60))
    engine = shop.new_engine()
    people = engine.reader(f"SELECT * FROM {engine.scan(shop.lake.snapshot('people'))}").read_all()
    engine.close()
    rows = people.to_pylist()
    changed = [{**each, "age": 99} if each["customer_id"] == "c13" else each for each in rows]
    kept = [each for each in changed if each["customer_id"] != "c6"]
    shop.lake.overwrite("people", pa.Table.from_pylist(kept, schema=people.schema))
    age = by_name(measure_skew(shop, "returned", sample=None))["person__age"]
    assert 0 < age.only_served < age.different
    assert age.examples[0].recomputed is None, "a null beside a value comes first"
    assert {each.gone for each in age.examples} == {1}
    other = [each for each in age.examples if each.recomputed is not None] or list(age.examples)
    assert {each.gone_keys for each in other} <= {("c13",), ("c6",)}


def tampered(shop: Platform, made: Prediction, **inputs: object) -> LogRecord:
    """A prediction as if it had been made of other inputs."""
    served = versions.served_model(shop, shop.store.version(made.model, made.version))
    kinds = {column.name: column.type for column in served.columns}
    request = {
        name: [to_microseconds(each) if each is not None and kinds[name] == "instant" else each]
        for name, each in made.request.items()
    }
    answers = None if made.answer is None else [made.answer]
    as_of = [to_microseconds(made.as_of)]
    return LogRecord(
        answer=Answer(served, "live", [made.id[:-4] + "0000"], {"output": [made.output]}, answers, as_of),
        request=Rows.of(request),
        raw=False,
        inputs=Rows.of({name: [each] for name, each in {**made.inputs, **inputs}.items()}),
        predicted_at=to_microseconds(made.predicted_at),
        requested_by=made.requested_by,
        latency_us=1,
        snapshots=made.snapshots,
        events=made.events,
    )


def test_a_value_served_wrong_is_found_to_the_last_bit(shop: Platform, orders_to_ask: Any) -> None:
    [*_, made] = predict_rows(shop, "returned", orders_to_ask(40))
    wrong = {
        "habit__dearest": made.inputs["habit__dearest"] * (1 + 2**-52),
        "habit__mean_spent": made.inputs["habit__mean_spent"] * (1 + 1e-12),
        "habit__spread": made.inputs["habit__spread"] * (1 + 1e-8),
        "habit__last_kind": "Schühe",
        "habit__last_gift": None,
        "person__age": 2**63 - 1,
        "clock__Shout": "wrong",
    }
    log = PredictionLog(shop.settings.spool)
    log.write([tampered(shop, made, **wrong)])  # still in the spool of a process that lives
    report = measure_skew(shop, "returned", sample=None)
    log.close()
    found = by_name(report)
    assert report.looked_at == 41
    assert {name for name, each in found.items() if each.different} == set(wrong) - {"habit__mean_spent"}
    assert 0 < found["habit__mean_spent"].largest_relative < 1.1e-12
    assert (found["habit__last_gift"].only_recomputed, found["habit__last_gift"].only_served) == (1, 0)
    assert found["person__age"].examples[0].served == 2**63 - 1
    [example] = found["habit__last_kind"].examples
    assert (example.served, example.recomputed) == ("Schühe", made.inputs["habit__last_kind"])
    assert "not made of them" in example.why
    assert (example.arrived, example.gone) == (0, 0)
    assert "request alone" in found["clock__Shout"].examples[0].why


def test_what_cannot_be_recomputed_is_missing_and_says_why(shop: Platform, orders_to_ask: Any) -> None:
    predict_rows(shop, "returned", orders_to_ask(20))
    shop.lake.drop("people")
    found = by_name(measure_skew(shop, "returned"))
    assert (found["person__age"].missing, found["person__age"].compared, found["person__age"].share) == (20, 0, 1.0)
    assert "people" in found["person__age"].reason
    assert found["habit__orders_30d"].equal == 20


def test_measurements_are_kept_and_can_be_queried(shop: Platform, orders_to_ask: Any) -> None:
    predict_rows(shop, "returned", orders_to_ask(50))
    shop.lake.append("orders", late_order("backdated", "c5", START + timedelta(hours=199)))
    first, second = measure_skew(shop, "returned", sample=20), measure_skew(shop, "returned", sample=None)
    assert newest_skew(shop, "returned") == newest_skew(shop, "returned", 1) == second
    assert first.looked_at == 20
    snapshot = shop.lake.snapshot("millpond.skew")
    assert snapshot.rows == 2 * len(first.features)
    with shop.engine() as engine:
        rows = engine.rows(
            f"SELECT measurement, sum(compared), sum(different) FROM {engine.scan(snapshot)} GROUP BY ALL ORDER BY 1"
        )
    assert [(row[0], row[1]) for row in rows] == [(first.id, 20 * 16), (second.id, 50 * 16)]
    assert rows[1][2] == sum(each.different for each in second.features) > 0


def test_a_sample_is_the_same_each_time_and_within_a_larger_one(shop: Platform, orders_to_ask: Any) -> None:
    predict_rows(shop, "returned", orders_to_ask(120))
    shop.lake.overwrite("people", pa.table({"customer_id": ["x"], "age": [1], "town": ["y"]}))

    def picked(sample: int) -> Any:
        report = measure_skew(shop, "returned", sample=sample)
        return {each.feature: (each.different, each.examples) for each in report.features}, report.looked_at

    assert picked(10) == picked(10)
    assert picked(10)[1] == 10
    assert picked(10_000)[1] == 120
    assert picked(10)[0]["person__age"][0] <= picked(50)[0]["person__age"][0]


def test_a_version_is_measured_with_its_own_meaning(shop: Platform, orders_to_ask: Any) -> None:
    predict_rows(shop, "returned", orders_to_ask(30))
    definitions = Path(shop.settings.root) / "definitions.py"
    text = definitions.read_text()
    changed = text.replace('mp.count(over="30d")', 'mp.count(over="1d")').replace(".dt.hour()", ".dt.minute()")
    assert changed != text
    definitions.write_text(changed)
    assert measure_skew(Platform(shop.settings), "returned").clean


def test_the_window_is_on_when_it_was_answered(shop: Platform, orders_to_ask: Any) -> None:
    before = now()
    predict_rows(shop, "returned", orders_to_ask(5))
    between = now()
    predict_rows(shop, "returned", orders_to_ask(7))
    assert measure_skew(shop, "returned", since=between).looked_at == 7
    assert measure_skew(shop, "returned", since=before, until=between).looked_at == 5
    assert measure_skew(shop, "returned", since=before).predictions == 12
    with pytest.raises(NotFound, match="None of the 12 predictions"):
        measure_skew(shop, "returned", until=before)


def test_bad_input_is_refused_in_words(shop: Platform) -> None:
    moment = now()
    for sample in (0, -3):
        with pytest.raises(RequestError, match="shows nothing"):
            measure_skew(shop, "returned", sample=sample)
    for until in (moment, moment - timedelta(hours=1)):
        with pytest.raises(RequestError, match="window ends"):
            measure_skew(shop, "returned", since=moment, until=until)
    with pytest.raises(NotFound) as unknown:
        measure_skew(shop, "returnd")
    assert "returned" in unknown.value.hint
    with pytest.raises(NotFound, match="no version yet"):
        measure_skew(shop, "plain")
    with pytest.raises(NotFound, match="answered no prediction yet"):
        measure_skew(shop, "returned")
    with pytest.raises(NotFound):
        measure_skew(shop, "returned", version=7)
    with pytest.raises(NotFound, match="never measured"):
        newest_skew(shop, "returned")
    with pytest.raises(NotFound):
        newest_skew(shop, "returnd")
    assert not shop.lake.exists("millpond.skew")


def test_a_model_without_features_has_no_skew(shop: Platform) -> None:
    from millpond.platform.train import train

    train(shop, "plain")
    predict_rows(shop, "plain", [{"amount": 1.5, "ordered_at": "2024-01-01T00:00:00Z"}])
    with pytest.raises(RequestError, match="takes no features"):
        measure_skew(shop, "plain")


def test_the_log_has_a_typed_column_for_each_value(shop: Platform, orders_to_ask: Any) -> None:
    """What the comparison rests on: what the log holds is the value that was served."""
    [made] = predict_rows(shop, "returned", orders_to_ask(2)[1:])
    measure_skew(shop, "returned")
    with shop.engine() as engine:
        relation = engine.scan(shop.lake.snapshot("predictions.returned"))
        listed = ", ".join(f'"input__{name}"' for name in made.inputs)
        [row] = engine.rows(f"SELECT {listed} FROM {relation}")
    assert dict(zip(made.inputs, row, strict=True)) == made.inputs


def test_pushed_events_that_have_not_landed_are_no_skew(shop: Platform) -> None:
    from millpond.platform.events import push

    at = now() - timedelta(minutes=5)
    order = {"order_id": "pushed", "customer_id": "c5", "ordered_at": at.isoformat(), "category": "boats"}
    push(shop, "orders", [{**order, "amount": 5000.25, "pieces": 7, "gift": True, "returned": 0}])
    ask = {"customer_id": "c5", "ordered_at": now().isoformat(), "category": "shirts", "amount": 1.0}
    [made] = predict_rows(shop, "returned", [ask])
    assert made.inputs["habit__dearest"] == 5000.25
    report = measure_skew(shop, "returned")
    assert report.clean
    assert shop.lake.snapshot("orders").id == report.snapshots["orders"]
