"""The joins of Spark mean what the oracle says too: the same cases and the same comparison as DuckDB's.

A join of Spark takes seconds whatever its size, so a case has several views of tables and many examples. With
HYPOTHESIS_PROFILE=full some thousands of pairs of a view and an example are computed.
"""

from __future__ import annotations

import os
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

FULL = os.environ.get("HYPOTHESIS_PROFILE") == "full"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
# shrinking is left to DuckDB's suite and to patience: each attempt would cost a join
QUIET = {
    "deadline": None,
    "database": None,
    "derandomize": not FULL,
    "phases": [Phase.explicit, Phase.generate],
    "suppress_health_check": list(HealthCheck),
}


@given(data=st.data())
@settings(max_examples=40 if FULL else 2, **QUIET)
def test_features_are_what_the_oracle_says(
    data: st.DataObject, spark: Any, oracle: Any, worlds: Any, cases: Any
) -> None:
    case = data.draw(worlds.wide_cases(views=4, examples=40))
    cases.assert_same(case, cases.by_engine(case, spark), cases.by_oracle(case, oracle))


@pytest.mark.parametrize("seed", range(24 if FULL else 1))
def test_crowded_cases_are_what_the_oracle_says(
    seed: int, spark: Any, engine: Any, oracle: Any, worlds: Any, cases: Any
) -> None:
    """And what DuckDB says."""
    case = worlds.crowded_case(Random().getrandbits(32) if FULL and seed else seed, views=2)
    found = cases.by_engine(case, spark)
    cases.assert_same(case, found, cases.by_oracle(case, oracle))
    cases.assert_same(case, cases.by_engine(case, engine), cases.by_oracle(case, oracle))
