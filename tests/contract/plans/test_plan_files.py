"""Plans as files: what was saved is what is loaded, whatever was compiled; and what is not whole is refused."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from millpond.core.errors import DataError, StoreMismatch
from millpond.serving.plans.compiling import compile_plan
from millpond.serving.plans.store import load_plan, save, to_files
from millpond.serving.rows import Rows
from millpond.training.frame import to_frame

INPUTS = {"x": "float64", "n": "int64", "b": "bool", "s": "string"}
_random = np.random.default_rng(0)
TABLE = pa.table(
    {
        "x": pa.array(_random.normal(size=300)),
        "n": pa.array([None if i % 9 == 0 else i % 7 for i in range(300)], pa.int64()),
        "b": pa.array([i % 3 == 0 for i in range(300)]),
        "s": pa.array([None if i % 11 == 0 else "abc"[i % 3] for i in range(300)]),
    }
)
LABELS = (TABLE["x"].to_numpy() > 0.1).astype(int)

ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
QUIET = {"verbosity": -1, "n_jobs": 1, "n_estimators": 5}
PIPELINES = {
    "trees": (ColumnTransformer([("s", ordinal, ["s"])], remainder="passthrough"), LGBMClassifier(**QUIET)),
    "categories": (
        ColumnTransformer([("s", ordinal, ["s"])], remainder="passthrough"),
        LGBMRegressor(**QUIET, num_leaves=60, min_child_samples=2, categorical_feature=[0]),
    ),
    "one hot": (ColumnTransformer([("s", one_hot, ["s"])], remainder="passthrough"), RandomForestClassifier(5)),
    "weights": (ColumnTransformer([("s", one_hot, ["s"]), ("x", "passthrough", ["x", "b"])]), LogisticRegression()),
}


@pytest.fixture(params=PIPELINES)
def plan(request):
    pipeline = make_pipeline(*PIPELINES[request.param]).fit(to_frame(TABLE, INPUTS), LABELS)
    return compile_plan(pipeline, INPUTS, "regression" if request.param == "categories" else "classification")


def outputs(plan):
    return plan.predict(Rows.from_arrow(TABLE))["output"]


def test_a_loaded_plan_is_the_saved_one(plan, tmp_path):
    save(plan, tmp_path)
    loaded = load_plan(tmp_path)
    assert loaded.described == plan.described or "nan" in str(plan.described)
    assert outputs(loaded).tolist() == outputs(plan).tolist()
    assert to_files(loaded) == to_files(plan)
    assert {each.name for each in tmp_path.iterdir()} == set(to_files(plan))


def test_arrays_are_mapped_not_copied(plan, tmp_path):
    save(plan, tmp_path)
    loaded = load_plan(tmp_path)
    for array in loaded.arrays.values():
        assert not array.flags.owndata
        assert not array.flags.writeable


def test_saving_again_replaces(plan, tmp_path):
    other = compile_plan(
        make_pipeline(*PIPELINES["weights"]).fit(to_frame(TABLE, INPUTS), 1 - LABELS), INPUTS, "classification"
    )
    save(other, tmp_path)
    save(plan, tmp_path)
    assert outputs(load_plan(tmp_path)).tolist() == outputs(plan).tolist()


def test_a_damaged_file_is_refused(plan, tmp_path):
    save(plan, tmp_path)
    arrays = next(each for each in tmp_path.iterdir() if each.suffix == ".bin")
    whole = arrays.read_bytes()
    for broken in (whole[:-1], whole + b"\0", bytes([whole[0] ^ 1]) + whole[1:], b""):
        arrays.write_bytes(broken)
        with pytest.raises(StoreMismatch, match="damaged"):
            load_plan(tmp_path)
    arrays.unlink()
    with pytest.raises(StoreMismatch, match="damaged"):
        load_plan(tmp_path)


def test_a_damaged_description_is_refused(plan, tmp_path):
    save(plan, tmp_path)
    path = tmp_path / "plan.json"
    whole = path.read_bytes()
    for broken in (b"", b"{}", b"[]", whole[:-20]):
        path.write_bytes(broken)
        with pytest.raises(StoreMismatch):
            load_plan(tmp_path)
    with pytest.raises(StoreMismatch):
        load_plan(tmp_path / "nowhere")


@pytest.mark.parametrize("key", ["format", "layout"])
def test_another_release_is_told(plan, key, tmp_path):
    save(plan, tmp_path)
    path = tmp_path / "plan.json"
    head = json.loads(path.read_bytes())
    path.write_text(json.dumps(head | {key: head[key] + 1}))
    with pytest.raises(StoreMismatch, match="this release reads"):
        load_plan(tmp_path)


def test_sizes_that_lie_are_refused(plan, tmp_path):
    """The kernels trust the arrays, so nothing may reach them that would read beyond an end."""
    save(plan, tmp_path)
    path = tmp_path / "plan.json"
    head = json.loads(path.read_bytes())
    for key in ("inputs", "width", "outputs", "trees"):
        sizes = head["plan"]["sizes"] | {key: head["plan"]["sizes"][key] + 1}
        if key == "trees" and "weights" in head["arrays"]["index"]:
            continue
        path.write_text(json.dumps(head | {"plan": head["plan"] | {"sizes": sizes}}))
        with pytest.raises(StoreMismatch):
            load_plan(tmp_path)


def test_loading_needs_numpy_alone(plan, tmp_path):
    save(plan, tmp_path)
    code = f"""
import sys
from pathlib import Path
from millpond.serving.plans.store import load_plan
plan = load_plan(Path({str(tmp_path)!r}))
print(plan.score_one([0.5, 3, True, None]))
heavy = {{"sklearn", "lightgbm", "xgboost", "pandas", "scipy", "pyarrow", "mlflow", "joblib"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == plan.score_one([0.5, 3, True, None])


def test_one_row_is_scored_as_many(plan):
    rows = Rows.from_arrow(TABLE)
    lists = [column if isinstance(column, list) else column.tolist() for column in rows.given]
    alone = [plan.score_one(values) for values in zip(*lists, strict=True)]
    assert alone == outputs(plan).tolist()


def test_columns_may_come_in_any_order_or_not_at_all(plan):
    rows = Rows.from_arrow(TABLE)
    turned = Rows.of(dict(reversed(rows.columns.items())))
    assert plan.predict(turned)["output"].tolist() == outputs(plan).tolist()
    part = Rows.of({"x": [1.0, 2.0], "b": [True, False]})
    assert plan.predict(part)["output"][0] == plan.score_one([1.0, None, True, None])


def test_a_row_of_another_length_is_refused(plan):
    with pytest.raises((DataError, IndexError)):
        plan.score_one([1.0])


def test_a_matrix_is_taken_as_it_is():
    table = TABLE.select(["x", "n"])
    inputs = {"x": "float64", "n": "int64"}
    plan = compile_plan(LGBMClassifier(**QUIET).fit(to_frame(table, inputs), LABELS), inputs, "classification")
    matrix = to_frame(table, inputs).to_numpy(copy=True)
    matrix = np.ascontiguousarray(matrix)
    assert plan.encode(Rows(300, ("x", "n"), matrix=matrix)) is matrix
    turned = Rows(300, ("n", "x"), matrix=np.ascontiguousarray(matrix[:, ::-1]))
    assert plan.scores(plan.encode(turned)).tolist() == plan.scores(matrix).tolist()


def test_what_the_estimator_refuses_is_refused():
    table = TABLE.select(["x"])
    model = LogisticRegression().fit(to_frame(table, {"x": "float64"}), LABELS)
    plan = compile_plan(model, {"x": "float64"}, "classification")
    for value in (None, float("nan"), float("inf")):
        with pytest.raises(DataError, match="the model does not take .* for 'x'"):
            plan.score_one([value])
        with pytest.raises(DataError, match="the model does not take .* for 'x'"):
            plan.predict(Rows.of({"x": [1.0, value]}))
