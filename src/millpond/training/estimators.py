"""Finding the estimator a model names: a recipe of ours, an import path, or a scikit-learn object."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from millpond.core.errors import MissingExtra, TrainingError
from millpond.core.names import closest, did_you_mean

#: Estimators with a name of their own.
NAMED = ("lightgbm", "linear")
_PATH_HINT = (
    f'use "{NAMED[0]}", "{NAMED[1]}", an import path such as "sklearn.ensemble.RandomForestClassifier", '
    "or a scikit-learn estimator or pipeline"
)

#: LightGBM parameters without a scikit-learn name, accepted as they are.
LIGHTGBM_NATIVE = frozenset(
    """
    alpha bagging_seed bin_construct_sample_cnt boost_from_average cat_l2 cat_smooth drop_rate extra_trees fair_c
    feature_fraction_bynode feature_fraction_seed interaction_constraints is_unbalance linear_lambda linear_tree max_bin
    max_cat_threshold max_cat_to_onehot max_delta_step max_drop min_data_in_bin min_data_per_group monotone_constraints
    monotone_constraints_method monotone_penalty other_rate path_smooth scale_pos_weight skip_drop top_rate
    tweedie_variance_power uniform_drop xgboost_dart_mode zero_as_missing
    deterministic force_col_wise force_row_wise verbosity
    """.split()  # noqa: SIM905
)
_LIGHTGBM_SYNONYMS = {
    "bagging_fraction": "subsample",
    "bagging_freq": "subsample_freq",
    "feature_fraction": "colsample_bytree",
    "lambda_l1": "reg_alpha",
    "lambda_l2": "reg_lambda",
    "min_data_in_leaf": "min_child_samples",
    "min_gain_to_split": "min_split_gain",
    "min_sum_hessian_in_leaf": "min_child_weight",
    "num_iterations": "n_estimators",
    "num_threads": "n_jobs",
    "seed": "random_state",
}


def resolve(estimator: Any, task: str, params: Mapping[str, Any], subject: str) -> Any:
    """An unfitted estimator of the user's choice, with parameters and without seeds. Recipes are not resolved here.

    Args:
        estimator: An import path, "package.module.Class" or "package.module:Class", of a scikit-learn estimator class
            or of a function that makes one; or an estimator or pipeline, which is cloned.
        task: "classification" or "regression".
        params: Parameters by name ("step__name" within a pipeline).
        subject: The model, for errors.

    Raises:
        TrainingError: The path leads nowhere, or to something that is no estimator of this task; or a parameter is
            unknown or refused.
        MissingExtra: The package is an optional part of Millpond and is not installed.
    """
    where = f"{subject}, estimator"
    path = estimator if isinstance(estimator, str) else getattr(estimator, "__name__", type(estimator).__name__)
    target = _import(estimator, where) if isinstance(estimator, str) else estimator
    if isinstance(target, type) or not hasattr(target, "fit"):
        made = _call(target, path, task, params, where)
    else:
        from sklearn.base import clone

        _require_estimator(target, path, where)
        made = clone(target)
        apply_params(made, params, subject)
    made = _complete(made, task)
    _require_task(made, task, where)
    return made


def path_of(estimator: Any) -> str:
    """The import path of an estimator's class."""
    return f"{type(estimator).__module__}.{type(estimator).__qualname__}"


def handles_frames(estimator: Any) -> bool:
    """Whether an estimator takes the raw frame: a pipeline does its own preprocessing, and so does what wraps one
    (such as a calibrated pipeline), and what skrub makes.
    """
    from sklearn.pipeline import Pipeline

    wrapped = estimator.get_params(deep=False).values()
    return any(
        isinstance(each, Pipeline) or type(each).__module__.startswith("skrub.") for each in (estimator, *wrapped)
    )


def set_seeds(estimator: Any, seed: int) -> None:
    """Set every `random_state` that is None, nested ones too; one the user chose stays."""
    values = estimator.get_params(deep=True)
    unset = {name: seed for name, value in values.items() if _is_seed(name) and value is None}
    if unset:
        estimator.set_params(**unset)


def apply_params(estimator: Any, params: Mapping[str, Any], subject: str) -> None:
    """Set parameters.

    Raises:
        TrainingError: A name is unknown; the hint has the close match.
    """
    known = list(estimator.get_params(deep=True))
    for name in params:
        if name not in known and not (is_lightgbm(estimator) and name in LIGHTGBM_NATIVE):
            raise unknown_param(estimator, name, known, subject)
    try:
        estimator.set_params(**params)
    except (TypeError, ValueError) as error:
        raise TrainingError(
            f"{type(estimator).__name__} refuses its parameters: {first_line(error)}", where=f"{subject}, params"
        ) from error


def unknown_param(estimator: Any, name: str, known: list[str], subject: str) -> TrainingError:
    """The error for a parameter that an estimator does not have."""
    synonym = _LIGHTGBM_SYNONYMS.get(name) if is_lightgbm(estimator) else None
    own = [each for each in known if "__" not in each or "__" in name]
    hint = f"use its name {synonym!r}" if synonym else did_you_mean(name, own, noun="parameters")
    return TrainingError(f"{type(estimator).__name__} has no parameter {name!r}", where=f"{subject}, params", hint=hint)


def first_line(error: BaseException) -> str:
    """What a foreign exception says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _import(path: str, where: str) -> Any:
    module_name, _, attribute = path.partition(":") if ":" in path else path.rpartition(".")
    if not module_name or not attribute:
        match = closest(path, NAMED)
        hint = (f"did you mean {match!r}? " if match else "") + _PATH_HINT
        raise TrainingError(f"there is no estimator {path!r}", where=where, hint=hint)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise _no_module(path, error, where) from error
    except Exception as error:
        raise TrainingError(f"importing {module_name!r} failed: {first_line(error)}", where=where) from error
    found = module
    for part in attribute.split("."):
        names = [name for name in dir(found) if not name.startswith("_")]
        if not hasattr(found, part):
            raise TrainingError(
                f"{module_name!r} has no {part!r}", where=where, hint=did_you_mean(part, names, noun="it has")
            )
        found = getattr(found, part)
    return found


def _no_module(path: str, error: ModuleNotFoundError, where: str) -> TrainingError | MissingExtra:
    missing = error.name or path
    package = missing.split(".")[0]
    if package == "skrub":
        return MissingExtra("skrub is not installed", where=where, hint="install it: pip install 'millpond[skrub]'")
    if importlib.util.find_spec(package) is None:
        return TrainingError(
            f"there is no module {package!r} for the estimator {path!r}",
            where=where,
            hint=f"install {package!r} in the project's environment, or mend the path; {_PATH_HINT}",
        )
    parent, _, leaf = missing.rpartition(".")
    import pkgutil

    siblings = [each.name for each in pkgutil.iter_modules(importlib.import_module(parent).__path__)]
    public = [name for name in siblings if not name.startswith("_")]
    return TrainingError(
        f"{parent!r} has no module {leaf!r}", where=where, hint=did_you_mean(leaf, public, noun="modules")
    )


def _call(target: Callable[..., Any], path: str, task: str, params: Mapping[str, Any], where: str) -> Any:
    if isinstance(target, type) or not callable(target):
        _require_estimator(target, path, where)
    accepted = _signature(target)
    arguments = dict(params)
    if _is_tabular_pipeline(target):
        arguments.setdefault("estimator", "classifier" if task == "classification" else "regressor")
    free = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    for name in arguments:
        if name not in accepted and not (free and _allows_native(target, name)):
            hint = did_you_mean(name, accepted, noun="parameters")
            synonym = _LIGHTGBM_SYNONYMS.get(name) if free else None
            raise TrainingError(
                f"{path} has no parameter {name!r}",
                where=where.replace(", estimator", ", params"),
                hint=f"use its name {synonym!r}" if synonym else hint,
            )
    try:
        made = target(**arguments)
    except Exception as error:
        raise TrainingError(f"{path} refuses its parameters: {first_line(error)}", where=where) from error
    _require_estimator(made, path, where)
    return made


def _signature(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(target).parameters
    except ValueError:  # some functions written in C have none
        return {}


def _allows_native(target: Any, name: str) -> bool:
    return not str(getattr(target, "__module__", "")).startswith("lightgbm") or name in LIGHTGBM_NATIVE


def _is_tabular_pipeline(target: Any) -> bool:
    module = str(getattr(target, "__module__", ""))
    return module.split(".", maxsplit=1)[0] == "skrub" and getattr(target, "__name__", "").startswith("tabular_")


def _complete(made: Any, task: str) -> Any:
    """A transformer alone, such as skrub's TableVectorizer, gets scikit-learn's boosted trees behind it."""
    if hasattr(made, "predict") or not hasattr(made, "transform"):
        return made
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.pipeline import Pipeline

    trees = HistGradientBoostingClassifier() if task == "classification" else HistGradientBoostingRegressor()
    return Pipeline([("preprocess", made), ("model", trees)])


def _require_estimator(made: Any, path: str, where: str) -> None:
    if not all(hasattr(made, name) for name in ("fit", "get_params", "set_params")):
        raise TrainingError(
            f"{path} is not a scikit-learn estimator (it lacks fit, get_params or set_params)",
            where=where,
            hint=_PATH_HINT,
        )


def _require_task(made: Any, task: str, where: str) -> None:
    from sklearn.base import is_classifier, is_regressor

    name = type(made).__name__
    if task == "classification":
        if is_regressor(made):
            raise TrainingError(
                f"{name} is a regressor, and the task is a classification", where=where, hint=_other(name)
            )
        if not hasattr(made, "predict_proba"):
            raise TrainingError(
                f"{name} gives no probabilities (it has no predict_proba)",
                where=where,
                hint="wrap it: sklearn.calibration.CalibratedClassifierCV(...)",
            )
    elif is_classifier(made):
        raise TrainingError(f"{name} is a classifier, and the task is a regression", where=where, hint=_other(name))
    elif not hasattr(made, "predict"):
        raise TrainingError(f"{name} has no predict", where=where, hint=_PATH_HINT)


def _other(name: str) -> str:
    swaps = (("Regressor", "Classifier"), ("Classifier", "Regressor"), ("Regression", "Classification"))
    for end, other in swaps:
        if name.endswith(end):
            return f"did you mean {name.removesuffix(end) + other!r}?"
    return "name an estimator of the model's task"


def _is_seed(name: str) -> bool:
    return name == "random_state" or name.endswith("__random_state")


def is_lightgbm(estimator: Any) -> bool:
    """Whether an estimator is LightGBM's own."""
    return type(estimator).__module__.startswith("lightgbm")
