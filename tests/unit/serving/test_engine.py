"""Questions are answered by the version that the deployment says, logged before they are told, and counted."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from millpond.core.errors import DeadlineExceeded, MillpondError, NotFound, RequestError, Unavailable
from millpond.serving.engine.engine import MOST_MIRRORED, Deployed, Engine
from millpond.serving.engine.loaded import Loaded
from millpond.serving.engine.ports import AS_OF, Featured
from millpond.serving.lanes.ports import Reply
from millpond.serving.ports import InferRequest, LogPolicy, ModelState, RequestColumn, ServedModel
from millpond.serving.rows import Rows
from millpond.serving.traffic.deployment import Deployment
from millpond.serving.traffic.statistics import Statistics


class Weights:
    """A plan of the test's own: the mean of the inputs, plus a number."""

    def __init__(self, plus: float = 0.0, error: Exception | None = None) -> None:
        self.plus, self.error, self.asked = plus, error, 0

    def predict(self, rows: Rows) -> dict[str, Any]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return {"output": np.mean([list(column) for column in rows.columns.values()], axis=0) + self.plus}

    def explain(self, rows: Rows) -> Any:
        raise AssertionError("nobody asks for an explanation here")


class Memory:
    """A log that keeps records in memory, and tells so at once or when asked to."""

    def __init__(self) -> None:
        self.records: list[Any] = []
        self.error: Exception | None = None
        self.held: list[Callable[[], None]] | None = None

    def append(self, record: Any, done: Callable[[Exception | None], None]) -> None:
        if self.error is None:
            self.records.append(record)
        error = self.error
        if self.held is None:
            done(error)
        else:
            self.held.append(lambda: done(error))


class Loop:
    def __init__(self) -> None:
        self.soon: list[Any] = []

    def call_soon(self, callback: Any, *arguments: Any) -> None:
        self.soon.append((callback, arguments))

    def run(self) -> None:
        while self.soon:
            callback, arguments = self.soon.pop(0)
            callback(*arguments)


class Others:
    """Versions that no deployment names."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, int], Loaded] = {}
        self.told: list[tuple[str, bool]] = []

    def fetch(self, model: str, version: int, then: Any) -> None:
        then(self.known.get((model, version)) or NotFound(f"model {model!r} has no version {version}"))

    def states(self, model: str, loaded: Loaded) -> ModelState:
        return ModelState(model, str(loaded.served.version), "READY")

    def opening(self) -> list[ModelState]:
        return []

    def set_loaded(self, model: str, loaded: bool) -> None:
        self.told.append((model, loaded))


def served(version: int = 1, inputs: tuple[str, ...] = ("a", "b"), key: bool = False) -> ServedModel:
    columns = [RequestColumn(name, "float64", False, "input") for name in inputs]
    if key:
        columns.append(RequestColumn("who", "string", True, "key"))
    return ServedModel("m", version, "classification", 0.5, tuple(columns), None, dict.fromkeys(inputs, "float64"))


class Bench:
    def __init__(self) -> None:
        self.log, self.loop, self.others, self.counts = Memory(), Loop(), Others(), Statistics()
        self.engine = Engine(self.others, self.log, self.counts, self.loop)

    def deploy(self, deployment: Deployment, *versions: Loaded) -> None:
        self.engine.deploy({"m": Deployed(deployment, {each.served.version: each for each in versions})})

    def ask(self, values: dict[str, Any] | None = None, version: str | None = None, **more: Any) -> Any:
        rows = values or {"a": [0.2], "b": [0.4]}
        told: list[tuple[Any, Any]] = []

        def read(taken: ServedModel) -> InferRequest:
            missing = set(rows) - {column.name for column in taken.columns}
            if missing:
                raise RequestError(f"the model takes no {missing}")
            return InferRequest(Rows.of(rows), more.pop("raw", True), **more)

        self.engine.ask(
            SimpleNamespace(
                model="m",
                version=version,
                user="ada",
                deadline=None,
                read=read,
                done=lambda request, answer: told.append((request, answer)),
                gone=lambda: False,
            )
        )
        self.told = told
        if not told:
            return None
        assert len(told) == 1
        return told[0][1]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_the_live_version_answers_and_the_answer_is_logged_first(bench: Bench) -> None:
    bench.deploy(Deployment("m", 1), Loaded(served(), plan=Weights()))
    bench.log.held = []
    assert bench.ask({"a": [0.2, 1.0], "b": [0.4, 1.0]}) is None
    (record,) = bench.log.records
    assert record.requested_by == "ada"
    bench.log.held[0]()
    answer = bench.told[0][1]
    assert list(answer.outputs["output"]) == pytest.approx([0.3, 1.0])
    assert answer.answers == [False, True]
    assert all(type(each) is bool for each in answer.answers)  # as JSON can carry
    assert answer.variant == "live"
    assert len(set(answer.ids)) == 2
    assert sorted(answer.ids) == list(answer.ids)
    assert record.answer is answer
    assert bench.counts.of("m", 1, "live").rows == 2


def test_what_cannot_be_logged_is_not_answered(bench: Bench) -> None:
    bench.deploy(Deployment("m", 1), Loaded(served(), plan=Weights()))
    bench.log.error = Unavailable("the disk is full")
    assert isinstance(bench.ask(), Unavailable)


def test_the_share_of_a_canary_is_answered_by_it_and_compared_with_the_live_version(bench: Bench) -> None:
    live, canary = Weights(), Weights(0.4)
    deployment = Deployment("m", 1, canary=2, share=1.0, compares=True)
    bench.deploy(deployment, Loaded(served(1), plan=live), Loaded(served(2), plan=canary))
    answer = bench.ask()
    assert (answer.variant, answer.served.version) == ("canary", 2)
    assert live.asked == 0
    bench.loop.run()
    assert live.asked == 1
    tally = bench.counts.of("m", 2, "canary")
    assert tally.greatest == pytest.approx(0.4)
    assert tally.flips == 1
    assert len(bench.log.records) == 1


def test_an_entity_stays_with_its_variant(bench: Bench) -> None:
    deployment = Deployment("m", 1, canary=2, share=0.5)
    both = [Loaded(served(number, key=True), plan=Weights()) for number in (1, 2)]
    for each in both:
        each.plan.predict = lambda rows: {"output": [0.5] * rows.count}  # type: ignore[method-assign,union-attr]
    bench.deploy(deployment, *both)
    found = {}
    for number in range(200):
        values = {"a": [1.0], "b": [1.0], "who": [f"c{number % 20}"]}
        answer = bench.ask(values)
        assert found.setdefault(number % 20, answer.variant) == answer.variant
    assert set(found.values()) == {"live", "canary"}
    assert {bench.ask(routing_key="x").variant for _ in range(20)} in ({"live"}, {"canary"})


def test_where_a_canary_fails_the_live_version_answers(bench: Bench) -> None:
    bad = Weights(error=ValueError("planted"))
    deployment = Deployment("m", 1, canary=2, share=1.0)
    bench.deploy(deployment, Loaded(served(1), plan=Weights()), Loaded(served(2), plan=bad))
    answer = bench.ask()
    assert (answer.variant, answer.served.version) == ("live", 1)
    assert bench.counts.of("m", 2, "canary").failed == 1
    assert bench.counts.of("m", 1, "live").rows == 1
    assert [record.answer.served.version for record in bench.log.records] == [1]


def test_a_caller_who_is_wrong_is_not_the_fault_of_the_version(bench: Bench) -> None:
    deployment = Deployment("m", 1, canary=2, share=1.0)
    refusing = Weights(error=RequestError("a is too large"))
    bench.deploy(deployment, Loaded(served(1), plan=Weights()), Loaded(served(2), plan=refusing))
    assert isinstance(bench.ask(), RequestError)
    assert isinstance(bench.ask({"x": [1.0]}), RequestError)
    assert bench.counts.of("m", 2, "canary").failed == 0
    assert bench.counts.of("m", 1, "live").refused == 1


def test_a_shadow_is_asked_after_the_answer_and_its_output_is_kept(bench: Bench) -> None:
    shadow = Weights(0.1)
    deployment = Deployment("m", 1, shadows=(2, 3))
    broken = Loaded(served(3), plan=Weights(error=ValueError("planted")))
    bench.deploy(deployment, Loaded(served(1), plan=Weights()), Loaded(served(2), plan=shadow), broken)
    assert bench.ask().variant == "live"
    assert shadow.asked == 0
    bench.loop.run()
    live, mirrored = bench.log.records
    assert live.shadow_of is None
    assert (mirrored.shadow_of, mirrored.answer.variant, mirrored.answer.served.version) == (1, "shadow", 2)
    assert bench.counts.of("m", 2, "shadow").greatest == pytest.approx(0.1)
    assert bench.counts.of("m", 3, "shadow").failed == 1


def test_mirrored_requests_are_bounded(bench: Bench) -> None:
    bench.deploy(Deployment("m", 1, shadows=(2,)), *(Loaded(served(n), plan=Weights()) for n in (1, 2)))
    for _ in range(MOST_MIRRORED + 5):
        bench.ask()
    assert bench.engine.dropped == 5
    bench.loop.run()
    assert bench.counts.of("m", 2, "shadow").requests == MOST_MIRRORED


def test_a_canary_with_other_columns_reads_the_request_anew(bench: Bench) -> None:
    deployment = Deployment("m", 1, canary=2, share=1.0)
    other = Loaded(served(2, ("a", "b", "c")), plan=Weights())
    bench.deploy(deployment, Loaded(served(1), plan=Weights()), other)
    assert bench.ask().served.version == 2


def test_a_canary_that_refuses_what_the_live_version_takes_is_at_fault(bench: Bench) -> None:
    other = Loaded(served(2, ("c", "d")), plan=Weights())
    bench.deploy(Deployment("m", 1, canary=2, share=1.0), Loaded(served(1), plan=Weights()), other)
    assert bench.ask().served.version == 1
    assert bench.counts.of("m", 2, "canary").failed == 1
    assert bench.counts.of("m", 2, "canary").refused == 0
    bench.deploy(Deployment("m", 1, shadows=(2,)), Loaded(served(1), plan=Weights()), other)
    assert bench.ask().served.version == 1
    bench.loop.run()
    assert bench.counts.of("m", 2, "shadow").failed == 1


def test_a_shadow_that_cannot_even_be_asked_or_logged_holds_up_nothing(bench: Bench) -> None:
    class Broken:
        def look_up(self, rows: Rows, as_of: int | None) -> Featured | None:
            raise ValueError("planted")

    broken = Loaded(served(2), plan=Weights(), features=Broken())
    shadow = Loaded(served(3), plan=Weights())
    bench.deploy(Deployment("m", 1, shadows=(2, 3)), Loaded(served(1), plan=Weights()), broken, shadow)
    append = bench.log.append

    def refuse(record: Any, done: Any) -> None:
        if record.shadow_of is not None:
            raise Unavailable("the log is full")
        append(record, done)

    bench.log.append = refuse  # type: ignore[method-assign]
    for _ in range(3):
        assert bench.ask(raw=False).variant == "live"
    bench.loop.run()
    assert bench.counts.of("m", 2, "shadow").failed == 3
    assert (bench.counts.of("m", 3, "shadow").rows, bench.counts.of("m", 3, "shadow").failed) == (3, 0)


def test_features_that_cannot_be_looked_up_are_told(bench: Bench) -> None:
    class Broken:
        def look_up(self, rows: Rows, as_of: int | None) -> Featured | None:
            raise Unavailable("planted")

    bench.deploy(
        Deployment("m", 1, canary=2, share=1.0),
        Loaded(served(1), plan=Weights()),
        Loaded(served(2), plan=Weights(), features=Broken()),
    )
    assert bench.ask(raw=False).served.version == 1
    assert bench.counts.of("m", 2, "canary").failed == 1
    bench.others.known["m", 7] = Loaded(served(7), plan=Weights(), features=Broken())
    assert isinstance(bench.ask(raw=False, version="7"), Unavailable)


def test_versions_by_number_and_models_that_are_not_there(bench: Bench) -> None:
    bench.deploy(Deployment("m", 1), Loaded(served(1), plan=Weights()))
    bench.others.known["m", 7] = Loaded(served(7), plan=Weights())
    assert bench.ask(version="1").variant == "asked"
    assert bench.ask(version="7").served.version == 7
    assert isinstance(bench.ask(version="8"), NotFound)
    assert isinstance(bench.ask(version="one"), NotFound)
    assert bench.engine.served("m").version == 1
    with pytest.raises(NotFound, match="did you mean|there is no model"):
        bench.engine.served("n")


def test_an_unloaded_model_does_not_answer_until_it_is_loaded(bench: Bench) -> None:
    bench.deploy(Deployment("m", 1), Loaded(served(1), plan=Weights()))
    bench.engine.unload("m")
    assert isinstance(bench.ask(), NotFound)
    assert [each.state for each in bench.engine.index()] == ["UNLOADED"]
    assert bench.engine.state("m") == ModelState("m", "1", "UNLOADED", "it was unloaded")
    bench.engine.load("m")
    assert bench.engine.state("m").state == "READY"
    assert bench.ask().variant == "live"
    assert bench.others.told == [("m", False), ("m", True)]


def test_outputs_of_a_trained_model_are_finite_numbers(bench: Bench) -> None:
    plan = Weights(float("nan"))
    bench.deploy(Deployment("m", 1), Loaded(served(), plan=plan))
    error = bench.ask({"a": [0.2, 1.0], "b": [0.4, 1.0]})
    assert "no finite number" in error.what
    assert "version 1 of model 'm'" in error.what
    assert isinstance(bench.ask(), MillpondError)
    assert not bench.log.records


class Slow:
    """A process that answers when it is told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[Rows, Any]] = []

    def submit(self, rows: Rows, done: Any, **_: Any) -> None:
        self.calls.append((rows, done))


def test_what_is_not_known_inline_comes_from_the_featurizer_process(bench: Bench) -> None:
    class Never:
        def look_up(self, rows: Rows, as_of: int | None) -> Featured | None:
            return None

    featurizer, native = Slow(), Slow()
    loaded = Loaded(served(), native=native, features=Never(), featurizer=featurizer)
    bench.deploy(Deployment("m", 1), loaded)
    assert bench.ask(raw=False, as_of=7) is None
    rows, done = featurizer.calls[0]
    assert rows.columns[AS_OF] == [7]
    made = Rows.of({"b": [2.0], "a": [1.0], AS_OF: [7]})
    done(Reply(made, {"snapshots": {"t": 5}, "events": {}, "synced_at": None}))
    rows, done = native.calls[0]
    assert rows.names == ("a", "b")
    done(Reply(Rows.of({"output": [0.75]}), {}))
    assert bench.told[0][1].outputs["output"] == [0.75]
    (record,) = bench.log.records
    assert (record.snapshots, list(record.answer.as_of)) == ({"t": 5}, [7])
    assert bench.ask(raw=False) is None
    featurizer.calls[1][1](DeadlineExceeded("too late"))
    assert isinstance(bench.told[0][1], DeadlineExceeded)


def test_a_native_version_cannot_explain(bench: Bench) -> None:
    native = Slow()
    bench.deploy(Deployment("m", 1), Loaded(served(), native=native))
    bench.ask(explain=True)
    native.calls[0][1](Reply(Rows.of({"output": [0.75]}), {}))
    assert isinstance(bench.told[0][1], RequestError)


def test_what_is_logged_changes_while_a_version_serves(bench: Bench) -> None:
    loaded = Loaded(served(), plan=Weights())
    bench.deploy(Deployment("m", 1), loaded)
    bench.ask()
    bench.deploy(Deployment("m", 1), loaded.serving(replace(served(), logging=LogPolicy(0.5, ("a",)))))
    bench.ask()
    assert [each.answer.served.logging.redact for each in bench.log.records] == [(), ("a",)]
    assert loaded.served.logging == LogPolicy()
