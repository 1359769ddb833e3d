"""MLflow as a library: imported late, quietly, without its usage reports; its errors in the user's terms.

Everything in this room reaches MLflow through here, so that the environment it reads is set before its first import.
"""

from __future__ import annotations

import importlib
import logging
import os
import random
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, RLock
from typing import TYPE_CHECKING, TypeVar

from millpond.core.errors import MillpondError, Unavailable, VersionRefused

if TYPE_CHECKING:
    from mlflow.exceptions import MlflowException

T = TypeVar("T")

# MLflow's own reading of DO_NOT_TRACK accepts "true" and not "1": only this variable is dependable.
_ENVIRONMENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_CONFIGURE_LOGGING": "false"}
_LOGGERS = ("mlflow", "alembic")
_BUSY_SECONDS = 30.0

_imported = False
_importing = Lock()
_silence = RLock()


def load() -> None:
    """Import MLflow, once. Its loggers and warnings stay silent in this process; what matters arrives as an error."""
    global _imported  # noqa: PLW0603
    if _imported:
        return
    with _importing:
        if _imported:
            return
        os.environ.update(_ENVIRONMENT)
        with quiet():
            importlib.import_module("mlflow")
        # Only for the import just done: processes that we start may want MLflow's own logging.
        del os.environ["MLFLOW_CONFIGURE_LOGGING"]
        warnings.filterwarnings("ignore", module=rf"({'|'.join(_LOGGERS)})(\.|$)")
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        _imported = True


@contextmanager
def quiet() -> Iterator[None]:
    """Python warnings are ignored meanwhile, in all threads. One at a time: filters belong to the process, and two that
    overlap would restore each other's.
    """
    with _silence, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def retrying(call: Callable[[], T]) -> T:
    """`call()`, again while another process or thread gets in its way, up to 30 s.

    SQLite's own waiting is not enough: a transaction that has read and then wants to write is turned away at once when
    somebody wrote in between.

    Raises:
        Unavailable: The database stayed locked, or cannot be reached.
        MlflowException: Any other error of MLflow.
    """
    from mlflow.exceptions import MlflowException

    deadline = time.monotonic() + _BUSY_SECONDS
    pause = 0.01
    while True:
        try:
            return call()
        except MlflowException as error:
            if not _lost_a_race(error):
                raise
            if time.monotonic() > deadline:
                raise Unavailable(
                    "the model store's database is in use by another process",
                    hint=f"it was tried for {_BUSY_SECONDS:.0f} s; look for a process that uses it, and try again",
                ) from error
        time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311
        pause = min(pause * 2, 0.5)


def _lost_a_race(error: MlflowException) -> bool:
    """Whether somebody else has the database, or has just put the same data set there that MLflow was about to add."""
    text = str(error)
    busy = error.error_code == "TEMPORARILY_UNAVAILABLE" and "locked" in text
    return busy or "UNIQUE constraint failed: datasets." in text


def perform(call: Callable[[], T], doing: str = "writing its records") -> T:
    """`retrying(call)`, with MLflow's errors in the user's terms.

    Raises:
        VersionRefused: MLflow does not take a value, such as the name of a metric.
        Unavailable: Anything else.
    """
    from mlflow.exceptions import MlflowException

    try:
        return retrying(call)
    except MlflowException as error:
        raise unexpected(error, doing) from error


def error_code(error: MlflowException) -> str:
    """Such as "RESOURCE_DOES_NOT_EXIST"."""
    return str(error.error_code)


def unexpected(error: MlflowException, doing: str) -> MillpondError:
    """An error of MLflow that no caller has better words for."""
    first_line = str(error).partition("\n")[0]
    if error_code(error) == "INVALID_PARAMETER_VALUE":
        return VersionRefused(f"the model store does not take a value, while {doing}: {first_line}")
    return Unavailable(
        f"the model store failed while {doing}: {first_line}", hint="try again; if it stays, the cause below says more"
    )
