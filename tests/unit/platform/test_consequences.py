from datetime import UTC, datetime

import pytest

import millpond as mp
from millpond.access.ports import AppliedDefinition
from millpond.core.fingerprints import fingerprint
from millpond.definitions.meanings import Key, meaning, meanings, model_meanings
from millpond.definitions.project import collect
from millpond.features.online.ports import OnlineView, ViewState
from millpond.features.plan import plan_view
from millpond.features.ports import PinnedView
from millpond.lake.ports import Column, Snapshot
from millpond.platform.applied import Record
from millpond.platform.consequences import KeptView, Trained, holds, make_plan

NOW = datetime(2024, 1, 1, tzinfo=UTC)
COLUMNS = {"id": "long", "at": "timestamptz", "seen": "timestamptz", "who": "string", "paid": "double"}


class Project:
    """A small project whose parts can be declared otherwise."""

    def __init__(self, query="SELECT * FROM raw", over="1h", model=True, use=True, view=None, **fit):
        self.raw = mp.Table("raw", key="id", time="at")
        self.orders = mp.sql_table("orders", self.raw, query=query, key="id", time="at")
        self.daily = mp.sql_table("daily", self.orders, query="SELECT * FROM orders", key="id", time="at")
        customer = mp.Entity("customer", key="who")
        options = {"entity": customer, "source": self.daily, **(view or {})}
        self.view = mp.Features("habits", **options, paid=mp.sum("paid", over=over))
        self.model = mp.Model(
            "late",
            task=mp.Classification(label="late"),
            examples=self.orders,
            inputs=[self.view, "paid"] if use else ["paid"],
            **fit,
        )
        self.definitions = collect([self.daily, self.view, *([self.model] if model else [])])

    def trained(self, number=1, champion=True):
        parts = model_meanings(self.model, self.definitions.upstream(self.model))
        return Trained("late", number, champion, parts)


def recorded(*projects):
    """What is on record after the projects were applied one after another."""
    entries, in_force, known = [], {}, {}
    for project in projects:
        declared = meanings(project.definitions)
        for key in [*declared, *(key for key in in_force if key not in declared)]:
            print_ = fingerprint(declared[key]) if key in declared else None
            if in_force.get(key) == print_:
                continue
            in_force[key] = print_
            prints = known.setdefault(key, [])
            if print_ is not None and print_ not in prints:
                prints.append(print_)
            number = prints.index(print_) + 1 if print_ else None
            entry = AppliedDefinition(
                len(entries) + 1, *key, number, print_, declared.get(key), NOW, "ann", None, False
            )
            entries.append(entry)
    return Record(entries)


def planned(now, applied, trained=(), derived="same", states=()):
    tables = dict.fromkeys(("orders", "daily"), "same") | ({"orders": derived} if derived != "same" else {})
    return make_plan(now.definitions, meanings(now.definitions), applied, tables, trained, states)


def test_nothing_changes_where_nothing_was_changed():
    plan = planned(Project(), recorded(Project()), [Project().trained()])
    assert plan.empty
    assert plan == type(plan)((), (), (), (), (), ())


def test_a_changed_view_gets_a_version_and_its_model_is_trained_again():
    plan = planned(Project(over="2h"), recorded(Project()), [Project().trained()])
    assert [each.name for each in plan.changes] == ["habits"]
    assert plan.tables == ()
    [view] = plan.views
    assert (view.version, view.becomes, view.models) == (1, 2, ("late",))
    [model] = plan.models
    assert (model.training_set, model.because) == (True, ("view habits changed",))
    [deployed] = plan.deployed
    assert deployed.keeps == (KeptView("view", "habits", 1, 2),)
    assert deployed.tables == ()


def test_a_changed_table_takes_everything_below_it_along():
    plan = planned(Project(query="SELECT 1"), recorded(Project()), [Project().trained()], derived="other")
    assert [(each.name, each.version, each.becomes, each.derive, each.because) for each in plan.tables] == [
        ("orders", 1, 2, True, ("its definition changed",)),
        ("daily", 1, 1, True, ("table orders is derived again",)),
    ]
    [view] = plan.views
    assert (view.version, view.becomes, view.because) == (1, 1, ("table daily is derived again",))
    [deployed] = plan.deployed
    assert (deployed.keeps, deployed.tables) == ((), ("orders",))


def test_what_only_the_fit_depends_on_leaves_the_training_set():
    plan = planned(Project(seed=3), recorded(Project()), [Project().trained()])
    assert (plan.tables, plan.views, plan.deployed) == ((), (), ())
    [model] = plan.models
    assert (model.training_set, model.because) == (False, ("its seed changed",))
    plan = planned(Project(seed=3, use=False), recorded(Project()), [Project().trained()])
    assert [each.training_set for each in plan.models] == [True]
    assert not planned(Project(gates=[mp.at_least("roc_auc", 0.7)]), recorded(Project()), [Project().trained()]).changes


def test_a_meaning_that_comes_back_is_the_version_that_it_was():
    plan = planned(Project(over="60m"), recorded(Project(), Project(over="2h"), Project(over="3h")))
    [view] = plan.views
    assert (view.version, view.becomes) == (3, 1)


def test_what_is_no_longer_declared_stays_where_it_answers():
    plan = planned(Project(model=False), recorded(Project()), [Project().trained()])
    assert [(str(each.key), each.action) for each in plan.changes] == [("model late", "removed")]
    assert (plan.views, plan.models, plan.deployed) == ((), (), ())
    assert planned(Project(model=False), recorded(Project(), Project(model=False))).empty


def test_a_model_is_compared_with_its_newest_version_and_not_with_the_one_that_answers():
    trained = [Project().trained(1), Project(over="2h").trained(2, champion=False)]
    plan = planned(Project(over="2h"), recorded(Project(), Project(over="2h")), trained)
    assert plan.empty
    [deployed] = plan.deployed
    assert (deployed.version, deployed.keeps) == (1, (KeptView("view", "habits", 1, 2),))


def test_a_version_from_before_anything_was_on_record_has_no_view_version():
    plan = planned(Project(over="2h"), recorded(Project(over="2h")), [Project().trained()])
    assert plan.deployed[0].keeps == (KeptView("view", "habits", None, 1),)


def online(project):
    columns = tuple(Column(name, type_) for name, type_ in COLUMNS.items())
    return OnlineView.of(plan_view(PinnedView(project.view, Snapshot(project.view.source.name, 1, NOW, 0, columns))))


def state(project):
    return ViewState(online(project), 1, NOW, 0, None, None, 60)


def effects(plan):
    return [(each.view, each.action, each.because) for each in plan.online]


def test_online_values_follow_the_meaning():
    record, old, new = recorded(Project()), Project(), Project(over="2h")
    assert effects(planned(old, record, states=[state(old)])) == []
    assert effects(planned(new, record, [old.trained()], states=[state(old)])) == [
        ("habits", "keep", "late/1 answers with this meaning"),
        ("habits", "refresh", "this meaning is not held yet"),
    ]
    assert effects(planned(new, record, states=[state(old), state(new)])) == [
        ("habits", "drop", "nothing uses this meaning")
    ]
    again = planned(old, record, derived="other", states=[state(old)])
    assert effects(again) == [("habits", "refresh", "table daily is derived again")]
    assert effects(planned(new, record)) == []


@pytest.mark.parametrize(
    "view",
    [
        {},
        {"every": "1h"},
        {"known": "seen"},
        {"time": "seen", "known": "seen"},
        {"last": mp.latest("paid")},
        {"last": mp.latest("paid", within="6h")},
        {"last": mp.count()},
        {"source": mp.Table("facts", key="id")},
        {"source": mp.Table("facts", key="id"), "known": "seen", "every": "1h"},
    ],
    ids=str,
)
def test_what_a_store_holds_is_told_by_its_meaning(view):
    over = None if "source" in view else "1h"
    project = Project(view=view, over=over)
    assert holds(online(project), meaning(project.view))
    assert not holds(online(project), meaning(Project(view={**view, "more": mp.max("paid")}, over=over).view))
    assert not holds(online(project), None)
    assert Key("view", "habits") in meanings(project.definitions)
