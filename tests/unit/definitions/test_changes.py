import millpond as mp
from millpond.definitions.changes import compare, diff, in_words
from millpond.definitions.meanings import Key, meaning, meanings, model_meanings, parts_of
from millpond.definitions.project import collect

flights = mp.Table("flights", key="flight_id", time="departed_at")
airport = mp.Entity("airport", key="origin")


def traffic(**changed):
    features = {"mean_1h": mp.mean("dep_delay", over="1h"), "flights_3h": mp.count(over="3h")}
    options = {"entity": airport, "source": flights, **features, **changed}
    return mp.Features("traffic", **{name: each for name, each in options.items() if each is not None})


def late(*inputs, **changed):
    return mp.Model("late", task=mp.Classification(label="late"), examples=flights, inputs=inputs, **changed)


def words(old, new):
    return [line for change in diff(meaning(old), meaning(new)) for line in in_words(change)]


def test_changes_are_said_as_they_would_be_declared():
    changed = traffic(mean_1h=mp.mean("dep_delay", over="2h"), flights_3h=None, worst=mp.max("dep_delay", over="1d"))
    assert words(traffic(), changed) == [
        "mean_1h: over: 1h -> 2h",
        'flights_3h removed: count(over="3h")',
        'worst added: max("dep_delay", over="1d")',
    ]
    assert words(traffic(), traffic(every="1h")) == ["every: none -> 1h"]
    assert words(late("a", traffic()), late(traffic(), "b")) == ["inputs: without a, with b"]
    assert words(late("a", "b"), late("b", "a")) == ["inputs: in another order: b, a"]


def test_a_changed_function_is_said_by_its_lines():
    old = {"derivation": {"function": "def t(rows):\n    return rows\n"}}
    new = {"derivation": {"function": "def t(rows):\n    return rows.head(5)\n"}}
    [change] = diff(old, new)
    assert in_words(change) == [
        "derivation: function:",
        "  @@ -1,2 +1,2 @@",
        "   def t(rows):",
        "  -    return rows",
        "  +    return rows.head(5)",
    ]


def test_documentation_is_no_part_of_the_meaning():
    told = traffic(
        description="Traffic", owner="ann", tags=["air"], mean_1h=mp.mean("dep_delay", over="1h", description="Mean")
    )
    assert diff(meaning(traffic()), meaning(told)) == ()
    assert told.features["mean_1h"].description == "Mean"
    assert told.features["mean_1h"] == traffic().features["mean_1h"]
    assert str(told.features["mean_1h"]) == 'mean("dep_delay", over="1h")'


def test_a_model_is_changed_by_its_own_fields_and_not_by_what_its_inputs_mean():
    old = meanings(collect([late(traffic(), "carrier")]))
    new = meanings(collect([late(traffic(every="1h"), "carrier", seed=7)]))
    assert [(each.kind, each.name, each.action, [f.path for f in each.fields]) for each in compare(old, new)] == [
        ("view", "traffic", "changed", [("every",)]),
        ("model", "late", "changed", [("seed",)]),
    ]
    assert new[Key("model", "late")]["inputs"] == [{"view": "traffic"}, {"column": "carrier"}]


def test_what_is_gone_comes_last():
    old = meanings(collect([late(traffic(), "carrier")]))
    new = meanings(collect([late("carrier"), mp.Table("planes")]))
    found = [(str(each.key), each.action) for each in compare(old, new)]
    assert found == [("table planes", "added"), ("model late", "changed"), ("view traffic", "removed")]


def test_what_a_version_keeps_is_taken_apart_into_the_same_meanings():
    @mp.request_features
    def calendar(rows):
        return rows.select(hour=mp.col("departed_at").dt.hour())

    model = late(traffic(), calendar, "carrier")
    kept = {"model": model.describe(), "tables": {"flights": flights.describe()}}
    assert parts_of(kept) == meanings(collect([model])) == model_meanings(model, [flights])
