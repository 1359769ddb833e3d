import pytest

import millpond as mp
from millpond.core.errors import DefinitionError
from millpond.definitions.changes import compare, in_words
from millpond.definitions.meanings import Key, meanings
from millpond.definitions.project import collect
from millpond.definitions.release import release_from

ORDERS = mp.Table("orders", key="id", time="at")


def model(release, task=None):
    task = task or mp.Classification(label="returned")
    return mp.Model("returned", task=task, examples=ORDERS, inputs=["amount"], release=release)


def refused(release, task=None):
    with pytest.raises(DefinitionError) as caught:
        collect([model(release, task)])
    return str(caught.value)


@pytest.mark.parametrize(
    ("release", "said"),
    [
        (mp.Release(steps=(0.25, 0.05)), "release: steps: are [0.25, 0.05] (in ascending order, each once)"),
        (mp.Release(steps=(5, 25, 100)), "shares of the requests: above 0, at most 1"),
        (mp.Release(steps=(1.0,)), "leave nothing to try (name a share below 1, or shadow first)"),
        (mp.Release(every="10 min"), "release: every: '10 min' is not a duration"),
        (mp.Release(shadow="soon"), "release: shadow: 'soon' is not a duration"),
        (mp.Release(requests=0), "release: requests: is 0"),
        (mp.Release(rules=["errors"]), "release: rules: hold 'errors' (mp.max_errors(...), mp.max_latency(...)"),
        (mp.Release(rules=[mp.max_errors(1.5)]), "release: max_errors: share: is 1.5"),
        (mp.Release(rules=[mp.max_latency("p98", ms=5)]), "quantile: is 'p98' (did you mean 'p9"),
        (mp.Release(rules=[mp.max_latency("p99")]), "ms, ratio: neither is given (give one of them)"),
        (mp.Release(rules=[mp.max_latency("p99", ms=5, ratio=2)]), "ms, ratio: both are given"),
        (mp.Release(rules=[mp.max_difference(-1)]), "max_difference: by: is -1"),
        (mp.Release(rules=[mp.live_metric("roc")]), "there is no bound (give one of at_least, at_most, not_worse_by)"),
        (mp.Release(rules=[mp.live_metric("roc_au", at_least=0.7)]), "did you mean 'roc_auc'"),
        (mp.Release(rules=[mp.live_metric("rmse", at_most=3)]), "metric: is 'rmse'"),
        ("5%", "release: is '5%' (give an mp.Release(...), or None)"),
    ],
)
def test_a_wrong_release_is_refused_in_words(release, said):
    assert said in refused(release)


def test_a_release_is_kept_as_plain_data_and_read_back():
    rules = [
        mp.max_errors(0.02),
        mp.max_latency("p95", ms=20),
        mp.max_difference(0.2, share=0.05),
        mp.live_metric("roc_auc", not_worse_by=0.02, labels=50),
    ]
    release = mp.Release(steps=(0.1, 1.0), every="5m", shadow="1h", rules=rules, requests=10)
    again = release_from(release.describe())
    assert again.describe() == release.describe()
    assert [str(each) for each in again.rules] == [str(each) for each in rules]
    assert (again.shares, again.compares, again.seconds(shadowing=True)) == ((0.1,), True, 3600.0)


def test_only_what_is_released_changes_when_a_release_changes():
    before = meanings(collect([model(mp.Release(every="10m"))]))
    after = meanings(collect([model(mp.Release(every="5m"))]))
    [change] = compare(before, after)
    assert change.key == Key("release", "returned")
    assert [line for field in change.fields for line in in_words(field)] == ["every: 10m -> 5m"]
    assert model(None).describe() == model(mp.Release()).describe()
    assert Key("release", "returned") not in meanings(collect([model(None)]))
