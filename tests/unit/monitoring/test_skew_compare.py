"""Comparing served with recomputed values, on the engine alone: a log and what was recomputed are given as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from millpond.lake.duckdb import DuckDBEngine
from millpond.monitoring.report import FeatureSkew, SkewReport, worst_first
from millpond.monitoring.skew import LoggedFeature, Window, compare, count, differing, keep_spine
from millpond.monitoring.skew_table import from_rows, to_arrow

AT = datetime(2026, 1, 1, tzinfo=UTC)
TYPES = {"int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_(), "string": pa.string()}


@pytest.fixture(scope="module")
def engine() -> Iterator[DuckDBEngine]:
    engine = DuckDBEngine(None)  # type: ignore[arg-type]
    yield engine
    engine.close()


def log(
    engine: DuckDBEngine,
    inputs: Mapping[str, pa.Array],
    number: int,
    request: Mapping[str, pa.Array] | None = None,
    raw: Sequence[bool | None] | None = None,
    shadow_of: Sequence[int | None] | None = None,
) -> str:
    rows = {
        "prediction_id": [f"p_{each:05}" for each in range(number)],
        "model": ["m"] * number,
        "version": pa.array([1] * number, pa.int64()),
        "raw": pa.array(raw or [False] * number, pa.bool_()),
        "shadow_of": pa.array(shadow_of or [None] * number, pa.int64()),
        "predicted_at": pa.array([AT + timedelta(minutes=each) for each in range(number)], pa.timestamp("us", "UTC")),
        "as_of": pa.array([AT] * number, pa.timestamp("us", "UTC")),
        "snapshots": ['{"t": 5}'] * number,
        "events": pa.array([None] * number, pa.string()),
        **{f"request__{name}": each for name, each in (request or {"k": pa.array(["ä"] * number)}).items()},
        **{f"input__{name}": each for name, each in inputs.items()},
    }
    engine.register("log", pa.table(rows))
    return "log"


def one(
    engine: DuckDBEngine, kind: str, served: Sequence[Any], again: Sequence[Any], tolerance: float = 0.0
) -> tuple[FeatureSkew, list[Any]]:
    """Compare one feature; its skew, and the (served, recomputed) pairs that differ."""
    features = [LoggedFeature("v__f", "v", kind, tolerance, "x")]
    relation = log(engine, {"v__f": pa.array(served, TYPES[kind], from_pandas=True)}, len(served))
    ids = [f"p_{each:05}" for each in range(len(again))]
    engine.register("again", pa.table({"__prediction": ids, "v__f": pa.array(again, TYPES[kind])}))
    with engine.session():
        window = Window("m", 1)
        keep_spine(engine, relation, window, name="spine", sample=None, request={"k": "string"}, features=features)
        [found] = compare(engine, "(SELECT * FROM spine JOIN again USING (__prediction))", features)
        pairs = [(each.served, each.recomputed) for each in differing(engine, features, 0, ["k"])]
    return found, pairs


INFINITY, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("kind", "served", "again", "tolerance", "equal"),
    [
        ("int64", 2**53 + 1, 2**53, 0.0, False),
        ("int64", -(2**63), -(2**63), 0.0, True),
        ("int64", 2**63 - 1, -(2**63), 0.0, False),
        ("int64", None, None, 0.0, True),
        ("int64", 0, None, 0.0, False),
        ("int64", None, 0, 0.0, False),
        ("float64", 0.1, 0.1, 0.0, True),
        ("float64", 0.1, 0.1 + 2**-56, 0.0, False),
        ("float64", 5e-324, 5e-324, 0.0, True),
        ("float64", 1.7976931348623157e308, 1.7976931348623157e308, 0.0, True),
        ("float64", 1.0, 1.0 + 1e-10, 1e-9, True),
        ("float64", 1.0, 1.0 + 2e-9, 1e-9, False),
        ("float64", -1e300, -1e300 * (1 + 5e-10), 1e-9, True),
        ("float64", 0.0, 1e-300, 1e-9, False),
        ("float64", INFINITY, INFINITY, 1e-9, True),
        ("float64", INFINITY, 1.0, 1e-9, False),
        ("float64", INFINITY, -INFINITY, 1e-9, False),
        ("float64", None, NAN, 1e-9, True),
        ("float64", None, NAN, 0.0, True),
        ("float64", 1.0, NAN, 1e-9, False),
        ("bool", True, True, 0.0, True),
        ("bool", False, None, 0.0, False),
        ("string", 'é漢😀"\\/\n\u0000', 'é漢😀"\\/\n\u0000', 0.0, True),
        ("string", "null", None, 0.0, False),
        ("string", "", None, 0.0, False),
        ("string", "e\u0301", "é", 0.0, False),
    ],
)
def test_equal_is_what_the_design_says(
    engine: DuckDBEngine, kind: str, served: Any, again: Any, tolerance: float, equal: bool
) -> None:
    found, pairs = one(engine, kind, [served], [again], tolerance)
    assert (found.compared, found.equal, found.different) == (1, int(equal), int(not equal))
    assert len(pairs) == int(not equal)


def test_differences_are_counted_by_side_and_measured(engine: DuckDBEngine) -> None:
    found, pairs = one(engine, "int64", [1, 2, None, 4, 10, -5], [1, None, 3, 6, 10, 5])
    assert (found.compared, found.equal, found.different, found.missing) == (6, 2, 4, 0)
    assert (found.only_served, found.only_recomputed) == (1, 1)
    assert (found.largest_absolute, found.largest_relative) == (10.0, 2.0)
    assert pairs == [(2, None), (None, 3), (-5, 5)]
    wide, _ = one(engine, "int64", [2**63 - 1], [-(2**63)])
    assert wide.largest_absolute == 2.0**64


def test_what_the_log_does_not_hold_is_missing(engine: DuckDBEngine) -> None:
    features = [LoggedFeature("v__a", "v", "int64", 0.0, "x"), LoggedFeature("v__b", "v", "int64", 0.0, "y", "gone")]
    features.append(LoggedFeature("v__c", "v", "int64", 0.0, "z"))
    features.append(LoggedFeature("v__d", "v", "int64", 0.0, "w", "redacted: not kept", redacted=True))
    relation = log(engine, {"v__a": pa.array([1, 2, None]), "v__b": pa.array([1, None, None], pa.int64())}, 3)
    with engine.session():
        keep_spine(engine, relation, Window("m", 1), name="spine", sample=None, request={}, features=features)
        again = "CAST(NULL AS BIGINT) AS v__a, CAST(NULL AS BIGINT) AS v__c"
        a, b, c, d = compare(engine, f"(SELECT *, {again} FROM spine)", features)
    assert (a.compared, a.equal, a.missing, a.reason) == (3, 1, 0, "")
    assert (c.compared, c.missing, c.reason) == (0, 3, "the log holds no value of it")
    assert (d.compared, d.missing, d.reason, d.share) == (0, 0, "redacted: not kept", 0.0)
    assert (b.compared, b.missing, b.reason, b.share) == (0, 3, "gone", 1.0)


def test_names_of_any_kind(engine: DuckDBEngine) -> None:
    names = ['v__a/b~c"d', "v__a", "v__é 1", "v__0", "v__$[0]"]
    features = [LoggedFeature(name, "v", "int64", 0.0, name) for name in names]
    relation = log(engine, {name: pa.array([index]) for index, name in enumerate(names)}, 1)
    with engine.session():
        keep_spine(engine, relation, Window("m", 1), name="spine", sample=None, request={}, features=features)
        [row] = engine.rows(f"SELECT {', '.join(f'__served_{index}' for index in range(len(names)))} FROM spine")
    assert row == tuple(range(len(names)))


def test_requests_of_raw_inputs_are_left_out(engine: DuckDBEngine) -> None:
    relation = log(engine, {"v__a": pa.array([1, 2, 3])}, 3, raw=[False, True, None])
    assert count(engine, relation, Window("m", 1))[0] == 2


def test_what_a_shadow_would_have_answered_is_left_out(engine: DuckDBEngine) -> None:
    relation = log(engine, {"v__a": pa.array([1, 2, 3])}, 3, shadow_of=[None, 4, None])
    assert count(engine, relation, Window("m", 1))[0] == 2


def test_the_window_and_the_sample(engine: DuckDBEngine) -> None:
    relation = log(engine, {"v__a": pa.array(range(100))}, 100)
    window = Window("m", 1, AT + timedelta(minutes=10), AT + timedelta(minutes=60))
    assert count(engine, relation, window) == (50, AT + timedelta(minutes=59))
    assert count(engine, relation, Window("m", 2)) == (0, None)
    feature = [LoggedFeature("v__a", "v", "int64", 0.0, "x")]

    def chosen(sample: int | None) -> set[Any]:
        with engine.session():
            number = keep_spine(engine, relation, window, name="s", sample=sample, request={}, features=feature)
            found = {row[0] for row in engine.rows("SELECT __served_0 FROM s")}
        assert number == len(found)
        return found

    assert chosen(None) == chosen(1000) == set(range(10, 60))
    assert chosen(7) == chosen(7)
    assert chosen(7) < chosen(20)
    assert len(chosen(7)) == 7


def test_keys_come_back_in_their_types(engine: DuckDBEngine) -> None:
    instant = datetime(2013, 12, 1, 8, 0, 0, 1, tzinfo=UTC)
    request = {
        "n": pa.array([2**62 + 1]),
        "t": pa.array([instant], pa.timestamp("us", "UTC")),
        "b": pa.array([None], pa.bool_()),
        "s": pa.array(["x'y"]),
        "f": pa.array([0.1]),
    }
    kinds = {"n": "int64", "t": "instant", "b": "bool", "s": "string", "f": "float64"}
    relation = log(engine, {"v__a": pa.array([1])}, 1, request)
    feature = [LoggedFeature("v__a", "v", "int64", 0.0, "x")]
    with engine.session():
        keep_spine(engine, relation, Window("m", 1), name="spine", sample=None, request=kinds, features=feature)
        compare(engine, "(SELECT *, CAST(2 AS BIGINT) AS v__a FROM spine)", feature)
        [found] = differing(engine, feature, 0, list(kinds))
    assert found.keys == {"n": 2**62 + 1, "t": instant, "b": None, "s": "x'y", "f": 0.1}
    assert (found.snapshots, found.events, found.as_of) == ({"t": 5}, {}, AT)


def test_what_differs_comes_first_and_a_report_keeps_its_values() -> None:
    def feature(name: str, different: int, missing: int) -> FeatureSkew:
        equal = 10 - different - missing
        return FeatureSkew(name, "v", "m", 0.0, 10 - missing, equal, different, 0, 0, missing, None, None)

    features = worst_first((feature("a", 0, 0), feature("b", 0, 3), feature("c", 1, 0), feature("d", 4, 0)))
    assert [each.feature for each in features] == ["d", "c", "b", "a"]
    report = SkewReport("skew_1", "m", 1, AT, "ann", 10, 10, None, None, AT, AT, {"t": 2**62}, features)
    assert not report.clean
    assert from_rows(to_arrow(report).to_pylist()) == report
