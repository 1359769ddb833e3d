"""Every kind of mistake in a definition, and that all of them are told at once."""

from pathlib import Path

import pytest

import millpond as mp
from millpond.core.errors import DefinitionError, NotFound
from millpond.definitions.project import check_columns, collect

flights = mp.Table("flights", key="flight_id", time="departed_at")
airport = mp.Entity("airport", key="origin")
traffic = mp.Features("traffic", entity=airport, source=flights, n=mp.count(over="1h"))
label = mp.Classification(label=mp.col("arr_delay") >= 30)


def refusal(*objects):
    with pytest.raises(DefinitionError) as caught:
        collect(objects)
    return str(caught.value)


def features(**features):
    return mp.Features("view", entity=airport, source=flights, **features)


def model(**arguments):
    return mp.Model(**{"name": "late", "task": label, "examples": flights, "inputs": [traffic], **arguments})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: mp.Table("Flights"), ['Table "Flights", name', "lower-case letters"]),
        (lambda: mp.Table("t", known="loaded"), ["known", "no time", "declare time="]),
        (lambda: mp.Table("t", zone="Europe/Berlim"), ["zone", "did you mean 'Europe/Berlin'?"]),
        (lambda: mp.Table("t", mode="replace"), ["mode", "'replace'", "append", "upsert"]),
        (lambda: mp.Table("t", mode="upsert"), ["mode", "no key"]),
        (lambda: mp.Table("t", types={"a": "integer"}), ["types: a", "'integer'", "int"]),
        (lambda: mp.Table("t", checks=["origin"]), ["checks", "no check", "mp.not_null"]),
        (lambda: mp.Table("t", checks=[mp.in_range("a")]), ["in_range(a", "no bound"]),
        (lambda: mp.Table("t", checks=[mp.fresh(within="soon")]), ["'soon' is not a duration"]),
        (lambda: mp.Table("t", checks=[mp.not_null("a", severity="stop")]), ["severity", "'stop'", '"warn"']),
        (lambda: mp.Table("t", checks=[mp.not_null("a", tolerate=2)]), ["tolerate is 2", "0.0 to 1.0"]),
        (lambda: mp.Table("t", checks=[mp.check("odd", True)]), ["odd", "not an expression", "mp.col"]),
        (lambda: mp.Entity("airport", key=()), ['Entity "airport", key', "at least one column"]),
        (lambda: mp.Entity("airport", key="o", unknown="null"), ["unknown", '"refuse", "allow"']),
        (lambda: mp.Features("view", entity=airport, source=flights), ["there are none"]),
        (lambda: features(n=mp.count(over="1 hour")), ["n: over", "'1 hour' is not a duration"]),
        (lambda: features(n=mp.latest("a", within="x")), ["n: within", "'x' is not a duration"]),
        (lambda: features(n="dep_delay"), ["n: is 'dep_delay'", "aggregation", 'mp.latest("n")']),
        (lambda: features(view__n=mp.count()), ["view__n", "not a name"]),
        (
            lambda: mp.Features("v", entity=airport, source=flights, every="often", n=mp.count()),
            ["every", "'often' is not a duration"],
        ),
        (
            lambda: mp.Features("v", entity=airport, source=mp.Table("planes"), n=mp.count(over="1h")),
            ["has a window", 'Table "planes" has no time'],
        ),
        (lambda: model(inputs=[]), ["inputs: there are none"]),
        (lambda: model(inputs=[traffic, traffic]), ["names 'traffic' twice"]),
        (lambda: model(inputs=[traffic, "arr_delay"]), ["'arr_delay'", "the label is made of", "remove it"]),
        (lambda: model(inputs=[3]), ["inputs: holds 3"]),
        (lambda: model(gates=[mp.at_least("roc_acu", 0.7)]), ["did you mean 'roc_auc'?"]),
        (lambda: model(gates=[mp.at_least("rmse", 0.7)]), ["metric is 'rmse'", "metrics: accuracy"]),
        (lambda: model(split=mp.Split(validation="2013-12-01", test="2013-11-01")), ["out of order"]),
        (lambda: model(split=mp.Split(validation=0.6, test=0.5)), ["leave some to train on"]),
        (lambda: model(split=mp.Split(validation="2013-11-01")), ["both as dates, or both as fractions"]),
        (lambda: model(split=mp.Split(validation="soon", test="later")), ["'soon' is not an ISO 8601 instant"]),
        (lambda: model(tune=mp.Tune(trials=0)), ["tune: trials: is 0"]),
        (lambda: model(log=mp.PredictionLog(sample=0)), ["log: sample: is 0", "at most 1"]),
        (lambda: model(log=mp.PredictionLog(sample=1.5)), ["log: sample: is 1.5"]),
        (lambda: model(log=mp.PredictionLog(redact=["nam"])), ["log: redact: names 'nam', which is neither"]),
        (lambda: model(log=mp.PredictionLog(redact="name")), ["log: redact: is 'name'", "['name']"]),
        (lambda: model(log=0.5), ["log: is 0.5", "mp.PredictionLog("]),
        (lambda: model(where="distance > 0"), ["where", "mp.col"]),
        (lambda: model(examples=mp.Table("dim")), ["at: is missing", "feature views with a time"]),
    ],
)
def test_each_mistake_is_named(make, words):
    line = None

    def declare():
        return make()

    line = make.__code__.co_firstlineno
    text = refusal(declare())
    for word in words:
        assert word in text
    place = next(each for each in text.split() if each.startswith(str(Path(__file__))))
    assert abs(int(place.split(":")[1]) - line) < 60


def test_all_mistakes_are_told_at_once():
    text = refusal(mp.Table("Flights"), mp.Table("t", mode="replace"), model(inputs=[]))
    assert text.startswith("The definitions have 3 problems:")


def test_two_of_one_name():
    text = refusal(mp.Table("t"), mp.Table("t"))
    assert "is declared at" in text
    assert "names are unique" in text


def test_everything_referred_to_is_collected():
    found = collect([model()])
    assert set(found.tables) == {"flights"}
    assert set(found.entities) == {"airport"}
    assert set(found.views) == {"traffic"}


def test_an_unknown_name_gets_a_close_match():
    with pytest.raises(NotFound, match="no model 'lat'") as caught:
        collect([model()]).model("lat")
    assert "did you mean 'late'?" in caught.value.hint


def test_columns_are_checked_against_the_tables():
    declared = collect([model(inputs=[traffic, "distence"], label_known="arrived_at")])
    columns = {"flights": ["flight_id", "departed_at", "origin", "arr_delay", "distance"]}
    found = [str(each) for each in check_columns(declared, columns)]
    assert len(found) == 2
    assert "label_known: names column 'arrived_at', which flights does not have" in found[0]
    assert "did you mean 'distance'?" in found[1]


def test_tables_that_are_not_there_yet_are_not_judged():
    assert list(check_columns(collect([model()]), {})) == []


def test_derived_tables_come_after_what_they_read():
    raw = mp.Table("raw")

    @mp.table(raw, key="id")
    def middle(rows):
        """Half way."""
        return rows

    last = mp.sql_table("last", middle, raw, query="SELECT * FROM middle")
    found = collect([last])
    assert [table.name for table in found.derivation_order] == ["middle", "last"]
    assert found.tables["middle"].description == "Half way."


def test_meaning_changes_with_the_code_of_a_function():
    raw = mp.Table("raw")

    def derived(rows):
        return rows

    one = mp.table(raw)(derived).describe()
    assert one["derivation"]["function"] == "def derived(rows):\n    return rows\n"
    assert one["derivation"]["inputs"] == ["raw"]


def test_expressions_tell_the_columns_they_read():
    from millpond.definitions.expressions import root_columns

    expression = ((mp.col("a") - mp.col("b")).abs() > 3) & mp.col("c").is_in([1, 2]) | mp.col("a").is_null()
    assert root_columns(expression) == ("a", "b", "c")


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (mp.col("arr_delay") >= 30, "arr_delay >= 30"),
        ((mp.col("a") - mp.col("b")).abs() > 3, "(a - b).abs() > 3"),
        ((mp.col("a") > 1) & ~mp.col("b").is_null(), "(a > 1) and not b.is_null()"),
        (mp.col("a").is_in(["x", "y"]), "a.is_in(['x', 'y'])"),
    ],
)
def test_expressions_read_as_a_person_writes_them(expression, text):
    from millpond.definitions.expressions import readable

    assert readable(expression) == text
