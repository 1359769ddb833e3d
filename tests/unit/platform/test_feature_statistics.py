import json

import pyarrow as pa
import pytest

from millpond.core.errors import NotFound
from millpond.core.fingerprints import fingerprint
from millpond.definitions.meanings import meaning
from millpond.platform.applied import Record, record
from millpond.platform.catalog import difference, features, find
from millpond.platform.feature_statistics import statistics
from millpond.platform.platform import Platform, open_project
from millpond.platform.training_sets import VIEWS

DEFINITIONS = """
import millpond as mp

orders = mp.Table("orders", key="id", time="at")
customer = mp.Entity("customer", key="who")
habits = mp.Features(
    "habits", entity=customer, source=orders, owner="Ann", tags=["Core", "money"],
    paid=mp.latest("paid"),
    dear=mp.latest("dear"),
    city=mp.latest("city", description="Where it went"),
    never=mp.max("paid"),
)
planes = mp.Features("planes", entity=customer, source=orders, n=mp.count(over="{over}"))
"""


@pytest.fixture
def platform(tmp_path) -> Platform:
    (tmp_path / "millpond.toml").write_text('[project]\nname = "shop"\n')
    (tmp_path / "definitions.py").write_text(DEFINITIONS.format(over="1d"))
    return open_project(tmp_path, user="ann")


def training_set(platform, table, rows, print_):
    platform.lake.overwrite(table, pa.table(rows), properties={VIEWS: json.dumps({"habits": print_})})


def values(paid):
    return {
        "who": ["a", "a", "b", None, "c"],
        "habits__paid": pa.array(paid, pa.float64()),
        "habits__dear": pa.array([True, False, True, None, None], pa.bool_()),
        "habits__city": pa.array(["Rome", "Oslo", "Rome", None, "Oslo"]),
        "habits__never": pa.array([None] * 5, pa.int64()),
    }


def test_statistics_leave_null_out_and_say_its_share(platform):
    view = platform.definitions.view("habits")
    assert statistics(platform, view, Record(())) == (None, {})
    training_set(platform, "training.a", values([1.0, 2.0, 3.0, 4.0, None]), fingerprint(meaning(view)))
    training_set(platform, "training.b", values([9.0] * 5), "another")  # newer, of another meaning
    record(platform, view)
    basis, found = statistics(platform, view, Record.of(platform))
    assert basis is not None
    assert (basis.table, basis.rows, basis.entities, basis.version, basis.current) == ("training.a", 5, 3, 1, True)
    paid = found["paid"]
    assert (paid.nulls, paid.distinct, paid.mean) == (pytest.approx(0.2), 4, 2.5)
    assert (paid.quantiles["0.0"], paid.quantiles["0.5"], paid.quantiles["1.0"]) == (1.0, 2.5, 4.0)
    assert paid.quantiles["0.25"] == pytest.approx(1.75)
    dear = found["dear"]
    assert (dear.nulls, dear.mean, dear.quantiles) == (pytest.approx(0.4), pytest.approx(2 / 3), {})
    assert dear.top == ((True, 2), (False, 1))
    city = found["city"]
    assert (city.nulls, city.distinct, city.mean, city.top) == (pytest.approx(0.2), 2, None, (("Oslo", 2), ("Rome", 2)))
    never = found["never"]
    assert (never.nulls, never.distinct, never.mean, never.quantiles) == (1.0, 0, None, {})


def test_a_training_set_of_another_meaning_is_told_as_such(platform):
    view = platform.definitions.view("habits")
    training_set(platform, "training.b", values([9.0] * 5), "another")
    basis, found = statistics(platform, view, Record(()))
    assert basis is not None
    assert (basis.version, basis.current, found["paid"].mean) == (None, False, 9.0)


def test_the_catalog_is_searched_by_words(platform):
    def names(search):
        return [each.name for each in features(platform, search)]

    assert len(names("")) == 5
    assert names("city") == ["habits__city"]
    assert names("WENT customer") == ["habits__city"]
    assert names("tag:core dear") == ["habits__dear"]
    assert names("tag:cor") == []
    assert names("owner:ann") == names("tag:money") == names("habits")
    assert names("planes tag:core") == []
    assert [(each.type, each.fresh_at, each.version) for each in features(platform, "planes")] == [(None, None, None)]


def test_views_that_went_can_still_be_compared(platform, tmp_path):
    record(platform, *platform.definitions.views.values())
    (tmp_path / "definitions.py").write_text(DEFINITIONS.format(over="2d"))
    again = open_project(tmp_path, user="bob")
    assert [str(each) for each in difference(again, "planes").changes] == ["n: over: 1d -> 2d"]
    record(again, again.definitions.view("planes"))
    assert difference(again, "planes").changes == ()
    (tmp_path / "definitions.py").write_text(DEFINITIONS.format(over="2d").replace("planes = ", "planes = None and "))
    gone = open_project(tmp_path, user="bob")
    assert (difference(gone, "planes").old, difference(gone, "planes").new) == ("version 2", "no longer declared")
    record(gone)
    assert difference(gone, "planes").old == "not in force"
    assert [str(each) for each in difference(gone, "planes", 1, 2).changes] == ["n: over: 1d -> 2d"]
    with pytest.raises(NotFound, match="no version 3") as caught:
        difference(gone, "planes", 3)
    assert caught.value.hint == "versions: 1, 2"
    with pytest.raises(NotFound) as caught:
        difference(gone, "plane")
    assert "did you mean 'planes'?" in caught.value.hint


def test_views_and_features_are_found_by_name(platform):
    assert find(platform, "habits") == ("habits", None)
    assert find(platform, "habits.paid") == find(platform, "habits__paid") == ("habits", "paid")
    for text in ("habit", "habits.pade", "habits.paid.paid"):
        with pytest.raises(NotFound) as caught:
            find(platform, text)
        assert "did you mean" in caught.value.hint
