"""A definition is changed: what is told before, what has a version after, and what a deployed model goes on with."""

import calendar
import csv
import time
from typing import Any

import pytest

pytestmark = pytest.mark.slow

HOUR = 3600
ASKED = 1_700_000_000 + 1400 * HOUR


def orders_before(folder: Any, customer: str, days: int) -> int:
    """Orders of a customer in the days before `ASKED`, counted by hand."""
    with (folder / "orders.csv").open() as file:
        texts = [row["ordered_at"] for row in csv.DictReader(file) if row["customer_id"] == customer]
    moments = [calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ")) for text in texts]
    return sum(ASKED - days * 24 * HOUR <= moment < ASKED for moment in moments)


def asked(project: Any, customer: str = "c7") -> tuple[int, int]:
    """Ask the model that answers; its version, and the value of `habits__orders_7d` behind the answer."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ASKED))
    row = [f"customer_id={customer}", "category=books", "amount=10", f"ordered_at={at}"]
    answer = project.json("predict", "returned", *row)
    receipt = project.json("trace", answer["id"])
    [value] = [each["value"] for each in receipt["inputs"] if each["name"] == "habits__orders_7d"]
    return receipt["version"], value


def edit(project: Any, old: str, new: str) -> None:
    file = project.folder / "definitions.py"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.timeout(900)  # two trainings and a dozen commands
def test_a_changed_view_is_told_then_versioned_and_a_deployed_model_keeps_its_meaning(walked):
    week, month = (orders_before(walked.folder, "c7", days) for days in (7, 30))
    assert week != month
    edit(walked, 'orders_7d=mp.count(over="7d")', 'orders_7d=mp.count(over="30d")')

    # Before anything is applied.
    plan = walked.json("plan")
    [change] = plan["changes"]
    assert (change["kind"], change["name"], change["action"]) == ("view", "habits", "changed")
    day = 86_400_000_000
    path = ["columns", "orders_7d", "over"]
    assert change["fields"] == [{"path": path, "action": "changed", "old": 7 * day, "new": 30 * day}]
    assert plan["tables"] == []
    [view] = plan["views"]
    assert (view["version"], view["becomes"], view["models"]) == (1, 2, ["returned"])
    [model] = plan["models"]
    assert (model["name"], model["newest"], model["training_set"]) == ("returned", 1, True)
    kept = {"kind": "view", "name": "habits", "version": 1, "becomes": 2}
    deployed = {"model": "returned", "version": 1, "keeps": [kept], "tables": []}
    assert plan["deployed"] == [deployed]
    assert "orders_7d: over: 7d -> 30d" in walked.run("plan").stdout
    assert "orders_7d: over: 7d -> 30d" in walked.run("feature", "diff", "habits").stdout
    assert asked(walked) == (1, week)

    # Applied: not before is there a version 2.
    assert walked.refused("feature", "diff", "habits", "2", code=4)["hint"] == "versions: 1"
    assert "view habits is version 2" in walked.run("train").stderr
    assert asked(walked) == (2, month)

    # The older version answers again, and means what it meant.
    walked.run("deploy", "returned", "1", "--why", "to compare")
    assert asked(walked) == (1, week)
    shown = walked.json("feature", "show", "habits")
    assert [(each["number"], each["in_force"]) for each in shown["versions"]] == [(2, True), (1, False)]
    assert [(each["version"], each["view_version"], each["current"]) for each in shown["uses"]] == [
        (2, 2, True),
        (1, 1, False),
    ]
    plan = walked.json("plan")
    assert (plan["empty"], plan["changes"], plan["deployed"]) == (True, [], [deployed])
    assert shown["versions"][0]["changes"] == ["orders_7d: over: 7d -> 30d"]

    # A meaning that comes back is the version that it was.
    edit(walked, 'mp.count(over="30d")', 'mp.count(over="168h")')
    [view] = walked.json("plan")["views"]
    assert (view["version"], view["becomes"]) == (2, 1)


def test_a_changed_table_is_derived_again_with_what_reads_it(walked):
    before = walked.json("table", "history", "priced")
    edit(walked, 'mp.col("amount") > 50', 'mp.col("amount") > 60')
    plan = walked.json("plan")
    [table] = plan["tables"]
    assert (table["name"], table["version"], table["becomes"], table["derive"]) == ("priced", 1, 2, True)
    [view] = plan["views"]
    assert (view["name"], view["version"], view["becomes"]) == ("habits", 1, 1)
    assert view["because"] == ["table priced is derived again"]
    assert plan["deployed"] == [{"model": "returned", "version": 1, "keeps": [], "tables": ["priced"]}]
    text = walked.run("plan").stdout
    assert '+    return orders.with_columns(dear=mp.col("amount") > 60)' in text
    assert "reads table priced, whose definition is another than it was trained with" in text
    assert walked.json("table", "history", "priced") == before


def test_a_change_of_the_fit_alone_leaves_the_training_set(walked):
    edit(walked, 'estimator="linear"', 'estimator="linear", seed=7')
    plan = walked.json("plan")
    assert (plan["tables"], plan["views"], plan["deployed"]) == ([], [], [])
    [model] = plan["models"]
    assert (model["training_set"], model["because"]) == (False, ["its seed changed"])
    # Documentation changes nothing.
    edit(walked, ", seed=7", ", description='Whether an order comes back.'")
    edit(walked, 'mp.latest("amount")', 'mp.latest("amount", description="What was paid last.")')
    assert walked.json("plan")["empty"] is True
    [line] = walked.json("feature", "list", "paid")
    assert (line["name"], line["description"]) == ("habits__last_amount", "What was paid last.")


def test_a_record_that_fell_behind_is_made_up_for(walked):
    """As after a process that was killed between its last commit and the record."""
    for file in walked.folder.glob(".millpond/platform.db*"):
        file.unlink()
    assert [each["version"] for each in walked.json("plan")["views"]] == [None]
    walked.run("train")
    assert walked.json("plan")["empty"] is True


def test_the_catalog_says_what_the_values_are_like(walked):
    shown = walked.json("feature", "show", "habits.last_amount")
    [feature] = shown["features"]
    assert (feature["type"], feature["column"], feature["declared"]) == ("float", "amount", 'latest("amount")')
    basis, found = shown["basis"], feature["statistics"]
    assert (basis["table"], basis["rows"], basis["entities"]) == ("training.returned", 1500, 60)
    assert (basis["version"], basis["current"]) == (1, True)
    assert found["nulls"] == pytest.approx(60 / 1500)  # the first order of each customer
    assert (found["quantiles"]["0.0"], found["quantiles"]["1.0"]) == (0.5, 96.5)
    assert [(each["table"], each["inputs"], each["files"]) for each in shown["lineage"]] == [
        ("orders", [], ["orders.csv"]),
        ("priced", ["orders"], []),
    ]
    assert shown["freshness"]["newest_event"] == time.strftime(
        "%Y-%m-%dT%H:%M:%SZ", time.gmtime(1_700_000_000 + 1499 * HOUR)
    )
    assert walked.json("feature", "show", "habits__last_amount") == shown
    listed = walked.json("feature", "list")
    assert [(each["feature"], each["type"], each["models"]) for each in listed] == [
        ("orders_7d", "int", ["returned"]),
        ("returned_30d", "int", ["returned"]),
        ("last_amount", "float", ["returned"]),
    ]
    assert walked.json("feature", "list", "amount", "tag:core") == []


def test_what_does_not_exist_is_refused_with_a_close_match(walked):
    for arguments, what, hint in (
        (("show", "habbits"), "feature view 'habbits'", "did you mean 'habits'?"),
        (("show", "habits.last_amont"), "feature 'last_amont' in view 'habits'", "did you mean 'last_amount'?"),
        (("diff", "habbits"), "feature view 'habbits'", "did you mean 'habits'?"),
        (("diff", "habits", "7"), "no version 7", "versions: 1"),
        (("diff", "habits", "1", "7"), "no version 7", "versions: 1"),
    ):
        error = walked.refused("feature", *arguments, code=4)
        assert what in error["what"]
        assert hint in error["hint"]
    walked.run("feature", "diff", "habits", "one", code=2)


def test_a_project_in_which_nothing_was_done_is_all_new(shop):
    plan = shop.json("plan")
    assert [(each["kind"], each["name"], each["action"]) for each in plan["changes"]] == [
        ("table", "orders", "added"),
        ("table", "priced", "added"),
        ("view", "habits", "added"),
        ("model", "returned", "added"),
    ]
    assert plan["models"] == [{"name": "returned", "newest": None, "training_set": True, "because": ["never trained"]}]
    shown = shop.json("feature", "show", "habits")
    assert (shown["basis"], shown["versions"], shown["uses"]) == (None, [], [])
    assert shop.run("feature", "diff", "habits").stdout.startswith("habits: never applied -> declared now")
