"""What every model store does. The tests build on one another: registering costs seconds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from millpond.core.errors import NotFound, VersionRefused
from millpond.registry.ports import Candidate, CodeState, Lineage, ModelStore, Version

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def one() -> Candidate:
    from sklearn.linear_model import LogisticRegression

    frame = pd.DataFrame({"hour": np.arange(24.0), "distance": np.arange(24.0) % 7})
    estimator = LogisticRegression().fit(frame, frame["hour"] > 12)
    example = frame.head(20)
    return Candidate(
        model="late_arrival",
        task="classification",
        estimator=estimator,
        inputs={"hour": "float64", "distance": "int64"},
        threshold=0.5,
        metrics={"test.roc_auc": 0.7512345678901234},
        params={"C": 1.0},
        input_example=example,
        expected=[float(value) for value in estimator.predict_proba(example)[:, 1]],
        spec={"inputs": {"hour": "float64"}, "nested": [1, 2.5, None, "ä"]},
        files={"report.html": b"<p>report", "data/curve.json": b"{}"},
        lineage=Lineage(
            training_set="training.late_arrival",
            training_set_snapshot=2**62,
            sources={"flights": 1},
            definitions={"model": {"name": "late_arrival"}},
            fingerprint="aaaabbbbccccdddd",
            code=CodeState("c" * 40, "main", dirty=True, diff="+x = 'ä'\r\n"),
            packages={"numpy": "2.0.0"},
            python="3.11.7",
            platform="Linux",
        ),
        trained_by="ann",
        tags={"purpose": "contract"},
    )


@pytest.fixture(scope="session")
def first(model_store: ModelStore, one: Candidate) -> Version:
    assert model_store.models() == []
    assert model_store.versions("late_arrival") == []
    return model_store.register(one)


@pytest.fixture(scope="session")
def second(model_store: ModelStore, one: Candidate, first: Version) -> Version:
    return model_store.register(replace(one, trained_by="bob", metrics={"test.roc_auc": 0.8}, tags={}))


def test_a_version_says_what_it_is(first: Version) -> None:
    assert (first.model, first.number, str(first)) == ("late_arrival", 1, "late_arrival/1")
    assert (first.created_by, first.fingerprint) == ("ann", "aaaabbbbccccdddd")
    assert first.metrics == {"test.roc_auc": 0.7512345678901234}
    assert first.tags == {"purpose": "contract"}
    assert first.aliases == ()
    assert first.created_at.tzinfo is UTC
    assert abs(datetime.now(UTC) - first.created_at) < timedelta(minutes=10)


def test_versions_are_counted_and_listed_oldest_first(model_store: ModelStore, first: Version, second: Version) -> None:
    assert second.number == 2
    assert [version.number for version in model_store.versions("late_arrival")] == [1, 2]
    assert model_store.models() == ["late_arrival"]
    assert model_store.version("late_arrival", 2).created_by == "bob"
    assert model_store.version("late_arrival", 2).metrics == {"test.roc_auc": 0.8}


def test_what_it_was_made_of_comes_back_exactly(model_store: ModelStore, first: Version, one: Candidate) -> None:
    assert model_store.lineage(first) == one.lineage
    assert model_store.spec(first) == one.spec
    assert model_store.report(first).read_bytes() == b"<p>report"
    directory = model_store.directory(first)
    assert (directory / "MLmodel").is_file()
    assert (directory / "millpond" / "data" / "curve.json").read_bytes() == b"{}"


def test_an_alias_moves(model_store: ModelStore, first: Version, second: Version) -> None:
    model_store.set_alias("late_arrival", "champion", 1)
    assert model_store.version("late_arrival", "champion").number == 1
    model_store.set_alias("late_arrival", "challenger", 2)
    model_store.set_alias("late_arrival", "champion", 2)
    aliases = [version.aliases for version in model_store.versions("late_arrival")]
    assert aliases == [(), ("challenger", "champion")]
    with pytest.raises(NotFound):
        model_store.set_alias("late_arrival", "champion", 99)
    assert model_store.version("late_arrival", "champion").number == 2


def test_what_does_not_exist_is_not_found(model_store: ModelStore, first: Version) -> None:
    with pytest.raises(NotFound, match="no version of model 'late_arival'") as missing:
        model_store.version("late_arival", 1)
    assert "did you mean 'late_arrival'?" in missing.value.hint
    for which in (0, 99, "nobody"):
        with pytest.raises(NotFound, match="has no version") as missing:
            model_store.version("late_arrival", which)
        assert "versions: 1" in missing.value.hint
    for question in (model_store.directory, model_store.lineage, model_store.spec, model_store.report):
        with pytest.raises(NotFound):
            question(replace(first, number=99, location=f"{first.location}-gone"))
    with pytest.raises(NotFound):
        model_store.set_alias("other", "champion", 1)


def test_a_wrong_expectation_is_refused(model_store: ModelStore, first: Version, one: Candidate) -> None:
    before = model_store.versions("late_arrival")
    with pytest.raises(VersionRefused, match="row 19"):
        model_store.register(replace(one, expected=[*list(one.expected)[:-1], one.expected[-1] * (1 + 1e-8)]))
    assert model_store.versions("late_arrival") == before


def test_a_name_that_cannot_be_kept_is_refused(model_store: ModelStore, first: Version, one: Candidate) -> None:
    before = model_store.versions("late_arrival")
    with pytest.raises(VersionRefused, match="does not take"):
        model_store.register(replace(one, metrics={"what?!": 1.0}))
    assert model_store.versions("late_arrival") == before


def test_a_version_without_a_report(model_store: ModelStore, one: Candidate) -> None:
    version = model_store.register(replace(one, model="plain", files={}))
    with pytest.raises(NotFound, match="plain/1 has no report"):
        model_store.report(version)
