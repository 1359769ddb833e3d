from millpond.core.errors import MillpondError
from millpond.definitions.release import Release, live_metric, max_difference, max_errors, max_latency
from millpond.serving.traffic.judging import Evidence, Measured, judge
from millpond.serving.traffic.statistics import Tally


def tally(answers=0, failures=0, seconds=0.002, rows=0, beyond=0):
    found = Tally()
    for _ in range(answers):
        found.answered(1, seconds)
    for _ in range(failures):
        found.not_answered(MillpondError("raised"))
    for row in range(rows):
        found.compare(0.9 if row < beyond else 0.0)
    return found


def said(release, tried, live=None, seconds=1000.0, shadowing=False, metrics=None, unloadable=""):
    live = live or tally(answers=1000)
    return judge(release, Evidence(tried, live, seconds, shadowing, metrics or {}, unloadable))


ERRORS = Release(rules=[max_errors(0.01)], every="10m", requests=100)


def test_a_good_version_goes_on_when_time_and_requests_are_there():
    assert said(ERRORS, tally(answers=100)).action == "advance"
    assert said(ERRORS, tally(answers=99)).action == "hold"
    assert said(ERRORS, tally(answers=100), seconds=599).action == "hold"
    waits = said(ERRORS, tally(answers=99), seconds=30)
    assert waits.reasons == (
        "10m in this step: 30 s have passed",
        "at least 100 requests: 99 so far",
    )


def test_a_version_that_raises_is_taken_back_within_some_requests():
    broken = next(number for number in range(1, 30) if said(ERRORS, tally(failures=number)).action == "rollback")
    assert broken <= 20
    verdict = said(ERRORS, tally(failures=broken), seconds=0.1)
    assert verdict.reasons == (
        f"errors <= 0.01 of the requests: {broken} of {broken} requests failed ({broken} MillpondError)",
    )


def test_one_early_error_does_not_end_a_release():
    for answers in range(200):
        assert said(ERRORS, tally(answers=answers, failures=1)).action != "rollback"
    assert said(Release(rules=[max_errors(0.0)]), tally(answers=20, failures=1)).action == "rollback"


def test_errors_of_both_versions_hold_the_release():
    verdict = said(ERRORS, tally(failures=50), live=tally(failures=50))
    assert verdict.action == "hold"
    assert "the live version fails as well" in verdict.reasons[0]


def test_latency_in_milliseconds_and_as_a_ratio():
    fixed = Release(rules=[max_latency("p99", ms=50)])
    assert said(fixed, tally(answers=100, seconds=0.2)).action == "rollback"
    assert said(fixed, tally(answers=99, seconds=0.2)).action == "hold"
    assert said(fixed, tally(answers=100, seconds=0.04)).action == "advance"
    ratio = Release(rules=[max_latency("p99", ratio=2.0)])
    assert said(ratio, tally(answers=100, seconds=0.006)).action == "rollback"
    assert said(ratio, tally(answers=100, seconds=0.0035)).action == "advance"
    assert said(ratio, tally(answers=100, seconds=0.006), live=tally(answers=99)).action == "hold"
    tiny = said(ratio, tally(answers=100, seconds=0.0009), live=tally(answers=100, seconds=0.0001))
    assert tiny.action == "advance"


def test_differences():
    release = Release(rules=[max_difference(0.2, share=0.05)])
    assert said(release, tally(answers=100, rows=50, beyond=50)).action == "rollback"
    assert said(release, tally(answers=100, rows=200, beyond=8)).action == "advance"
    assert said(release, tally(answers=100, rows=49)).action == "hold"
    assert said(Release(rules=[max_difference(0.2)]), tally(answers=100, rows=50, beyond=1)).action == "rollback"


def test_a_metric_waits_for_its_labels():
    release = Release(rules=[live_metric("roc_auc", at_least=0.7, labels=200)])

    def judged(value, labels, live=(0.8, 500), rule=release):
        metrics = {
            "roc_auc": (Measured(value, labels), Measured(*live)),
            "rmse": (Measured(value, labels), Measured(*live)),
        }
        return said(rule, tally(answers=100), metrics=metrics).action

    assert judged(0.8, 199) == "hold"
    assert judged(0.8, 200) == "advance"
    assert judged(0.6, 200) == "rollback"
    relative = Release(rules=[live_metric("roc_auc", not_worse_by=0.02)])
    assert judged(0.79, 200, rule=relative) == "advance"
    assert judged(0.77, 200, rule=relative) == "rollback"
    assert judged(0.77, 200, live=(0.8, 10), rule=relative) == "hold"
    lower = Release(rules=[live_metric("rmse", not_worse_by=1.0)])
    assert judged(10.0, 200, live=(9.5, 300), rule=lower) == "advance"
    assert judged(11.0, 200, live=(9.5, 300), rule=lower) == "rollback"
    assert said(release, tally(answers=100)).action == "hold"


def test_a_release_without_a_time_waits_to_be_told_and_is_taken_back_by_itself():
    release = Release(every=None, rules=[max_errors(0.01)])
    assert said(release, tally(answers=100_0)).action == "hold"
    assert said(release, tally(failures=20)).action == "rollback"


def test_what_cannot_be_loaded_is_taken_back():
    verdict = said(ERRORS, tally(), unloadable="its files are corrupt")
    assert verdict.action == "rollback"
    assert verdict.reasons == ("it can be loaded: its files are corrupt",)
