import random
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.core.errors import MillpondError
from millpond.definitions.release import Release, max_errors
from millpond.serving.traffic.deployment import Deployment
from millpond.serving.traffic.histogram import Histogram
from millpond.serving.traffic.judging import Evidence, judge, least_share
from millpond.serving.traffic.statistics import Statistics, Tally, merged, tallies_of

salts = st.integers(0, 2**32 - 1)
shares = st.floats(0.0, 1.0)


@given(salts, st.lists(st.text(), max_size=30), shares, shares)
def test_a_key_that_is_in_stays_in(salt, keys, one, other):
    small, great = sorted((one, other))
    before = Deployment("late", 1, 2, small, salt=salt)
    later = Deployment("late", 1, 2, great, salt=salt)
    for key in keys:
        assert before.choose(key) == before.choose(key) == before.choose(key.encode("utf-8", "surrogatepass"))
        if before.choose(key) == (2, "canary"):
            assert later.choose(key) == (2, "canary")


@settings(max_examples=20, deadline=None)
@given(salts, st.sampled_from([0.01, 0.05, 0.25, 0.5]), st.sampled_from(["c{}", "{:08d}", "{}@example.org", "{:x}"]))
def test_the_share_is_right_for_keys_in_a_row(salt, share, pattern):
    deployment = Deployment("late", 1, 2, share, salt=salt)
    number = 4000
    found = sum(deployment.choose(pattern.format(each))[1] == "canary" for each in range(number))
    assert abs(found / number - share) < 5 * (share * (1 - share) / number) ** 0.5 + 1 / number


def test_requests_without_a_key_are_drawn_and_the_ends_are_exact():
    random.seed(3)
    deployment = Deployment("late", 1, 2, 0.25)
    assert 0.23 < sum(deployment.choose(None)[0] == 2 for _ in range(10_000)) / 10_000 < 0.27
    assert {Deployment("late", 1, 2, 0.0).choose(key) for key in ("a", None)} == {(1, "live")}
    assert {Deployment("late", 1, 2, 1.0).choose(key) for key in ("a", None)} == {(2, "canary")}
    assert Deployment("late", 1).choose("a") == (1, "live")


def test_releases_choose_apart():
    one, other = Deployment("late", 1, 2, 0.1, salt=11), Deployment("late", 1, 2, 0.1, salt=12)
    both = sum(one.choose(f"c{each}")[0] == other.choose(f"c{each}")[0] == 2 for each in range(20_000))
    assert both / 20_000 < 0.02


@given(st.lists(st.floats(0, 1e12), min_size=1), st.floats(0.01, 1.0))
def test_quantiles_of_a_histogram(values, share):
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    exact = sorted(values)[max(0, -(-int(share * len(values) * 1e9) // 10**9) - 1)]
    found = histogram.quantile(share)
    assert found is not None
    assert found >= exact * 0.999999 or exact < 2.0**-60
    assert found <= max(values) * 1.0221 + 2.0**-60


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.floats(1e-6, 10)), max_size=60))
def test_splitting_the_traffic_over_processes_changes_no_count(requests):
    whole, parts = Statistics(), [Statistics() for _ in range(3)]
    for each in (whole, *parts):
        each.enter("late", "1.1")
    for process, fails, seconds in requests:
        for statistics in (whole, parts[process]):
            statistics.observe("late", 2, "canary", 1, seconds, MillpondError("raised") if fails else None)
    one = merged([tallies_of(whole.snapshot(), "late", "1.1")], 2, "canary").to_json()
    other = merged([tallies_of(each.snapshot(), "late", "1.1") for each in parts], 2, "canary").to_json()
    assert abs(one["latency"].pop("total") - other["latency"].pop("total")) < 1e-9 * max(1, len(requests)) * 10
    assert one == other


@given(st.integers(1, 10_000).flatmap(lambda whole: st.tuples(st.integers(0, whole), st.just(whole))))
def test_the_lower_bound_of_a_share_is_below_it_and_grows_with_it(counts):
    part, whole = counts
    assert 0.0 <= least_share(part, whole) <= part / whole + 1e-12
    assert least_share(part, whole) <= least_share(min(part + 1, whole), whole) + 1e-12


@settings(deadline=None)
@given(st.integers(0, 400), st.integers(0, 400), st.floats(0, 2000), st.integers(1, 300))
def test_more_failures_never_help_and_nothing_goes_on_early(answers, failures, seconds, needed):
    def tally(failed):
        found = Tally()
        found.requests, found.errors = answers + failed, {"MillpondError": failed} if failed else {}
        return found

    release = Release(rules=[max_errors(0.05)], every="10m", requests=needed)
    live = tally(0)
    order = {"rollback": 0, "hold": 1, "advance": 2}
    verdict = judge(release, Evidence(tally(failures), live, seconds, False, {}))
    if verdict.action == "advance":
        assert seconds >= 600
        assert answers + failures >= needed
    if failures <= (answers + failures) * 0.05:
        assert verdict.action != "rollback"
    if answers == 0 and failures >= 20:
        assert verdict.action == "rollback"
    worse = judge(release, Evidence(tally(failures + answers + 5), live, seconds, False, {}))
    assert order[worse.action] <= max(order[verdict.action], 1)


def test_choosing_and_counting_cost_little():
    deployment, statistics = Deployment("late", 1, 2, 0.05, salt=99), Statistics()
    number = 20_000

    def best(work):
        took = []
        for _ in range(5):
            began = time.process_time()
            for _ in range(number):
                work()
            took.append((time.process_time() - began) / number)
        return min(took)

    assert best(lambda: deployment.choose("customer-12345")) < 4e-6
    assert best(lambda: statistics.observe("late", 1, "live", 1, 0.0003)) < 4e-6
