from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from millpond.core import errors
from millpond.server.http.errors import error_answer, status_of, to_json
from millpond.server.inference_metrics import BUCKETS, InferenceMetrics, merge_workers


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.RequestError("x"), 400),
        (errors.PayloadTooLarge("x"), 413),
        (errors.NotFound("x"), 404),
        (errors.NotAuthenticated("x"), 401),
        (errors.AccessDenied("x"), 403),
        (errors.Unavailable("x"), 503),
        (errors.Overloaded("x"), 429),
        (errors.DeadlineExceeded("x"), 504),
        (errors.MillpondError("x"), 500),
        (errors.DataError("x"), 500),
        (ValueError("x"), 500),
    ],
)
def test_the_status_of_an_error(error: Exception, status: int) -> None:
    assert status_of(error) == status


def body(error: Exception) -> Any:
    return json.loads(error_answer(error, status_of(error)))


def test_an_error_of_ours_is_told_whole() -> None:
    assert body(errors.RequestError("it is wrong", where="there", hint="mend it")) == {
        "error": "it is wrong (there); mend it",
        "type": "RequestError",
        "what": "it is wrong",
        "where": "there",
        "hint": "mend it",
    }


def test_an_error_of_the_model_is_told_with_its_id(caplog: pytest.LogCaptureFixture) -> None:
    told = body(errors.MillpondError("version 3 failed"))
    assert told["error"] == f"version 3 failed [{told['id']}]"
    assert told["id"] in caplog.text


def test_any_other_error_stays_inside(caplog: pytest.LogCaptureFixture) -> None:
    told = body(KeyError("secret"))
    assert "secret" not in json.dumps(told)
    assert told["id"] in told["error"]
    assert "secret" in caplog.text


def test_text_that_is_no_unicode_can_be_told() -> None:
    assert json.loads(to_json({"x": "\ud800"})) == {"x": "\ud800"}


def test_metrics() -> None:
    metrics = InferenceMetrics()
    metrics.observe("late", "3", "live", 200, 2, 0.003)
    metrics.observe("late", "3", "live", 200, 5, 0.005)  # a bound is part of its bucket
    metrics.observe("late", "3", "live", 400, 0, 60.0)
    metrics.observe('a"b\\c\nd', "1", "", 500, 0, 0.0)
    metrics.waiting = 4
    lines = metrics.render().splitlines()
    labels = 'model="late",version="3",variant="live"'
    assert f'millpond_inference_requests_total{{{labels},code="200"}} 2' in lines
    assert 'millpond_inference_requests_total{model="a\\"b\\\\c\\nd",version="1",variant="",code="500"} 1' in lines
    assert f"millpond_inference_rows_total{{{labels}}} 7" in lines
    assert "millpond_inference_waiting 4" in lines
    buckets = [line for line in lines if line.startswith('millpond_inference_seconds_bucket{model="late"')]
    counts = [int(line.rsplit(" ", 1)[1]) for line in buckets]
    assert len(counts) == len(BUCKETS) + 1
    assert counts == sorted(counts)
    assert dict(zip((*BUCKETS, "+Inf"), counts, strict=True))[0.005] == 2
    assert counts[-2:] == [2, 3]
    assert f"millpond_inference_seconds_sum{{{labels}}} 60.008" in lines


def test_every_line_of_the_metrics_is_a_comment_or_a_sample() -> None:
    metrics = InferenceMetrics()
    metrics.observe("late", "3", "live", 200, 2, 0.003)
    for line in merge_workers({"0": metrics.render(), "1": metrics.render()}).splitlines():
        if not line.startswith("# "):
            name, value = line.rsplit(" ", 1)
            assert name.endswith("}")
            float(value)


def test_metrics_of_several_workers_say_each_family_once() -> None:
    one, two = InferenceMetrics(), InferenceMetrics()
    one.observe("late", "3", "live", 200, 2, 0.003)
    two.waiting = 1
    lines = merge_workers({"0": one.render(), "1": two.render()}).splitlines()
    assert len([line for line in lines if line.startswith("# TYPE millpond_inference_waiting")]) == 1
    assert 'millpond_inference_waiting{worker="0"} 0' in lines
    assert 'millpond_inference_waiting{worker="1"} 1' in lines
    assert 'millpond_inference_rows_total{worker="0",model="late",version="3",variant="live"} 2' in lines
    families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(families) == len(set(families))


def test_importing_the_wire_loads_no_heavy_library() -> None:
    heavy = ("pyarrow", "pandas", "sklearn", "scipy", "mlflow", "duckdb", "lightgbm", "pyiceberg", "sqlalchemy")
    heavy += ("starlette", "narwhals")
    modules = "millpond.server.http.server, millpond.server.http.routes, millpond.server.http.doors, "
    modules += (
        "millpond.serving.batch, millpond.serving.log.spool, millpond.serving.predictor, millpond.server.worker, "
    )
    modules += "millpond.serving.plans.store, millpond.lake.lineage, millpond.features.online.lmdb"
    program = f"import sys, {modules}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
