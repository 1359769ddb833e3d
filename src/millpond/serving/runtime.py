"""The native runtime: the estimator of a version, loaded from MLflow's format and called as it is."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millpond.core.errors import MillpondError, Unavailable
from millpond.serving.ports import ServedModel

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

ToFrame = Callable[["pa.Table", Mapping[str, str]], "pd.DataFrame"]


class NativeRuntime:
    """Calls the estimator of an MLflow model in this process, one call at a time.

    The scikit-learn flavour is unpickled directly, without importing MLflow; a model of another flavour is loaded
    with `mlflow.pyfunc`, and its `predict` must give the probability itself. Only directories of the model store are
    loaded: unpickling runs code.

    Args:
        directory: The directory that holds `MLmodel`.
        served: What the version is.
        to_frame: Makes the frame that the estimator was fitted on from Arrow inputs; the one that training uses.

    Raises:
        Unavailable: The version cannot be loaded here.
    """

    def __init__(self, directory: Path, served: ServedModel, to_frame: ToFrame) -> None:
        self._served = served
        self._to_frame = to_frame
        self._name = f"version {served.version} of model {served.model!r}"
        try:
            estimator, native = load_estimator(directory)
            self._call = self._choose(estimator, native)
        except MillpondError:
            raise
        except Exception as error:
            raise Unavailable(
                f"{self._name} cannot be loaded: {type(error).__name__}: {error}",
                where=str(directory),
                hint="install the packages of the version's environment, or serve an earlier version",
            ) from error

    def predict(self, inputs: pa.Table) -> Sequence[float]:
        """Probability of yes, or the number, a row.

        Raises:
            MillpondError: The estimator failed; names the model and version.
        """
        try:
            frame = self._to_frame(inputs, self._served.inputs)
            return [float(value) for value in self._call(frame)]
        except MillpondError:
            raise
        except Exception as error:
            raise MillpondError(
                f"{self._name} failed: {type(error).__name__}: {error}",
                where=self._name,
                hint="its inputs are in the log of this request; retrain, or roll back to an earlier version",
            ) from error

    def _choose(self, estimator: Any, native: bool) -> Callable[[Any], Any]:
        if not native:
            return lambda frame: _single_column(estimator.predict(frame))
        if self._served.task == "regression":
            return lambda frame: _single_column(estimator.predict(frame))
        classes = list(getattr(estimator, "classes_", ()))
        if not hasattr(estimator, "predict_proba") or len(classes) != 2:
            raise Unavailable(
                f"{self._name} is a classification, and its estimator tells no probability of two classes",
                where=f"{type(estimator).__name__} with the classes {classes}",
                hint="train it with an estimator that has predict_proba",
            )
        return lambda frame: estimator.predict_proba(frame)[:, 1]


def load_estimator(directory: Path) -> tuple[Any, bool]:
    """The estimator of an MLflow model, and whether it is the scikit-learn object itself (else a pyfunc model).

    Raises whatever reading or unpickling raises.
    """
    import yaml  # type: ignore[import-untyped]

    described = yaml.safe_load((directory / "MLmodel").read_text())
    flavour = described.get("flavors", {}).get("sklearn")
    if flavour is None:
        import mlflow.pyfunc

        return mlflow.pyfunc.load_model(str(directory)), False
    if flavour.get("code"):
        import mlflow.sklearn

        # Code that was logged with the model must be put on the path first, as MLflow does.
        return mlflow.sklearn.load_model(str(directory)), True
    path = directory / flavour["pickled_model"]
    form = flavour.get("serialization_format", "pickle")
    if form == "skops":
        import skops.io  # type: ignore[import-untyped]

        return skops.io.load(path, trusted=flavour.get("skops_trusted_types")), True
    if form not in ("pickle", "cloudpickle"):
        raise ValueError(f"the model is serialized as {form!r}, which is not known here")
    with path.open("rb") as file:
        return pickle.load(file), True  # noqa: S301


def _single_column(values: Any) -> Any:
    """The answers of an estimator as one dimension; of two columns of probabilities, the last."""
    import numpy as np

    array = np.asarray(values, dtype="float64")
    return array[:, -1] if array.ndim == 2 else array
