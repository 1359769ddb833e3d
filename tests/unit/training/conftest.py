from __future__ import annotations

from collections.abc import Callable

import pytest

import millpond as mp

TABLE = mp.Table("examples", key="id", time="at")


@pytest.fixture
def make_model() -> Callable[..., mp.Model]:
    """A model declaration; `task` may be "classification", "regression", or an object."""

    def make(task: object = "classification", **changes: object) -> mp.Model:
        if isinstance(task, str):
            task = mp.Classification(label="y") if task == "classification" else mp.Regression(label="y")
        return mp.Model("late", **{"task": task, "examples": TABLE, "inputs": ["x"], **changes})

    return make
