"""Models that something else wrote become versions, whatever their flavour; or it is said why not."""

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression

from millpond.core.errors import Conflict, NotFound, RequestError, VersionRefused
from millpond.platform import versions
from millpond.platform.model_pages import model_page, version_page
from millpond.platform.platform import open_project
from millpond.platform.register import register

pytestmark = pytest.mark.slow

DEFINITIONS = """
import millpond as mp

raw = mp.Table("raw", key="id", time="moment", source="raw.csv")
known = mp.Model("known", task=mp.Regression(label="x"), examples=raw, inputs=["y"])
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory):
    folder = tmp_path_factory.mktemp("register")
    (folder / "millpond.toml").write_text('[project]\nname = "p"\n')
    (folder / "definitions.py").write_text(DEFINITIONS)
    return open_project(folder)


@pytest.fixture(scope="module")
def frame():
    return pd.DataFrame({"a": [1.0, 2.0, 4.0], "b": [1.0, 0.5, 2.0]})


def kinds():
    """A model of a class that is pickled by value, as it is found in no module."""

    class Kinds(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            years = model_input["t"].dt.year
            return model_input[["a"]].assign(year=years, kind="x")

    return Kinds()


def test_a_model_without_column_names(platform, frame, tmp_path):
    model = LinearRegression().fit(frame.to_numpy(), [1.0, 2.0, 3.0])
    mlflow.sklearn.save_model(
        model, tmp_path / "m", pip_requirements=["scikit-learn==1.9.1"], serialization_format="cloudpickle"
    )
    version = register(platform, str(tmp_path / "m"), "bare")
    served = versions.served_model(platform, version)
    assert served.matrix
    assert dict(served.inputs) == {"0": "float64", "1": "float64"}
    assert [(each.name, each.type, each.width) for each in served.outputs] == [("output", "float64", 0)]
    assert platform.store.lineage(version).packages["scikit-learn"] == "1.9.1"
    assert not versions.load(platform, version).views
    page = version_page(platform, "bare", 1)
    assert page.lineage.training_set is None
    assert not page.has_report
    assert model_page(platform, "bare", lambda *_: "live").summary.versions == 1


def test_a_class_of_ones_own_with_several_outputs(platform, tmp_path):
    rows = pd.DataFrame({"a": [1.0, 2.0], "b": ["u", "v"], "t": pd.to_datetime(["2020-01-01", "2021-06-01"])})
    mlflow.pyfunc.save_model(
        tmp_path / "m",
        python_model=kinds(),
        input_example=rows,
        signature=infer_signature(rows, kinds().predict(None, rows)),
        pip_requirements=["pandas"],
    )
    served = versions.served_model(platform, register(platform, str(tmp_path / "m"), "own"))
    assert dict(served.inputs) == {"a": "float64", "b": "string", "t": "instant"}
    assert [(column.name, column.required) for column in served.columns] == [("a", False), ("b", True), ("t", True)]
    assert [(each.name, each.type) for each in served.outputs] == [
        ("a", "float64"),
        ("year", "int64"),
        ("kind", "string"),
    ]
    second = register(platform, str(tmp_path / "m"), "own")
    assert second.number == 2


def test_what_is_no_model_is_refused(platform, frame, tmp_path):
    with pytest.raises(NotFound, match="no MLflow model"):
        register(platform, str(tmp_path), "x")
    with pytest.raises(NotFound, match="nothing says in which"):
        register(platform, "models:/nowhere/1", "x")
    with pytest.raises(NotFound, match="MLflow does not give"):
        register(platform, f"file://{tmp_path}/nowhere", "x")
    with pytest.raises(Conflict, match="declares model"):
        register(platform, str(tmp_path), "known")
    with pytest.raises(RequestError, match="no name"):
        register(platform, str(tmp_path), "no name")
    named = LinearRegression().fit(frame, [1.0, 2.0, 3.0])
    mlflow.sklearn.save_model(named, tmp_path / "m", pip_requirements=[], serialization_format="cloudpickle")
    with pytest.raises(VersionRefused, match="no signature") as refused:
        register(platform, str(tmp_path / "m"), "x")
    assert "--input" in refused.value.hint
    with pytest.raises(RequestError, match="of type 'float'"):
        register(platform, str(tmp_path / "m"), "x", inputs={"a": "float"})
    version = register(platform, str(tmp_path / "m"), "x", inputs={"a": "float64", "b": "float64"})
    assert not versions.served_model(platform, version).matrix
    (tmp_path / "m" / "model.pkl").write_bytes(b"broken")
    with pytest.raises(VersionRefused, match="cannot be loaded"):
        register(platform, str(tmp_path / "m"), "x")
    assert np.array_equal([each.number for each in platform.store.versions("x")], [1])
