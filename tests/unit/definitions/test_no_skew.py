from __future__ import annotations

import pytest

import millpond as mp
from millpond.training.gates import GateResult, judge


def test_it_says_what_it_means():
    assert str(mp.no_skew()) == "no skew in 7d of live traffic"
    assert str(mp.no_skew(max_share=0.01, over="1d12h")) == "no skew beyond 0.01 of the values in 1d12h of live traffic"
    described = mp.no_skew(max_share=0.5, min_compared=3, over="1h").describe()
    assert described == {"gate": "no_skew", "max_share": 0.5, "min_compared": 3, "over": 3_600_000_000}


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        ({"max_share": -0.1}, "max_share"),
        ({"max_share": 1}, "max_share"),
        ({"max_share": "some"}, "max_share"),
        ({"min_compared": 0}, "min_compared"),
        ({"min_compared": 1.5}, "min_compared"),
        ({"over": "a week"}, "over"),
        ({"over": None}, "over"),
    ],
)
def test_wrong_arguments_are_problems(arguments, where):
    [problem] = mp.no_skew(**arguments).problems('Model "m"', "classification")
    assert problem.field == f"gates: no_skew: {where}"


def test_it_holds_for_every_task():
    for task in ("classification", "regression"):
        assert list(mp.no_skew().problems('Model "m"', task)) == []


def test_results_come_in_order_of_declaration():
    live = mp.no_skew()
    given = GateResult(str(live), True, 0.0, 0.0, "nothing differs")
    gates = [mp.at_least("roc_auc", 0.9), live, mp.at_least("roc_auc", 0.5)]
    results = judge(gates, "classification", {"test.roc_auc": 0.8}, None, {live: given})
    assert [each.passed for each in results] == [False, True, True]
    assert results[1] is given


def test_a_live_gate_that_was_not_judged_fails():
    [result] = judge([mp.no_skew()], "classification", {}, None)
    assert not result.passed
    assert "not looked at" in result.reason
