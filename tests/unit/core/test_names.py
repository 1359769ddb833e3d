import pytest

from millpond.core.names import closest, did_you_mean, is_name


@pytest.mark.parametrize("name", ["flights", "late_arrival", "a1"])
def test_names(name):
    assert is_name(name)


@pytest.mark.parametrize("name", ["", "Flights", "1st", "late-arrival", "view__feature", "_x", "a" * 64, "naïve"])
def test_what_is_no_name(name):
    assert not is_name(name)


def test_a_close_match_is_offered_first():
    assert closest("dep_dealy", ["dep_delay", "arr_delay", "dest"]) == "dep_delay"
    assert did_you_mean("dep_dealy", ["dep_delay", "dest"], noun="columns") == (
        "did you mean 'dep_delay'? columns: dep_delay, dest"
    )


def test_where_nothing_is_near_all_is_listed():
    assert did_you_mean("zzz", ["dest"], noun="columns") == "columns: dest"
    assert did_you_mean("zzz", [], noun="columns") == "there are no columns yet"
